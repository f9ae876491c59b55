"""What comes in clear is sealed before it is decided on; what comes sealed is passed on (R60)."""

from __future__ import annotations

from typing import Any

import pytest

from aggregates.definition import validate
from aggregates.execution_commands import CompleteTask, RetryExecution, StartExecution
from aggregates.problem import Refused
from processors.agents.answers import TaskError, completed, failed
from processors.agents.envelopes import Envelopes
from processors.agents.wire import Assignment, decode_assignment, encode_assignment
from processors.sealing import (
    Typed,
    open_raw,
    seal_definition,
    seal_letters,
    sealed,
    settle,
)
from processors.vocabulary import Vocabulary
from streams.codec import decode_command
from streams.log import DeadLetter
from streams.message import Command
from streams.quick import digest_of
from streams.sealing.keyring import KEEP_S, Keyring
from streams.sealing.sealer import Unopenable
from streams.sealing.token import MARK, is_sealed, is_sealed_text
from tests.unit.sealing.test_keyring import Keys

NAMES = Vocabulary()
EXECUTION = "e1"
HERE = f"execution/{EXECUTION}"


@pytest.fixture
def table() -> Keys:
    return Keys()


@pytest.fixture
def keys(table: Keys) -> Keyring:
    return Keyring(table)


def said(kind: str, data: dict[str, Any], tenant: str = "acme") -> Command:
    return Command("c1", kind, "execution", EXECUTION, data, tenant)


def typed(command: Command, place: int = 0) -> Typed:
    return (place, command, command.subject, NAMES.command(command))


COMPLETE = {"task": "t", "attempt": 1, "agent": "a", "output": {"secret": 1}}
RETRY = {"inputs": {"a": "secret", "b": None}, "reason": "try"}


async def test_a_command_given_again_under_its_id_is_the_same(keys: Keyring) -> None:
    """I4: whoever seals anew for a repeat does not turn it into a conflict."""
    first, again = [await sealed(keys, said("CompleteTask", COMPLETE)) for _ in range(2)]
    assert digest_of(first) == digest_of(again)
    other = await sealed(keys, said("CompleteTask", COMPLETE | {"output": {"secret": 2}}))
    assert digest_of(other) != digest_of(first)
    assert await sealed(keys, first) is first, "it is not sealed twice"
    assert await sealed(None, first) is first


async def test_what_comes_in_clear_is_sealed_and_told_of(keys: Keyring) -> None:
    clear = typed(said("CompleteTask", COMPLETE), 0)
    before = typed(await sealed(keys, said("CompleteTask", COMPLETE)), 1)
    retry = typed(said("RetryExecution", RETRY), 2)
    nothing = typed(said("StartExecution", {"workflow_id": "w"}), 3)
    commands = [clear, before, retry, nothing]
    assert await settle(keys, commands) == {0, 2}
    sealer = await keys.sealer("acme")
    for place in (0, 1):
        one = commands[place][3]
        assert isinstance(one, CompleteTask)
        assert is_sealed(one.output)
        assert sealer.open_value(one.output, HERE, "output") == COMPLETE["output"]
    inputs = commands[2][3]
    assert isinstance(inputs, RetryExecution)
    assert sealer.open_value(inputs.inputs["a"], HERE, "input") == "secret"
    assert isinstance(commands[3][3], StartExecution)
    assert commands[3][3].input is None, "what is nothing stays nothing"


async def test_without_a_key_nothing_is_stored(keys: Keyring, table: Keys) -> None:
    """Not in clear either; and the tenants beside it go on."""
    table.kept["gone"] = None
    table.foreign.add("foreign")
    commands = [
        typed(said("CompleteTask", COMPLETE, tenant), place)
        for place, tenant in enumerate(("gone", "acme", "foreign"))
    ]
    await settle(keys, commands)
    gone, fine, foreign = (one[3] for one in commands)
    assert isinstance(gone, Refused)
    assert gone.code == "TENANT_ERASED"
    assert isinstance(fine, CompleteTask)
    assert isinstance(foreign, Refused)
    assert foreign.code == "KEY_UNAVAILABLE"
    with pytest.raises(Refused, match="TENANT_ERASED"):
        await sealed(keys, said("CompleteTask", COMPLETE, "gone"))


DOCUMENT = {
    "name": "d",
    "agents": {"r": {}},
    "tasks": [{"task_id": "t", "agent_role": "r", "input": {"secret": 1}}],
}


