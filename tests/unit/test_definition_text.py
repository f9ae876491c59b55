"""The texts a definition arrives in: YAML without its traps, and the examples that ship."""

from __future__ import annotations

import pytest

from aggregates.definition import parse_definition
from aggregates.definitions import yaml_text
from aggregates.plan import plan
from aggregates.problem import Refused
from processors.examples import Example, examples


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("a: b: c", "INVALID_YAML", "line 1, column 5"),
        ("a: \x07", "INVALID_YAML", "U+0007"),
        (b"a: \xff", "INVALID_YAML", "byte 3"),
        ("a: \ud800", "INVALID_PAYLOAD", "surrogate"),
        ("a: 1\n---\nb: 2", "INVALID_YAML", "one at a time"),
        ('a: !!python/object/apply:os.system ["x"]', "INVALID_YAML", "tags"),
        ("&a [*a]", "INVALID_YAML", "no anchor"),
        ("1: x", "INVALID_TYPE", "line 1, column 1"),
        ("[x]: 1", "INVALID_TYPE", "put it in quotes"),
        ("[" * 1000, "INVALID_YAML", "deeper than 64"),
        ("- " * 1000, "INVALID_YAML", "deeper than 64"),
        ("a: .nan", "INVALID_VALUE", "finite"),
        ("a: -.inf", "INVALID_VALUE", "finite"),
        ("a: " + "9" * 5000, "INVALID_VALUE", "finite"),
        ('a: "\\0"', "INVALID_PAYLOAD", "NUL"),
        ("#" * 1_100_000, "TOO_LARGE", "JSON"),
        ("- &a x\n" + "- *a\n" * 1001, "TOO_LARGE", "aliases"),
        ("", "INVALID_TYPE", "object"),
    ],
)
def test_bad_yaml_is_refused(source: str | bytes, code: str, says: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_definition(source, "yaml")
    assert caught.value.code == code
    assert says in caught.value.detail


def test_aliases_repeat_values_but_never_explode() -> None:
    assert yaml_text.read("a: &x {b: [1]}\nc: *x") == {
        "a": {"b": [1]},
        "c": {"b": [1]},
    }
    lines = ["l0: &l0 [x]"]
    lines += [f"l{n}: &l{n} [{','.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(Refused) as caught:
        yaml_text.read("\n".join(lines))
    assert caught.value.code == "TOO_LARGE"


def test_plain_yaml_means_what_json_means() -> None:
    text = "[no, on, 2026-01-01, 010, 1.5, .5, 1e3, 0x1, ~, null, true, '1', \"2\", 1:30]"
    meant = ["no", "on", "2026-01-01", 10, 1.5, 0.5, 1000.0, "0x1", None, None, True, "1", "2"]
    assert yaml_text.read(text) == [*meant, "1:30"]


def test_bad_text_is_refused_before_it_is_read() -> None:
    for source in ("\ud800", b"\xff", b"", b"{", b'{"a": NaN}', b'{"a": "\\u0000"}'):
        with pytest.raises(Refused):
            parse_definition(source, "json")


@pytest.mark.parametrize("example", examples(), ids=lambda each: each.name)
def test_the_examples_are_good(example: Example) -> None:
    drawn = plan(parse_definition(example.source, example.format))
    assert 8 <= len(drawn.ids) <= 40
    assert drawn.critical_path_seconds < 10
    assert "summary" in drawn.definition.metadata


def test_there_are_three_examples() -> None:
    assert [each.name for each in examples()] == ["code_review", "data_pipeline", "research_report"]
