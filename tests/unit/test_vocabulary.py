"""The check of a command's data from outside: strict, in one sentence, with the place."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregates import DECIDERS
from aggregates.agent_messages import RegisterAgent
from aggregates.execution import EXECUTION, CompleteTask, FailTask, StartExecution, TaskCompleted
from aggregates.problem import Refused
from processors.partition_state import REFUSAL
from processors.vocabulary import Vocabulary
from streams.message import Command
from tests.spec import facts

NAMES = Vocabulary()


def read(kind: str, data: dict[str, Any], aggregate: str = "execution") -> Any:
    return NAMES.command(Command("c", kind, aggregate, "x", data))


def refusal(kind: str, data: dict[str, Any], aggregate: str = "execution") -> Refused:
    with pytest.raises(Refused) as caught:
        read(kind, data, aggregate)
    return caught.value


def test_what_may_be_left_out_gets_its_default():
    assert read("StartExecution", {"workflow_id": "w"}) == StartExecution("w")
    answer = {"task": "a", "attempt": 2, "agent": "ann", "output": {"x": [None]}}
    assert read("CompleteTask", answer) == CompleteTask("a", 2, "ann", {"x": [None]})
    one = read("RegisterAgent", {"name": "n", "roles": ["r"]}, "agent")
    two = read("RegisterAgent", {"name": "n", "roles": ["r"]}, "agent")
    assert one == RegisterAgent("n", ["r"])
    assert one.capabilities is not two.capabilities


TASK = {"task": "a", "attempt": 1, "agent": "ann"}


@pytest.mark.parametrize(
    ("kind", "data", "code", "pointer"),
    [
        ("StartTask", {"task": "a", "attempt": 1}, "MISSING_FIELD", "/agent"),
        ("StartTask", {**TASK, "extra": 1}, "UNKNOWN_FIELD", "/extra"),
        ("StartTask", {**TASK, "attempt": "1"}, "INVALID_TYPE", "/attempt"),
        ("StartTask", {**TASK, "attempt": True}, "INVALID_TYPE", "/attempt"),
        ("StartTask", {**TASK, "attempt": 1.0}, "INVALID_TYPE", "/attempt"),
        ("StartTask", {**TASK, "task": None}, "INVALID_TYPE", "/task"),
        ("FailTask", {**TASK, "error": "x", "retryable": 1}, "INVALID_TYPE", "/retryable"),
        ("PauseExecution", {"reason": None}, "INVALID_TYPE", "/reason"),
        ("StartExecution", {"workflow_id": "w", "_blueprint": {}}, "UNKNOWN_FIELD", "/_blueprint"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(kind, data, code, pointer):
    """R4."""
    found = refusal(kind, data)
    assert (found.code, found.pointer) == (code, pointer)
    assert found.detail.startswith(f"{kind}: ")


def test_a_wrong_item_of_a_list_is_named_by_its_number():
    data = {"name": "n", "roles": ["r", 2]}
    found = refusal("RegisterAgent", data, "agent")
    assert (found.code, found.pointer) == ("INVALID_TYPE", "/roles/1")


def test_a_format_that_is_none_is_refused():
    found = refusal("CreateWorkflow", {"source": "x", "format": "toml"}, "workflow")
    assert found.pointer == "/format"


def test_a_hostile_key_makes_no_hostile_answer():
    """F32: pointers are escaped, printable and bounded."""
    found = refusal("StartTask", {**TASK, "a/b~c\n" + "x" * 10_000: 1})
    assert found.pointer
    assert found.pointer.startswith("/a~1b~0c")
    assert found.pointer.isprintable()
    assert len(found.pointer) <= 300
    assert len(orjson.dumps(found.problem())) < 2_000


def test_an_unknown_command_names_the_known_ones():
    found = refusal("Explode", {}, "agent")
    assert found.code == "UNKNOWN_COMMAND"
    assert "DeregisterAgent, DrainAgent, HalfOpenCircuit" in found.detail
    assert refusal("Explode", {}, "nothing").detail == "'nothing' has no command 'Explode'."


def test_a_stored_event_is_read_as_it_was_written():
    event = TaskCompleted("a", 1, "ann", {"x": 1.5})
    [stored] = facts([event])
    assert NAMES.event(stored) == event


def test_an_event_that_changes_no_state_is_passed_over():
    [stored] = facts([TaskCompleted("a", 1, "ann")])
    stored.type = REFUSAL
    assert NAMES.event(stored) is None


@pytest.mark.parametrize("decider", DECIDERS, ids=lambda decider: decider.name)
def test_every_command_and_event_is_plain_data_with_names_that_can_be_stored(decider):
    """What is private is attached by the shell, and has a default."""
    for kind in (*decider.commands, *decider.events):
        assert is_dataclass(kind)
        for field in fields(kind):
            if field.name.startswith("_"):
                assert field.default is None
                assert not field.compare or kind in decider.commands
            else:
                assert field.init
    names = [kind.__name__ for kind in (*decider.commands, *decider.events)]
    assert len(set(names)) == len(names)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KINDS = st.sampled_from([kind for kind in EXECUTION.commands if kind is not FailTask])


@settings(max_examples=200, deadline=None)
@given(st.data(), KINDS)
def test_whatever_comes_is_read_or_refused(data: st.DataObject, kind: type[Any]) -> None:
    """F32: no data from outside crashes the check, and what passes is what was said."""
    names = [f.name for f in fields(kind)]
    said = data.draw(st.dictionaries(st.sampled_from([*names, "other"]), JSON))
    typed = read_or_refused(kind.__name__, said)
    if isinstance(typed, Refused):
        assert typed.code in ("MISSING_FIELD", "UNKNOWN_FIELD", "INVALID_TYPE")
        return
    for field in fields(kind):
        if field.name in said:
            assert getattr(typed, field.name) == said[field.name]
        else:
            made = field.default_factory
            default = field.default if made is MISSING else made()
            assert default is not MISSING
            assert getattr(typed, field.name) == default


def read_or_refused(kind: str, data: dict[str, Any]) -> Any:
    try:
        return read(kind, data)
    except Refused as found:
        return found


def test_only_a_tenant_decides_on_itself():
    """R60, I14: an administrator of one tenant erases no other."""
    names = Vocabulary()
    said = Command("c", "EraseTenant", "tenant", "acme", {"reason": "x"}, "acme", "ann")
    assert names.command(said)._actor == "ann"
    said.tenant = "other"
    with pytest.raises(Refused, match="FOREIGN_TENANT"):
        names.command(said)
