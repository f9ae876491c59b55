"""How a task travels to an agent: an A2A v1.0 SendMessage request in ProtoJSON; no I/O here.

The engine's own words stand in the message's metadata under the URI of our extension. The answers
are commands: see `answers`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from streams.codec import Poison

EXTENSION = "https://agentcore.dev/ext/orchestration/v1"
"""The A2A extension that says which attempt of which task a message is, and where answers go."""

BINDING = "https://agentcore.dev/a2a/bindings/redis-streams/v1"
"""The A2A protocol binding of this module, as an agent's card names it."""

ASSIGNMENT_BYTES_MAX = 9 * 1024 * 1024  # as the largest command: an input is part of one

TASK, COMPENSATION = "task", "compensation"

DELIVERY_MAX = 2**62  # a base holds a lease's epoch and a count of looks, shifted

_REPLY_STREAM = re.compile(r"commands(:\{\d{1,4}\})?")
_TEXTS = ("execution_id", "task_id", "role", "tenant", "reply_to")
_SELDOM = ("kind", "action", "agent", "answer", "signal", "output", "delivery", "workflow")
"""Fields that most tasks have at their default, and then not in their bytes."""

_USUAL = 8
"""How many other fields there are: two of them may be left out."""

_TEXT_BYTES_MAX = 200  # as every id; an action is at most a role and a name


@dataclass(slots=True)
class Assignment:
    """One attempt of one task, as the agent sees it; or of undoing one (`kind`, `action`).

    `answer` is what somebody said to the task's request for input, `signal` the data of the signal
    that it waited for, `output` what the task that is to be undone had delivered. `agent` is set
    where the engine chose one. `delivery` is added to how often Redis has handed the entry out: an
    answer counts only with the highest number that was heard of.
    """

    execution_id: str
    task_id: str
    attempt: int
    role: str
    tenant: str
    input: Any
    metadata: dict[str, Any]
    timeout_seconds: float | None
    reply_to: str
    kind: str = TASK
    action: str | None = None
    agent: str | None = None
    answer: Any = None
    signal: Any = None
    output: Any = None
    delivery: int = 0
    workflow: str | None = None
    """Whose definition the input stands in, where it is sealed and bound to that."""

    @property
    def message_id(self) -> str:
        """The idempotency key: the same for every delivery of this attempt."""
        undo = "undo/" if self.kind == COMPENSATION else ""
        return f"{self.execution_id}/{self.task_id}/{undo}{self.attempt}"


def encode_assignment(assignment: Assignment) -> bytes:
    """The bytes of a task, for the field `message` of an entry in its role's stream."""
    told: dict[str, Any] = {
        "execution_id": assignment.execution_id,
        "task_id": assignment.task_id,
        "attempt": assignment.attempt,
        "role": assignment.role,
        "tenant": assignment.tenant,
        "timeout_seconds": assignment.timeout_seconds,
        "reply_to": assignment.reply_to,
        "metadata": assignment.metadata,
    }
    if assignment.kind != TASK:
        told["kind"] = assignment.kind
        told["action"] = assignment.action
    if assignment.agent is not None:
        told["agent"] = assignment.agent
    if assignment.answer is not None:
        told["answer"] = assignment.answer
    if assignment.signal is not None:
        told["signal"] = assignment.signal
    if assignment.output is not None:
        told["output"] = assignment.output
    if assignment.delivery:
        told["delivery"] = assignment.delivery
    if assignment.workflow is not None:
        told["workflow"] = assignment.workflow
    return orjson.dumps(
        {
            "message": {
                "messageId": assignment.message_id,
                "contextId": assignment.execution_id,
                "role": "ROLE_USER",
                "parts": [{"data": assignment.input}],
                "extensions": [EXTENSION],
                "metadata": {EXTENSION: told},
            }
        }
    )


