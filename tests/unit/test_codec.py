"""Bytes to messages and back; what is no message is poison, with its reason, and nothing worse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams import quick
from streams.codec import (
    COMMAND_BYTES_MAX,
    ID_BYTES_MAX,
    Poison,
    decode_command,
    decode_event,
    encode_command,
    encode_event,
)
from streams.message import Command, Event

ENVELOPE = {"id": "c1", "type": "Do", "subject": "execution/x", "data": {}}


def raw(**changes: Any) -> bytes:
    """A minimal envelope, with changes; None leaves a field out."""
    said = ENVELOPE | changes
    return orjson.dumps({name: value for name, value in said.items() if value is not None})


def poison(message: bytes) -> str:
    with pytest.raises(Poison) as caught:
        decode_command(message)
    return str(caught.value)


# Commands ---------------------------------------------------------------------------------------


def test_the_least_that_a_command_needs():
    """R51: by plain XADD from any language."""
    assert decode_command(raw()) == Command("c1", "Do", "execution", "x", {})


def test_an_id_may_have_slashes_of_its_own():
    assert decode_command(raw(subject="execution/a/b/c")).root == "a/b/c"


TEXTS = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\0"), max_size=40
)
IDS = TEXTS.filter(bool)
ROOTS = IDS.filter(str.isprintable)
KINDS = IDS.filter(lambda text: "/" not in text)
OPTIONAL = st.none() | TEXTS
COMMANDS = st.builds(
    Command,
    id=IDS,
    type=IDS,
    aggregate=KINDS,
    root=ROOTS,
    data=st.dictionaries(TEXTS, st.none() | st.integers(-(2**63), 2**63) | TEXTS),
    tenant=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    actor=TEXTS,
    correlation=OPTIONAL,
    causation=OPTIONAL,
    traceparent=OPTIONAL,
    reply_to=st.none() | TEXTS.map(lambda text: f"replies:{text}"),
    time=OPTIONAL,
    expected=st.none() | st.integers(0, 2**63 - 1),
)


@settings(max_examples=200, deadline=None)
@given(COMMANDS)
def test_a_command_comes_back_as_it_was(command: Command) -> None:
    names = (command.id, command.type, command.subject)
    if any(len(name.encode()) > ID_BYTES_MAX for name in names):
        assert "TOO_LARGE" in poison(encode_command(command))
    else:
        assert decode_command(encode_command(command)) == command


ODD = [
    *(b"1.0", b"1e400", b"-0", b"01", b"18446744073709551616", b"NaN", b"null", b"true", b""),
    *(b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\x"', b'"\x01"', b'"\xff"'),
    *(b'"\xed\xa0\x80"', b'"\xc3\xa9"', b'"' + b"e" * 201 + b'"', b"/**/1", b"{} ", b"[[]]"),
    *(b'{"a":1,"a":2}', b"[" * 70 + b"]" * 70, b'{"":' * 70 + b"1" + b"}" * 70),
]
MORE = ["tenant", "actor", "replyto", "expectedversion", "token", "specversion", "more"]


@st.composite
def strange(draw: st.DrawFn) -> bytes:
    """An envelope with odd values, attributes that are there twice, and bytes put in anywhere."""
    said = [(name, orjson.dumps(value)) for name, value in ENVELOPE.items()]
    odd = st.tuples(st.sampled_from([*ENVELOPE, *MORE]), st.sampled_from(ODD))
    said += draw(st.lists(odd, max_size=2))
    if draw(st.booleans()):
        said.append(("data", b'{"x":%b}' % draw(st.sampled_from(ODD))))
    message = b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in said) + b"}"
    for at in draw(st.lists(st.integers(0, 200), max_size=1)):
        message = message[:at] + draw(st.binary(max_size=2)) + message[at + 1 :]
    return message


@settings(max_examples=1_000, deadline=None)
@given(strange())
def test_the_quick_reader_lets_nothing_pass_that_the_strict_one_refuses(message: bytes) -> None:
    """F32: and where it reads a command, both read the same."""
    if quick.command(message) is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        found = decode_command(message)
        patch.setattr(quick, "command", lambda _: None)
        assert found == decode_command(message)


@pytest.mark.parametrize("name", ["id", "type", "subject"])
@pytest.mark.parametrize("value", [None, "", 5, [], {}, True])
def test_a_command_needs_its_names(name, value):
    """F32."""
    assert poison(raw(**{name: value})) == f"MISSING_FIELD: The envelope needs `{name}`, a text."


@pytest.mark.parametrize("name", ["id", "type", "subject"])
def test_names_are_bounded_in_bytes(name):
    """They are index keys."""
    prefix = "a/" if name == "subject" else ""
    for letter in ("x", "é", "€", "😀"):
        fits = (ID_BYTES_MAX - len(prefix)) // len(letter.encode())
        decode_command(raw(**{name: prefix + letter * fits}))
        assert "TOO_LARGE" in poison(raw(**{name: prefix + letter * (fits + 1)}))


@pytest.mark.parametrize("subject", ["execution", "execution/", "/x\n", "execution/\x1b[2J"])
def test_a_subject_is_a_kind_and_an_id(subject):
    assert "`subject`" in poison(raw(subject=subject))


@pytest.mark.parametrize(
    "name", ["actor", "correlationid", "causationid", "traceparent", "time", "source", "tenant"]
)
@pytest.mark.parametrize("value", [5, [], {"a": 1}, "x" * (ID_BYTES_MAX + 1)])
def test_what_may_be_left_out_is_a_text_all_the_same(name, value):
    assert f"`{name}`" in poison(raw(**{name: value}))


@pytest.mark.parametrize("version", ["1", 1.0, True, []])
def test_an_expected_version_is_a_number(version):
    assert "`expectedversion`" in poison(raw(expectedversion=version))


@pytest.mark.parametrize("tenant", ["a b", "a/b", "a}", "{a", "a:b", "é", "x" * 65])
def test_a_tenant_cannot_widen_a_key(tenant):
    """I14: it is part of the keys of streams."""
    assert "`tenant`" in poison(raw(tenant=tenant))


def test_no_tenant_is_the_default_one():
    assert decode_command(raw(tenant="")).tenant == decode_command(raw()).tenant == "default"


@pytest.mark.parametrize("stream", ["commands", "commands:{1}", "events:{1}", " replies:x", ""])
def test_outcomes_are_written_to_streams_of_replies_only(stream):
    assert "`replyto`" in poison(raw(replyto=stream))


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_data_is_an_object(data):
    assert poison(raw(data=data)) == "INVALID_TYPE: `data` is a JSON object."


@pytest.mark.parametrize("message", [b"[]", b'"x"', b"5", b"null", b"true"])
def test_an_envelope_is_an_object(message):
    assert poison(message).startswith("INVALID_TYPE")


def test_a_command_is_bounded():
    """F37."""
    assert poison(b" " * (COMMAND_BYTES_MAX + 1)).startswith("TOO_LARGE")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
@example(b'{"a":' * 70 + b"1" + b"}" * 70)
@example(b'{"id":"\\ud800"}')
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_are_a_command_or_poison(message: bytes) -> None:
    """F32, I20: nothing else is ever raised."""
    assert isinstance(command_or_poison(message), Command | Poison)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*ENVELOPE, "tenant", "replyto", "actor", "time", "specversion"]), JSON
    )
)
def test_any_envelope_is_a_command_or_poison(changes: dict[str, Any]) -> None:
    """F32: and what is read can be written as an event's cause and read back."""
    command = command_or_poison(orjson.dumps(ENVELOPE | changes))
    if isinstance(command, Command):
        event = decode_event(encode_event(1, 2, "Done", command.subject, 1, "t", command, {}))
        assert (event.causation, event.subject) == (command.id, command.subject)


