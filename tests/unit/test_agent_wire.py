"""Tasks and answers as bytes: what goes in comes out, and what cannot travel is said in words."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregates import execution_commands as said_of
from processors.agents import (
    EXTENSION,
    Agent,
    Assignment,
    TaskError,
    answers,
    card,
    decode_assignment,
    encode_assignment,
)
from processors.agents.answers import ERROR_CHARS_MAX, OUTPUT_BYTES_MAX
from processors.agents.wire import decode_gate, encode_gate
from streams.codec import Poison, decode_command

TASK = Assignment(
    execution_id="0190-e",
    task_id="align",
    attempt=2,
    role="aligner",
    tenant="acme",
    input={"file": "a.bam"},
    metadata={"duration": 1.5},
    timeout_seconds=30.0,
    reply_to="commands:{7}",
)
STARTED_AT = "2026-01-01T00:00:00.000+00:00"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(data=json_values, metadata=st.dictionaries(st.text(), json_values))
def test_a_task_comes_out_as_it_went_in(data: Any, metadata: dict[str, Any]) -> None:
    task = replace(TASK, input=data, metadata=metadata)

    assert decode_assignment(encode_assignment(task)) == task


@given(answer=json_values, signal=json_values, output=json_values, base=st.integers(0, 2**62))
def test_what_is_seldom_said_comes_out_as_well(
    answer: Any, signal: Any, output: Any, base: int
) -> None:
    task = replace(TASK, answer=answer, signal=signal, agent="a-1", delivery=base)
    undo = replace(TASK, kind="compensation", action="refund", output=output)

    assert decode_assignment(encode_assignment(task)) == task
    assert decode_assignment(encode_assignment(undo)) == undo
    assert undo.message_id == "0190-e/align/undo/2"


def test_what_a_task_does_not_need_is_not_in_its_bytes() -> None:
    told = orjson.loads(encode_assignment(TASK))["message"]["metadata"][EXTENSION]

    assert not {"kind", "action", "agent", "answer", "signal", "output", "delivery"} & told.keys()


def test_an_action_belongs_to_a_compensation_only() -> None:
    told = orjson.loads(encode_assignment(TASK))
    told["message"]["metadata"][EXTENSION]["action"] = "refund"

    with pytest.raises(Poison, match="Only a compensation"):
        decode_assignment(orjson.dumps(told))


def test_a_gate_comes_out_as_it_went_in() -> None:
    assert decode_gate(encode_gate("agent-1", False)) == ("agent-1", False, None)
    assert decode_gate(encode_gate("agent-1", True, 1)) == ("agent-1", True, 1)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"agent":"","open":true}',
        b'{"agent":"a","open":1}',
        b'"x"',
        b'{"agent":"a","open":true,"limit":"1"}',
        b'{"agent":"a","open":true,"limit":-1}',
    ],
)
def test_a_gate_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(Poison):
        decode_gate(raw)


def test_a_task_is_an_a2a_message_in_proto_json() -> None:
    message = orjson.loads(encode_assignment(TASK))["message"]

    assert message["messageId"] == TASK.message_id == "0190-e/align/2"
    assert message["contextId"] == TASK.execution_id
    assert message["role"] == "ROLE_USER"
    assert message["parts"] == [{"data": {"file": "a.bam"}}]
    assert message["extensions"] == [EXTENSION]
    assert message["metadata"][EXTENSION]["reply_to"] == "commands:{7}"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"message":null}',
        b'{"message":{"metadata":[]}}',
        b"{" * 10_000,
    ],
)
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(Poison):
        decode_assignment(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_id": ""},
        {"execution_id": 5},
        {"attempt": 0},
        {"attempt": True},
        {"metadata": [1]},
        {"timeout_seconds": 0},
        {"timeout_seconds": "soon"},
        {"reply_to": "events:{7}"},
        {"reply_to": "commands:{7}x"},
        {"reply_to": None},
        {"kind": "hook"},
        {"kind": "compensation"},
        {"kind": "compensation", "action": 5},
        {"kind": "compensation", "action": "x" * 201},
        {"agent": ""},
        {"agent": 7},
        {"agent": "\u00e9" * 101},
        {"delivery": -1},
        {"delivery": True},
        {"delivery": 1.5},
        {"delivery": 2**63},
    ],
)
def test_a_task_that_could_not_be_answered_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Poison):
        decode_assignment(encode_assignment(replace(TASK, **wrong)))


def test_answers_are_commands_with_exactly_the_fields_that_the_execution_reads() -> None:
    undo = replace(TASK, kind="compensation", action="refund")
    error = ValueError("no")
    said: dict[Any, bytes | None] = {
        said_of.StartTask: answers.started(TASK, "agent-1", 2),
        said_of.CompleteTask: answers.completed(TASK, "agent-1", [1, 2], STARTED_AT, 2),
        said_of.FailTask: answers.failed(TASK, "agent-1", error, STARTED_AT, 2),
        said_of.RequestInput: answers.needs_input(TASK, "agent-1", "May I?", STARTED_AT, 2),
        said_of.CompleteCompensation: answers.completed(undo, "agent-1", None, STARTED_AT, 2),
        said_of.FailCompensation: answers.failed(undo, "agent-1", error, STARTED_AT, 2),
    }

    for kind, raw in said.items():
        assert raw is not None
        command = decode_command(raw)
        assert command.type == kind.__name__
        assert command.subject == "execution/0190-e"
        assert (command.tenant, command.actor) == ("acme", "agent-1")
        assert set(command.data) == {field.name for field in fields(kind)}
        assert (kind(**command.data).agent, kind(**command.data).delivery) == ("agent-1", 2)


def test_undoing_has_no_beginning_and_cannot_ask() -> None:
    undo = replace(TASK, kind="compensation", action="refund")

    assert answers.started(undo, "a") is None
    with pytest.raises(TaskError, match="cannot ask"):
        answers.needs_input(undo, "a", "May I?", STARTED_AT)


def test_a_first_delivery_is_not_said_and_a_later_one_is_another_command() -> None:
    """I7: an answer that was refused as late may count as the answer to a later delivery."""
    raw = answers.completed(TASK, "a", 1, STARTED_AT)
    first = decode_command(raw)
    again = decode_command(answers.delivered_again(raw, 257))

    assert "delivery" not in first.data
    assert again.data == first.data | {"delivery": 257}
    assert again.id != first.id
    assert (again.type, again.subject, again.tenant) == (first.type, first.subject, first.tenant)


def test_an_output_up_to_the_limit_travels_and_a_larger_one_is_a_failure() -> None:
    largest = "x" * (OUTPUT_BYTES_MAX - 2)  # and two quotes

    assert decode_command(answers.completed(TASK, "a", largest, STARTED_AT)).data["output"]
    with pytest.raises(TaskError, match="at most") as refused:
        answers.completed(TASK, "a", largest + "x", STARTED_AT)
    assert not refused.value.retryable


@pytest.mark.parametrize("output", [object(), "\ud800", {1: 2}, 2**70, "nul \0", {"a\0": 1}])
def test_an_output_that_cannot_be_stored_is_a_failure(output: Any) -> None:
    with pytest.raises(TaskError) as refused:
        answers.completed(TASK, "a", output, STARTED_AT)
    assert not refused.value.retryable


@pytest.mark.parametrize("prompt", [object(), "nul \0", "x" * OUTPUT_BYTES_MAX])
def test_a_prompt_that_cannot_be_stored_is_a_failure(prompt: Any) -> None:
    with pytest.raises(TaskError, match="prompt"):
        answers.needs_input(TASK, "a", prompt, STARTED_AT)


def test_deep_outputs_are_refused_and_broad_ones_are_not() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]

    with pytest.raises(TaskError, match="deeper"):
        answers.completed(TASK, "a", deep, STARTED_AT)
    assert decode_command(answers.completed(TASK, "a", [[]] * 1_000, STARTED_AT))
    assert decode_command(answers.completed(TASK, "a", "\\u0000", STARTED_AT))


@given(text=st.text(st.characters(codec=None), max_size=3 * ERROR_CHARS_MAX))
def test_any_error_can_be_told(text: str) -> None:
    data = decode_command(answers.failed(TASK, "a", TaskError(text), STARTED_AT)).data

    assert len(data["error"]) <= ERROR_CHARS_MAX
    assert data["retryable"]


def test_whether_a_failure_may_be_tried_again_is_the_handlers_word() -> None:
    final = TaskError("no such file", retryable=False)

    assert not decode_command(answers.failed(TASK, "a", final, STARTED_AT)).data["retryable"]
    other = decode_command(answers.failed(TASK, "a", KeyError("x"), STARTED_AT)).data
    assert other["retryable"]
    assert other["error"] == "KeyError: 'x'"


def test_a_card_names_every_role_and_its_stream() -> None:
    told = card(Agent("a", ("x", "y"), str, tenant="acme"))

    assert [skill["id"] for skill in told["skills"]] == ["x", "y"]
    assert told["supportedInterfaces"][1]["url"] == "redis-streams:tasks:{acme/y}"
