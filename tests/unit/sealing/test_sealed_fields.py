"""Every field that may hold anything is declared sealed or clear, beside the message (R60)."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from aggregates import DECIDERS
from aggregates.definitions.rules import INPUT_BYTES_MAX
from aggregates.execution_input import check_size
from aggregates.problem import DETAIL_CHARS_MAX, Refused, bounded
from aggregates.sealed import Clear, Sealed, sealed_fields
from streams.sealing.sealer import Sealer

MESSAGES = [kind for one in DECIDERS for kind in (*one.commands, *one.events)]

SEALED = {
    "StartExecution": {"input"},
    "CompleteTask": {"output"},
    "FailTask": {"error"},
    "RequestInput": {"prompt"},
    "ProvideInput": {"input"},
    "SignalExecution": {"data"},
    "RetryExecution": {"inputs"},
    "CompleteCompensation": {"output"},
    "FailCompensation": {"error"},
    "CreateWorkflow": {"definition", "source"},
    "ReviseWorkflow": {"definition", "source"},
    "ExecutionStarted": {"input"},
    "TaskCompleted": {"output"},
    "TaskFailed": {"error"},
    "ExecutionCompleted": {"output"},
    "ExecutionFailed": {"reason"},
    "ExecutionCancelled": {"reason"},
    "InputRequested": {"prompt"},
    "InputProvided": {"input"},
    "SignalReceived": {"data"},
    "ExecutionRetried": {"input", "inputs"},
    "CompensationStarted": {"reason"},
    "TaskCompensated": {"output"},
    "CompensationFailed": {"error"},
    "CompensationParked": {"error"},
}
"""Said twice on purpose: whoever unseals a field has to say so here as well."""


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_field_that_may_hold_anything_is_declared(kind: type[Any]) -> None:
    """`Any`, and objects of anything; what people write as an `error` too."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        if field.name.startswith("_") or not (_anything(hint) or field.name == "error"):
            continue
        marks = hint.__metadata__ if get_origin(hint) is Annotated else ()
        assert any(isinstance(mark, Sealed | Clear) for mark in marks), (
            f"{kind.__name__}.{field.name} may hold a payload: declare it with a type of"
            " aggregates/sealed.py, sealed or clear, and say so here."
        )


def test_what_is_sealed_is_what_is_said_here() -> None:
    """A field that loses its mark is noticed, and so is a new one."""
    declared = {kind.__name__: set(sealed_fields(kind)) for kind in MESSAGES}
    assert {name: names for name, names in declared.items() if names} == SEALED


def test_a_payload_keeps_its_name_from_command_to_event() -> None:
    """What a ciphertext is bound to does not change on its way through the engine."""
    names = {
        (kind.__name__, field): mark.name
        for kind in MESSAGES
        for field, mark in sealed_fields(kind).items()
    }
    for command, event in (
        (("StartExecution", "input"), ("ExecutionStarted", "input")),
        (("CompleteTask", "output"), ("TaskCompleted", "output")),
        (("CompleteTask", "output"), ("ExecutionCompleted", "output")),
        (("FailTask", "error"), ("TaskFailed", "error")),
        (("FailTask", "error"), ("ExecutionFailed", "reason")),
        (("RequestInput", "prompt"), ("InputRequested", "prompt")),
        (("ProvideInput", "input"), ("InputProvided", "input")),
        (("SignalExecution", "data"), ("SignalReceived", "data")),
        (("RetryExecution", "inputs"), ("ExecutionRetried", "inputs")),
        (("CompleteCompensation", "output"), ("TaskCompensated", "output")),
        (("FailCompensation", "error"), ("CompensationParked", "error")),
    ):
        assert names[command] == names[event]


def _anything(hint: Any) -> bool:
    """Whether a type lets any JSON through, at any depth."""
    if hint is Any:
        return True
    if get_origin(hint) is Annotated:
        return _anything(get_args(hint)[0])
    return any(_anything(inner) for inner in get_args(hint))


def test_a_sealed_part_is_never_cut() -> None:
    """What ends an execution repeats its task's error; cut, it could not be opened (R60)."""
    sealer = Sealer("acme", {1: bytes(32)})
    error = sealer.seal_text("RATE_LIMITED: " + "ä" * 986, "execution/1", "error")
    told = bounded(f"The task failed in attempt 1: {error}")
    assert sealer.open_text(told, "execution/1").endswith("RATE_LIMITED: " + "ä" * 986)
    endless = "sealed:1.error." + "A" * 10_000
    assert len(bounded(endless)) == DETAIL_CHARS_MAX


def test_a_sealed_value_counts_as_what_was_sealed() -> None:
    """Limits are those of the clear value."""
    sealer = Sealer("acme", {1: bytes(32)})
    largest = "x" * (INPUT_BYTES_MAX - 2)
    check_size("input", sealer.seal_value(largest, "execution/1", "input"), "/input")
    with pytest.raises(Refused, match="TOO_LARGE"):
        check_size("input", sealer.seal_value(largest + "x", "execution/1", "input"), "/input")
