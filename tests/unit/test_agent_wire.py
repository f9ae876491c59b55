"""Tasks and answers as bytes: what goes in comes out, and what cannot travel is said in words."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregates import execution
from processors.agents import (
    EXTENSION,
    Agent,
    Assignment,
    TaskError,
    answers,
    card,
    decode_assignment,
    encode_assignment,
    simulated_agents,
)
from processors.agents.agent import Pool
from processors.agents.answers import ERROR_CHARS_MAX, OUTPUT_BYTES_MAX
from processors.agents.outbox import MEMORY_ANSWERS_MAX, Memory
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
    ],
)
def test_a_task_that_could_not_be_answered_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Poison):
        decode_assignment(encode_assignment(replace(TASK, **wrong)))


def test_answers_are_commands_with_exactly_the_fields_that_the_execution_reads() -> None:
    said = {
        execution.StartTask: answers.started(TASK, "agent-1"),
        execution.CompleteTask: answers.completed(TASK, "agent-1", [1, 2], STARTED_AT),
        execution.FailTask: answers.failed(TASK, "agent-1", ValueError("no"), STARTED_AT),
    }

    for kind, raw in said.items():
        command = decode_command(raw)
        assert command.type == kind.__name__
        assert command.subject == "execution/0190-e"
        assert (command.tenant, command.actor) == ("acme", "agent-1")
        assert set(command.data) | {"delivery"} == {field.name for field in fields(kind)}
        assert kind(**command.data).agent == "agent-1"


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


def test_the_least_loaded_agent_goes_first_and_equals_take_turns() -> None:
    pool = Pool([Agent(name, ("r",), str, capacity=2) for name in ("a", "b", "c")])
    begun = []
    for _ in range(6):
        seat = pool.take()
        pool.begin(seat)
        pool.put(seat)
        begun.append(seat)

    assert [seat.agent.agent_id for seat in begun] == ["a", "b", "c", "a", "b", "c"]
    assert pool.free == 0
    pool.end(begun[1])
    assert pool.take() is begun[1]


def test_a_pool_stays_small_however_long_it_works() -> None:
    pool = Pool([Agent("a", ("r",), str, capacity=10)])
    for _ in range(10_000):
        seat = pool.take()
        pool.begin(seat)
        pool.put(seat)
        pool.end(seat)

    assert len(pool._heap) < 100


def test_the_oldest_answers_are_forgotten() -> None:
    memory = Memory()
    for number in range(MEMORY_ANSWERS_MAX + 1):
        memory.put(str(number), b"answer")

    assert memory.get("0") is None
    assert memory.get(str(MEMORY_ANSWERS_MAX)) == b"answer"


def test_simulated_agents_fail_the_same_attempts_for_the_same_seed() -> None:
    def failures(seed: int) -> list[bool]:
        handler: Any = simulated_agents(["r"], factor=0, failure_rate=0.3, seed=seed)[0].handler
        failed = []
        for number in range(1_000):
            try:
                handler(replace(TASK, task_id=str(number)))
                failed.append(False)
            except TaskError:
                failed.append(True)
        return failed

    assert failures(1) == failures(1) != failures(2)
    assert 200 < sum(failures(1)) < 400


def test_a_card_names_every_role_and_its_stream() -> None:
    told = card(Agent("a", ("x", "y"), str, tenant="acme"))

    assert [skill["id"] for skill in told["skills"]] == ["x", "y"]
    assert told["supportedInterfaces"][1]["url"] == "redis-streams:tasks:{acme/y}"
