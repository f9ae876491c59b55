"""What is sealed can be opened where it belongs, and nowhere else (R60)."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sealing.kms import BadKey, LocalKms, decode_keys, encode_key, read_file, write_file
from streams.sealing.sealer import Sealer, Unopenable
from streams.sealing.token import MARK, clear_bytes, is_sealed, is_sealed_text, named

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
ACME = Sealer("acme", {1: KEY})
HERE = "execution/0190-1"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _sayable(value: object) -> bool:
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:  # a lone surrogate
        return False
    return True


@given(json_values.filter(_sayable))
def test_any_value_comes_back(value: object) -> None:
    """Whatever JSON holds; the sealed form is JSON that survives the wire."""
    sealed = orjson.loads(orjson.dumps(ACME.seal_value(value, HERE, "output")))
    assert is_sealed(sealed)
    again = ACME.open_value(sealed, HERE, "output")
    assert orjson.dumps(again) == orjson.dumps(orjson.loads(orjson.dumps(value)))
    assert clear_bytes(sealed[MARK]) == len(orjson.dumps(value))


@given(st.binary(max_size=40), st.data())
def test_any_flipped_bit_is_refused(clear: bytes, data: st.DataObject) -> None:
    """In nonce, ciphertext and tag."""
    version, field, text = ACME.seal(clear, HERE, "output").split(".", 2)
    raw = bytearray(b64decode(text))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Unopenable, match="TAMPERED"):
        ACME.open(f"{version}.{field}.{b64encode(raw).decode()}", HERE, "output")


@given(st.text(max_size=30))
def test_what_is_no_token_is_refused(text: str) -> None:
    """Nothing that somebody makes up opens, and nothing but Unopenable is raised."""
    with pytest.raises(Unopenable):
        ACME.open(text, HERE)


def test_a_token_opens_only_where_it_belongs() -> None:
    """Tenant, execution, field, version: each is bound."""
    token = ACME.seal(b"secret", HERE, "output")
    assert ACME.open(token, HERE, "output") == b"secret"
    for sealer, subject, field in (
        (Sealer("other", {1: KEY}), HERE, "output"),
        (ACME, "execution/0190-2", "output"),
        (ACME, HERE, "input"),
        (Sealer("acme", {1: OTHER}), HERE, "output"),
    ):
        with pytest.raises(Unopenable, match="TAMPERED"):
            sealer.open(token, subject, field)
    relabelled = token.replace(".output.", ".input.")
    with pytest.raises(Unopenable, match="TAMPERED"):
        ACME.open(relabelled, HERE, "input")
    rotated = Sealer("acme", {1: KEY, 2: KEY})
    assert rotated.open(token, HERE) == b"secret"
    with pytest.raises(Unopenable, match="TAMPERED"):
        rotated.open(f"2{token[1:]}", HERE)


def test_a_newer_version_seals_and_older_ones_open() -> None:
    """Rotation: what was sealed before stays readable, by whoever has the version."""
    before = ACME.seal(b"secret", HERE, "input")
    rotated = Sealer("acme", {1: KEY, 2: OTHER})
    assert rotated.open(before, HERE) == b"secret"
    after = rotated.seal(b"secret", HERE, "input")
    assert after.startswith("2.input.")
    with pytest.raises(Unopenable, match="WRONG_KEY"):
        ACME.open(after, HERE)


def test_a_salt_makes_it_the_same_and_none_makes_it_another() -> None:
    """A command that is given again under its id is the same command; else nonces never repeat."""
    said = {ACME.seal(b"x", HERE, "input", b"id-1") for _ in range(3)}
    assert len(said) == 1
    nonces = {ACME.seal(b"x", HERE, "input")[:24] for _ in range(1_000)}
    assert len(nonces) == 1_000
    others = {
        ACME.seal(b"x", HERE, "input", b"id-2"),
        ACME.seal(b"y", HERE, "input", b"id-1"),
        ACME.seal(b"x", HERE, "output", b"id-1"),
        ACME.seal(b"x", "execution/2", "input", b"id-1"),
    }
    assert len({token.rsplit(".", 1)[1][:16] for token in others | said}) == 5


def test_salt_and_value_cannot_be_confused() -> None:
    """Where the salt ends is part of what is hashed."""
    one = ACME.seal(b"bc", HERE, "input", b"a").rsplit(".", 1)[1]
    other = ACME.seal(b"c", HERE, "input", b"ab").rsplit(".", 1)[1]
    assert one[:16] != other[:16]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RATE_LIMITED: customer 4711 asked too often", "RATE_LIMITED: "),
        ("ValueError: no column salary", "ValueError: "),
        ("customer 4711: no such", ""),
        ("something failed", ""),
        ("TIMED_OUT", ""),
        ("X: ", "X: "),
    ],
)
def test_of_an_error_its_name_stays_in_clear(text: str, name: str) -> None:
    """Retry policies go by the name; all else is sealed."""
    assert named(text)[0] == name
    sealed = ACME.seal_text(text, HERE, "error")
    assert sealed.startswith(name)
    assert is_sealed_text(sealed) == (text != name)
    assert "4711" not in sealed
    assert "salary" not in sealed
    told = f"The task failed in attempt 2: {sealed} (and {sealed})"
    assert ACME.open_text(told, HERE) == f"The task failed in attempt 2: {text} (and {text})"


def test_a_clear_value_is_given_back() -> None:
    """Logs from before sealing was on are read by the same code."""
    for value in (None, 1, "sealed: no", {"$sealed": 3}, {"$sealed": "x", "y": 1}, [1]):
        assert ACME.open_value(value, HERE) == value
    assert ACME.open_text("sealed: no", HERE) == "sealed: no"


async def test_data_keys_are_wrapped_for_one_tenant_and_version() -> None:
    """A wrapped key that is put in another's row does not unwrap there."""
    kms = LocalKms(lambda: [KEY])
    wrapped = await kms.wrap(OTHER, "acme/1")
    assert await kms.unwrap(wrapped, "acme/1") == OTHER
    assert OTHER not in wrapped.key
    for context in ("acme/2", "other/1"):
        with pytest.raises(Unopenable, match="WRONG_KEY"):
            await kms.unwrap(wrapped, context)
    with pytest.raises(Unopenable, match="WRONG_KEY"):
        await LocalKms(lambda: [OTHER]).unwrap(wrapped, "acme/1")


async def test_several_keys_wrap_during_a_rotation() -> None:
    """The first wraps; what the others wrapped is still unwrapped, without a restart."""
    keys = [KEY]
    kms = LocalKms(lambda: keys)
    before = await kms.wrap(OTHER, "acme/1")
    keys.insert(0, os.urandom(32))
    after = await kms.wrap(OTHER, "acme/1")
    assert after.kek != before.kek
    assert [await kms.unwrap(each, "acme/1") for each in (before, after)] == [OTHER, OTHER]


def test_a_key_file_is_its_owners(tmp_path: Path) -> None:
    """Only the owner may read it; a link is not followed."""
    path = tmp_path / "kek"
    write_file(path, [KEY, OTHER])
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_file(path) == [KEY, OTHER]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(BadKey, match="cannot be read"):
        read_file(tmp_path / "link")
    path.chmod(0o640)
    with pytest.raises(BadKey, match="chmod 600"):
        read_file(path)


@pytest.mark.parametrize("text", ["", "x", encode_key(KEY[:16]), f"{encode_key(KEY)},äö"])
def test_bad_keys_are_named_and_not_shown(text: str) -> None:
    """The error says which, and nothing of it."""
    with pytest.raises(BadKey) as refused:
        decode_keys(text)
    assert not text or text not in str(refused.value)
