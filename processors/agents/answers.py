"""What an agent says about a task, as the bytes of a command to its execution; no I/O here.

An answer that the engine would have to refuse (too large, not JSON, too deep) is a failure of the
task, said here in words, and not a message that nobody can place later.
"""

from __future__ import annotations

from typing import Any

import orjson
from uuid_utils import uuid7

from aggregates.sealed import Sealed
from processors.agents.wire import COMPENSATION, Assignment
from processors.payloads import COMMANDS, seal
from streams.codec import decode_command, encode_command
from streams.message import Command
from streams.sealing.sealer import Sealer
from streams.sealing.token import wrap
from streams.strict import DEPTH_MAX, Malformed, parse

OUTPUT_BYTES_MAX = 200 * 1024  # the output is in an event that every reader of the log gets
ERROR_CHARS_MAX = 1_000
ENVELOPE_BYTES_MAX = 2_048  # what an answer is besides its output: ids of up to 200 bytes each


class TaskError(Exception):
    """Raised by a handler: why it could not do the task, and whether trying again may help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(message)


class NeedInput(Exception):
    """Raised or returned by a handler: what somebody has to be asked before the task can go on.

    The task is given out again, as another attempt, with the reply in `assignment.answer`.
    """

    def __init__(self, prompt: Any = None) -> None:
        self.prompt = prompt
        super().__init__("The task needs input.")


def started(assignment: Assignment, agent: str, delivery: int = 1) -> bytes | None:
    """The agent is working on it; None where nobody wants to know."""
    if assignment.kind == COMPENSATION:
        return None
    return _encode("StartTask", assignment, agent, delivery, {})


def completed(
    assignment: Assignment,
    agent: str,
    output: Any,
    started_at: str,
    delivery: int = 1,
    sealer: Sealer | None = None,
) -> bytes:
    """The agent has done it; raises TaskError where the output cannot travel."""
    kind = "CompleteCompensation" if assignment.kind == COMPENSATION else "CompleteTask"
    said = {"output": output, "started_at": started_at}
    return _checked(kind, assignment, agent, delivery, said, "output", sealer)


def failed(
    assignment: Assignment,
    agent: str,
    error: BaseException,
    started_at: str,
    delivery: int = 1,
    sealer: Sealer | None = None,
) -> bytes:
    """The agent could not do it; anything but a TaskError may be tried again."""
    if isinstance(error, TaskError):
        text, retryable = str(error), error.retryable
    else:
        text, retryable = f"{type(error).__name__}: {error}", True
    kind = "FailCompensation" if assignment.kind == COMPENSATION else "FailTask"
    text = _printable(text)
    if sealer is not None:
        text = seal(sealer, _payload(kind, "error"), text, _subject(assignment))
    said = {"error": text, "retryable": retryable, "started_at": started_at}
    return _encode(kind, assignment, agent, delivery, said)


def needs_input(
    assignment: Assignment,
    agent: str,
    prompt: Any,
    started_at: str,
    delivery: int = 1,
    sealer: Sealer | None = None,
) -> bytes:
    """Somebody has to be asked; raises TaskError where the prompt cannot travel."""
    if assignment.kind == COMPENSATION:
        raise TaskError("Undoing a task cannot ask for input.", retryable=False)
    said = {"prompt": prompt, "started_at": started_at}
    return _checked("RequestInput", assignment, agent, delivery, said, "prompt", sealer)


def delivered_again(raw: bytes, delivery: int) -> bytes:
    """The same answer to a later delivery: another command, since the first may be too late."""
    command = decode_command(raw)
    return encode_command(command.but(id=str(uuid7()), data=command.data | {"delivery": delivery}))


def _checked(
    kind: str,
    assignment: Assignment,
    agent: str,
    delivery: int,
    said: dict[str, Any],
    value: str,
    sealer: Sealer | None,
) -> bytes:
    """An answer that carries what a handler made; raises TaskError where it cannot travel."""
    if sealer is not None and said[value] is not None:
        said[value] = _sealed(kind, assignment, said[value], value, sealer)
        return _encode(kind, assignment, agent, delivery, said)
    try:
        raw = _encode(kind, assignment, agent, delivery, said)
    except orjson.JSONEncodeError as error:
        raise TaskError(f"The {value} is not JSON: {error}", retryable=False) from None
    if len(raw) > OUTPUT_BYTES_MAX:
        size = len(orjson.dumps(said[value]))
        if size > OUTPUT_BYTES_MAX:
            why = f"The {value} has {size:,} bytes; at most {OUTPUT_BYTES_MAX:,} may be"
            raise TaskError(f"{why}. Store it and answer with its address.", retryable=False)
    if b"\\u0000" in raw or _deep(raw):
        try:
            parse(raw, bytes_max=OUTPUT_BYTES_MAX + ENVELOPE_BYTES_MAX)
        except Malformed as error:
            raise TaskError(f"The {value} cannot be stored: {error}", retryable=False) from None
    return raw


def _sealed(kind: str, assignment: Assignment, made: Any, value: str, sealer: Sealer) -> Any:
    """What a handler made, sealed; raises TaskError where it could not be opened and read."""
    try:
        clear = orjson.dumps(made)
        if len(clear) > OUTPUT_BYTES_MAX or b"\\u0000" in clear or _deep(clear):
            parse(clear, bytes_max=OUTPUT_BYTES_MAX)
    except orjson.JSONEncodeError as error:
        raise TaskError(f"The {value} is not JSON: {error}", retryable=False) from None
    except Malformed as error:
        raise TaskError(f"The {value} cannot be stored: {error}", retryable=False) from None
    token = sealer.seal(clear, _subject(assignment), _payload(kind, value).name)
    return wrap(token)


def _deep(raw: bytes) -> bool:
    """Whether it may be nested too deeply: then it is looked at closely."""
    return raw.count(b"{") + raw.count(b"[") > DEPTH_MAX


def _payload(kind: str, value: str) -> Sealed:
    return COMMANDS["execution", kind][value]


def _subject(assignment: Assignment) -> str:
    return f"execution/{assignment.execution_id}"


def _printable(text: str) -> str:
    """A bounded text that every part of the engine can store."""
    if len(text) > ERROR_CHARS_MAX:
        text = text[: ERROR_CHARS_MAX - 1] + "…"
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _encode(
    kind: str, assignment: Assignment, agent: str, delivery: int, said: dict[str, Any]
) -> bytes:
    data = {"task": assignment.task_id, "attempt": assignment.attempt, "agent": agent, **said}
    if delivery != 1:
        data["delivery"] = delivery
    return encode_command(
        Command(
            str(uuid7()),
            kind,
            "execution",
            assignment.execution_id,
            data,
            assignment.tenant,
            agent,
        )
    )