def command_or_poison(message: bytes) -> Command | Poison:
    try:
        return decode_command(message)
    except Poison as error:
        return error


# Events -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Done:
    """A fact with something that the shell had attached."""

    task: str
    output: Any = None
    _attached: Any = field(default=None, compare=False)


COMMAND = Command("c1", "Do", "execution", "x/y", {}, "acme", "ann", causation="before")


def test_an_event_is_a_cloud_event_with_its_place_and_cause():
    """R51."""
    stored = encode_event(
        3, 17, "Done", "execution/x/y", 4, "2026-01-02T03:04:05Z", COMMAND, Done("a")
    )
    assert orjson.loads(stored) == {
        "specversion": "1.0",
        "id": "3-17",
        "source": "agentcore",
        "type": "Done",
        "subject": "execution/x/y",
        "time": "2026-01-02T03:04:05Z",
        "tenant": "acme",
        "actor": "ann",
        "causationid": "c1",
        "correlationid": "c1",
        "partition": 3,
        "position": 17,
        "version": 4,
        "data": {"task": "a", "output": None},
    }
    assert decode_event(stored) == Event(
        3, 17, "Done", "execution", "x/y", 4, "2026-01-02T03:04:05Z", "acme", "ann", "c1", "c1",
        {"task": "a", "output": None},
    )  # fmt: skip


def test_what_the_shell_attached_is_not_stored():
    stored = encode_event(0, 1, "Done", "e/x", 1, "t", COMMAND, Done("a", _attached=object()))
    assert decode_event(stored).data == {"task": "a", "output": None}


def test_correlation_and_trace_are_handed_on():
    """R70."""
    said = COMMAND.but(correlation="all", traceparent="00-1")
    stored = orjson.loads(encode_event(0, 1, "Done", "e/x", 1, "t", said, Done("a")))
    assert (stored["correlationid"], stored["traceparent"]) == ("all", "00-1")