def decode_assignment(raw: bytes) -> Assignment:
    """The task in `raw`; raises Poison where it is none."""
    if len(raw) > ASSIGNMENT_BYTES_MAX:
        raise Poison(f"TOO_LARGE: A task has at most {ASSIGNMENT_BYTES_MAX:,} bytes.")
    try:
        message = orjson.loads(raw)["message"]
        told = message["metadata"][EXTENSION]
        assignment = Assignment(
            told["execution_id"],
            told["task_id"],
            told["attempt"],
            told["role"],
            told["tenant"],
            message["parts"][0]["data"],
            told.get("metadata") or {},
            told.get("timeout_seconds"),
            told["reply_to"],
        )
        seldom = len(told) != _USUAL or "metadata" not in told or "timeout_seconds" not in told
        for name in _SELDOM if seldom else ():
            if name in told:
                setattr(assignment, name, told[name])
    except orjson.JSONDecodeError as error:
        raise Poison(f"INVALID_JSON: A task is JSON: {error.msg}.") from None
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Poison("MISSING_FIELD: A task is a SendMessage with our extension's data.") from None
    _check(assignment)
    if seldom:
        _check_seldom(assignment)
    return assignment


def _check(assignment: Assignment) -> None:
    """Refuse what would fail later, where nobody could say why."""
    for name in _TEXTS:
        value = getattr(assignment, name)
        if type(value) is not str or not value:
            raise Poison(f"MISSING_FIELD: A task needs `{name}`, a text.")
    if type(assignment.attempt) is not int or assignment.attempt < 1:
        raise Poison("INVALID_VALUE: `attempt` counts 1, 2, 3 …")
    if type(assignment.metadata) is not dict:
        raise Poison("INVALID_TYPE: `metadata` is a JSON object.")
    seconds = assignment.timeout_seconds
    if seconds is not None and (type(seconds) not in (int, float) or not seconds > 0):
        raise Poison("INVALID_VALUE: `timeout_seconds` is a number above 0, or null.")
    if not _REPLY_STREAM.fullmatch(assignment.reply_to):  # an answer is written nowhere else
        raise Poison("INVALID_VALUE: `reply_to` is a stream of commands.")


def _check_seldom(assignment: Assignment) -> None:
    """The same for what most tasks do not say."""
    if assignment.kind == COMPENSATION:
        _check_text("action", assignment.action)
    elif assignment.kind != TASK:
        raise Poison(f"INVALID_VALUE: `kind` is {TASK!r} or {COMPENSATION!r}.")
    elif assignment.action is not None:
        raise Poison("INVALID_VALUE: Only a compensation has an `action`.")
    if assignment.agent is not None:
        _check_text("agent", assignment.agent)
    if assignment.workflow is not None:
        _check_text("workflow", assignment.workflow)
    delivery = assignment.delivery
    if type(delivery) is not int or not 0 <= delivery <= DELIVERY_MAX:
        raise Poison(f"INVALID_VALUE: `delivery` is an integer from 0 to {DELIVERY_MAX}.")


def _check_text(name: str, value: Any) -> None:
    if type(value) is not str or not 0 < len(value.encode(errors="replace")) <= _TEXT_BYTES_MAX:
        raise Poison(f"INVALID_VALUE: `{name}` is a text of 1 to {_TEXT_BYTES_MAX} bytes.")


def encode_gate(agent: str, is_open: bool, limit: int | None = None) -> bytes:
    """What closes or opens an agent for new work; published to `gate_channel(host)`.

    An agent on trial is open with a limit: so many tasks at once, below its capacity. A host
    starts with all its agents open, and shows what it was told in its word of itself (`presence`):
    whoever closes an agent says it until the host's word agrees. Tasks that an agent has begun are
    not touched.
    """
    said: dict[str, Any] = {"agent": agent, "open": is_open}
    return orjson.dumps(said if limit is None else said | {"limit": limit})


def decode_gate(raw: bytes) -> tuple[str, bool, int | None]:
    """The agent, whether it may get work, and how much of it at once; raises Poison."""
    try:
        said = orjson.loads(raw)
        agent, is_open, limit = said["agent"], said["open"], said.get("limit")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise Poison("INVALID_JSON: A gate is an object with `agent` and `open`.") from None
    _check_text("agent", agent)
    if type(is_open) is not bool:
        raise Poison("INVALID_TYPE: `open` is true or false.")
    if limit is not None and (type(limit) is not int or limit < 0):
        raise Poison("INVALID_VALUE: `limit` is how many tasks at once, from 0 on.")
    return agent, is_open, limit
