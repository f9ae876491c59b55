"""The parser at the edge: what passes is readable everywhere, what does not says why and where."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.strict import (
    POINTER_CHARS_MAX,
    VALUES_MAX,
    Malformed,
    _depth,
    check_text,
    parse,
    pointer,
)

BYTES_MAX = 1_000_000


def refused(raw: bytes, bytes_max: int = BYTES_MAX) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse(raw, bytes_max=bytes_max)
    assert len(str(caught.value)) < 1000
    return caught.value


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        (b"", "INVALID_JSON", "line 1, column 1"),
        (b'{"a":\n 1,,}', "INVALID_JSON", "line 2, column 4"),
        (b'{"a": 1', "INVALID_JSON", "line 1, column"),
        (b'\xef\xbb\xbf{"a": 1}', "INVALID_JSON", "byte order mark"),
        (b'{"a":\n"\xff"}', "INVALID_JSON", "UTF-8 at line 2, column 2"),
        (b'{"a":"\xed\xa0\x80"}', "INVALID_JSON", "UTF-8"),
        (b'"raw \x00 nul"', "INVALID_JSON", "control character"),
        (b"[NaN]", "INVALID_VALUE", "finite"),
        (b"[-Infinity]", "INVALID_VALUE", "finite"),
        (b"[1e400]", "INVALID_VALUE", "finite"),
        (b"[" + b"9" * 5000 + b"]", "INVALID_VALUE", "finite"),
        (b'["\\u0000"]', "INVALID_PAYLOAD", "NUL"),
        (b'{"\\u0000": 1}', "INVALID_PAYLOAD", "NUL"),
        (b'["\\ud800"]', "INVALID_PAYLOAD", "surrogate"),
        (b'["\\udc00x"]', "INVALID_PAYLOAD", "surrogate"),
        (b'{"a\\ud800": 1}', "INVALID_PAYLOAD", "surrogate"),
    ],
)
def test_what_is_wrong_has_a_code_and_a_reason(raw: bytes, code: str, says: str) -> None:
    error = refused(raw)
    assert error.code == code
    assert says in error.detail


def test_bad_values_are_pointed_at() -> None:
    assert refused(b'{"a": [1, {"b/c": NaN}]}').pointer == "/a/1/b~1c"
    assert refused(b'{"a": [1, {"b~": "\\u0000"}]}').pointer == "/a/1/b~0"
    assert refused(b'{"a": [1, "\\ud800"]}').pointer == "/a/1"


def test_size_is_bounded() -> None:
    assert parse(b"[1]", bytes_max=3) == [1]
    assert refused(b"[1] ", 3).code == "TOO_LARGE"


def test_nesting_is_bounded_at_its_place() -> None:
    assert parse(b"[" * 64 + b"]" * 64, bytes_max=BYTES_MAX)
    error = refused(b'{"}": "[[\\"[", "a":\n' + b"[" * 64 + b"]" * 64 + b"}")
    assert error.code == "INVALID_JSON"
    assert "deeper than 64" in error.detail
    assert "line 2, column 64" in error.detail
    assert refused(b"[" * 100_000).code == "INVALID_JSON"
    assert refused(b'{"a":' * 100_000).code == "INVALID_JSON"


def test_brackets_and_escapes_inside_text_do_not_count() -> None:
    text = "[" * 100 + '\\"' + "\\" * 7 + '"{' * 100 + "é"
    assert parse(orjson.dumps([text, {text: text}]), bytes_max=BYTES_MAX) == [text, {text: text}]


def test_an_escaped_backslash_before_u0000_is_plain_text() -> None:
    assert parse(rb'["\\u0000"]', bytes_max=BYTES_MAX) == ["\\u0000"]


def test_of_a_repeated_key_the_last_counts() -> None:
    assert parse(b'{"a": 1, "a": 2}', bytes_max=BYTES_MAX) == {"a": 2}
    assert parse(b'{"a": "\\u0000", "a": 2}', bytes_max=BYTES_MAX) == {"a": 2}


def test_ids_that_look_alike_stay_apart() -> None:
    assert parse('["é", "e\u0301"]'.encode(), bytes_max=BYTES_MAX) == ["é", "e\u0301"]


@pytest.mark.parametrize(
    ("value", "code", "where"),
    [
        ("\0", "INVALID_PAYLOAD", ""),
        ({"a": ["\ud800"]}, "INVALID_PAYLOAD", "/a/0"),
        ({"a\0": 1}, "INVALID_PAYLOAD", "/a\ufffd"),
        ([math.nan], "INVALID_VALUE", "/0"),
        ([-math.inf], "INVALID_VALUE", "/0"),
        ([2**64], "INVALID_VALUE", "/0"),
        ([-(2**63) - 1], "INVALID_VALUE", "/0"),
        ({1: 2}, "INVALID_TYPE", "/1"),
        ([(1, 2)], "INVALID_TYPE", "/0"),
        ([b"x"], "INVALID_TYPE", "/0"),
    ],
)
def test_values_are_held_to_the_same(value: Any, code: str, where: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_text(value)
    assert (caught.value.code, caught.value.pointer) == (code, where)


def test_values_without_end_are_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(Malformed, match="deeper"):
        check_text(ring)
    bomb: list[Any] = ["x"] * 100
    for _ in range(20):
        bomb = [bomb] * 100
    with pytest.raises(Malformed, match=f"{VALUES_MAX:,}"):
        check_text(bomb)


def test_integers_of_64_bits_pass() -> None:
    check_text([2**64 - 1, -(2**63), True, None, 0.5])


def test_pointers_are_bounded_and_printable() -> None:
    assert pointer(["a/b", 0, "~"]) == "/a~1b/0/~0"
    assert len(pointer(["x" * 10_000_000, 1])) == POINTER_CHARS_MAX
    assert pointer(["\0\ud800\n"]) == "/\ufffd\ufffd\ufffd"


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text('[]{}"\\u0é')
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}"\\a'), inner),
    max_leaves=30,
)


def nesting(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(nesting, inner), default=0)


@settings(max_examples=150, deadline=None)
@given(values, st.booleans())
def test_what_passes_is_what_was_written(value: Any, indented: bool) -> None:
    raw = json.dumps(value, indent=2 if indented else None).encode()
    assert _depth(raw) == nesting(value)
    assert parse(raw, bytes_max=BYTES_MAX) == value


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text('[]{}",:\\u0d8 1eNa', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        value = parse(raw, bytes_max=BYTES_MAX)
    except Malformed:
        return
    check_text(value)
    assert orjson.loads(orjson.dumps(value)) == value