async def test_a_definition_is_opened_to_be_read_and_stored_with_its_inputs_sealed(
    keys: Keyring,
) -> None:
    create = Command("c2", "CreateWorkflow", "workflow", "w", {"definition": DOCUMENT}, "acme")
    travels = await sealed(keys, create)
    assert is_sealed(travels.data["definition"])
    with pytest.raises(Refused, match="KEY_UNAVAILABLE"):  # where nobody has a key
        NAMES.deciders["workflow"].decide(
            NAMES.deciders["workflow"].initial("w"),
            NAMES.command(travels),
            None,  # type: ignore[arg-type]
        )
    commands = [(0, travels, travels.subject, NAMES.command(travels))]
    assert await settle(keys, commands) == set()
    assert commands[0][3].definition == DOCUMENT
    source = await sealed(
        keys, Command("c3", "CreateWorkflow", "workflow", "w", {"source": "name: x: y"}, "acme")
    )
    assert is_sealed_text(source.data["source"])
    assert "name" not in source.data["source"]
    known = validate(DOCUMENT)
    stored = seal_definition(keys, "acme", "w", known)
    assert b"secret" not in stored
    again = type(known).from_bytes(stored)
    sealer = await keys.sealer("acme")
    assert sealer.open_value(again.tasks[0].input, "workflow/w", "task") == {"secret": 1}
    assert seal_definition(None, "acme", "w", known) == known.to_bytes()


async def test_a_dead_letter_keeps_its_bytes_for_its_tenant(keys: Keyring, table: Keys) -> None:
    await keys.sealer("acme")
    letters = [
        DeadLetter("command", "s", str(number), "why", b"secret", tenant)
        for number, tenant in enumerate(("acme", None, "made-up"))
    ]
    for letter, kept in zip(letters, await seal_letters(keys, letters), strict=True):
        assert b"secret" not in kept.raw
        assert kept.size == len(b"secret")
        assert kept.id == letter.id
        assert await open_raw(keys, letter.id, kept.raw) == b"secret"
        with pytest.raises(Unopenable):
            await open_raw(keys, "another", kept.raw)
    assert await open_raw(keys, "x", b"in clear") == b"in clear"
    table.kept["default"] = None
    [lost] = await seal_letters(Keyring(table), letters[1:2])
    assert lost.raw == b"", "rather nothing than in clear"


# Agents -----------------------------------------------------------------------------------------


def task(**more: Any) -> Assignment:
    return Assignment(EXECUTION, "t", 1, "r", "acme", None, {}, None, "commands", **more)


async def test_an_agent_gets_its_task_in_clear(keys: Keyring) -> None:
    sealer = await keys.sealer("acme")
    envelopes = Envelopes(keys, {"acme"})
    given = task(
        answer=sealer.seal_value("yes", HERE, "answer"),
        signal=sealer.seal_value([1], HERE, "signal"),
        output=sealer.seal_value({"made": 1}, HERE, "output"),
    )
    given.input = sealer.seal_value({"in": 1}, HERE, "input")
    travelled = decode_assignment(encode_assignment(given))
    clear = envelopes.opened(travelled)
    assert (clear.input, clear.answer, clear.signal) == ({"in": 1}, "yes", [1])
    assert clear.output == {"made": 1}
    assert is_sealed(travelled.input), "what is handed back to others stays sealed"
    given.input = sealer.seal_value("defined", "workflow/w", "task")
    given.workflow = "w"
    assert envelopes.opened(decode_assignment(encode_assignment(given))).input == "defined"
    given.workflow = "other"
    with pytest.raises(TaskError, match="TAMPERED") as wrong:
        envelopes.opened(given)
    assert not wrong.value.retryable


async def test_an_agent_without_keys_fails_the_task_and_may_be_followed(keys: Keyring) -> None:
    sealer = await keys.sealer("acme")
    given = task()
    assert Envelopes(None, ()).opened(given) is given
    given.input = sealer.seal_value(1, HERE, "input")
    with pytest.raises(TaskError, match="has no keys") as without:
        Envelopes(None, ()).opened(given)
    assert without.value.retryable, "another host may have them"


async def test_what_an_agent_says_is_sealed_and_checked_before(keys: Keyring) -> None:
    sealer = await keys.sealer("acme")
    answer = decode_command(completed(task(), "a", {"secret": 1}, "2026", 1, sealer))
    assert sealer.open_value(answer.data["output"], HERE, "output") == {"secret": 1}
    undone = decode_command(
        completed(task(kind="compensation", action="x"), "a", "s", "2026", 1, sealer)
    )
    assert sealer.open_value(undone.data["output"], HERE, "undone") == "s"
    error = decode_command(failed(task(), "a", ValueError("of 4711"), "2026", 1, sealer))
    assert error.data["error"].startswith("ValueError: sealed:1.error.")
    assert sealer.open_text(error.data["error"], HERE) == "ValueError: of 4711"
    nothing = decode_command(completed(task(), "a", None, "2026", 1, sealer))
    assert nothing.data["output"] is None
    for wrong in (object(), "\0", "x" * 300_000):
        with pytest.raises(TaskError):
            completed(task(), "a", wrong, "2026", 1, sealer)


def test_a_forged_token_is_passed_on_and_opens_for_nobody() -> None:
    """It is its sender's own payload that cannot be read."""
    forged = {MARK: "1.output.AAAA"}
    assert is_sealed(forged)
    assert not is_sealed({MARK: "1.output.AAAA", "more": 1})
    assert not is_sealed({MARK: "0.output.AAAA"})
    assert KEEP_S > 0
