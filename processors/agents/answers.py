"""What an agent says about a task, as the bytes of a command to its execution; no I/O here.

An answer that the engine would have to refuse (too large, not JSON, too deep) is a failure of the
task, said here in words, and not a message that nobody can place later.
"""

from __future__ import annotations

from typing import Any

import orjson
from uuid_utils import uuid7

from processors.agents.wire import Assignment
from streams.codec import encode_command
from streams.message import Command
from streams.strict import DEPTH_MAX, Malformed, parse

OUTPUT_BYTES_MAX = 200 * 1024  # the output is in an event that every reader of the log gets
ERROR_CHARS_MAX = 1_000
ENVELOPE_BYTES_MAX = 2_048  # what an answer is besides its output: ids of up to 200 bytes each


class TaskError(Exception):
    """Raised by a handler: why it could not do the task, and whether trying again may help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(message)


def started(assignment: Assignment, agent: str) -> bytes:
    """The agent is working on it."""
    return _encode("StartTask", assignment, agent, {})


def completed(assignment: Assignment, agent: str, output: Any, started_at: str) -> bytes:
    """The agent has done it; raises TaskError where the output cannot travel."""
    try:
        raw = _encode(
            "CompleteTask", assignment, agent, {"output": output, "started_at": started_at}
        )
    except orjson.JSONEncodeError as error:
        raise TaskError(f"The output is not JSON: {error}", retryable=False) from None
    if len(raw) > OUTPUT_BYTES_MAX:
        size = len(orjson.dumps(output))
        if size > OUTPUT_BYTES_MAX:
            why = f"The output has {size:,} bytes; at most {OUTPUT_BYTES_MAX:,} may be"
            raise TaskError(f"{why}. Store it and answer with its address.", retryable=False)
    if b"\\u0000" in raw or raw.count(b"{") + raw.count(b"[") > DEPTH_MAX:  # then look closely
        try:
            parse(raw, bytes_max=OUTPUT_BYTES_MAX + ENVELOPE_BYTES_MAX)
        except Malformed as error:
            raise TaskError(f"The output cannot be stored: {error}", retryable=False) from None
    return raw


def failed(assignment: Assignment, agent: str, error: BaseException, started_at: str) -> bytes:
    """The agent could not do it; anything but a TaskError may be tried again."""
    if isinstance(error, TaskError):
        text, retryable = str(error), error.retryable
    else:
        text, retryable = f"{type(error).__name__}: {error}", True
    said = {"error": _printable(text), "retryable": retryable, "started_at": started_at}
    return _encode("FailTask", assignment, agent, said)


def _printable(text: str) -> str:
    """A bounded text that every part of the engine can store."""
    if len(text) > ERROR_CHARS_MAX:
        text = text[: ERROR_CHARS_MAX - 1] + "…"
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _encode(kind: str, assignment: Assignment, agent: str, said: dict[str, Any]) -> bytes:
    data = {"task": assignment.task_id, "attempt": assignment.attempt, "agent": agent, **said}
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
