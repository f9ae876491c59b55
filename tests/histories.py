"""Random histories that are real: every event was decided by its aggregate, refusals included."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, timedelta
from typing import Any

from aggregates.agent import AGENT
from aggregates.decider import Blueprint, Decider
from aggregates.execution_state import RUNNING, SCHEDULED
from aggregates.problem import Refused
from processors.vocabulary import Vocabulary
from streams.codec import decode_event, encode_event
from streams.message import Command, Event
from streams.partition import partition_of
from tests.flows import blueprint, document
from tests.spec import NOW

PARTITIONS = 2
TENANTS = ("default", "acme")
OUTPUTS = (None, {"a": [1, 2.5, None]}, "text", [], {}, "ü∑", 0, False)
STARTS = (None, "", "garbage", "9999-12-31T23:59:59Z", "2026-01-02", "2026-01-02T03:04:06",
          "2026-01-02T03:04:07Z", "2020-01-01T00:00:00+23:59", "0001-01-01T00:00:00+00:01",
          "2026-01-02T03:04:06+00:00:01.5", "2026-01-02T19:04:08.5+16:00")  # fmt: skip
ANSWERS = (*("StartTask", "CompleteTask") * 3, "CompleteTask", "FailTask", "RequestInput")
SIGNALS = ("approved", "delivered")
IN_FLIGHT = (SCHEDULED, RUNNING)
AGENT_KINDS = tuple(kind.__name__ for kind in AGENT.commands)
REGIONS = (None, "eu")
_NAMES = Vocabulary()


class History:
    """What several aggregates decided, in the order of each partition's log."""

    def __init__(self, seed: int, executions: int = 3) -> None:
        self.chance = random.Random(seed)
        self.events: dict[int, list[Event]] = {p: [] for p in range(PARTITIONS)}
        self.now = NOW
        self._states: dict[str, Any] = {}
        self._versions: dict[str, int] = defaultdict(int)
        self._runs = [f"run-{number}" for number in range(executions)]
        self._made = [self._dag() for _ in self._runs]
        while any(not self._ended(root) for root in self._runs):
            self._step()

    def say(self, aggregate: str, root: str, kind: str, found: Any = None, /, **data: Any) -> None:
        """One command; what follows from it, or its refusal, is in the log."""
        self.now += timedelta(seconds=self.chance.uniform(-0.1, 1.5))
        tenant = self.chance.choice(TENANTS)
        command = Command(f"c-{self.now:%X.%f}", kind, aggregate, root, data, tenant, "tester")
        decider: Decider[Any] = _NAMES.deciders[aggregate]
        state = self._states.get(command.subject) or decider.initial(root)
        try:
            typed = _NAMES.command(command)
            if found is not None:
                typed._blueprint = found
            events = decider.decide(state, typed, self.now)
        except Refused as refusal:
            said = {"command_type": kind, "command_id": command.id, **refusal.problem()}
            return self._append(command, "CommandRejected", said)
        for event in events:
            self._versions[command.subject] += 1
            state = decider.evolve(state, event)
            self._append(command, type(event).__name__, event)
        self._states[command.subject] = state

    def _append(self, command: Command, kind: str, data: Any) -> None:
        partition = partition_of(command.root, PARTITIONS)
        log = self.events[partition]
        stamp = self.now.isoformat(timespec="microseconds").replace("+00:00", "Z")
        version = self._versions[command.subject]
        place = (partition, len(log) + 1, kind, command.subject, version, stamp)
        log.append(decode_event(encode_event(*place, command, data)))

    def _dag(self) -> tuple[Blueprint, dict[str, Any]]:
        names = [f"t{n}" for n in range(self.chance.randint(1, 7))]
        tasks: dict[str, Any] = {
            name: {
                "depends_on": [d for d in names[:n] if self.chance.random() < 0.4],
                "priority": self.chance.randint(-2, 2),
            }
            | ({"compensation_action": "undo"} if self.chance.random() < 0.3 else {})
            | ({"wait_for": self.chance.choice(SIGNALS)} if self.chance.random() < 0.1 else {})
            for n, name in enumerate(names)
        }
        policy = {"max_attempts": self.chance.randint(1, 4)}
        made = document(tasks, policy=policy, max_parallel_tasks=self.chance.randint(1, 4))
        decided = _NAMES.deciders["workflow"]
        create = _NAMES.command(
            Command("c", "CreateWorkflow", "workflow", "w", {"definition": made})
        )
        return blueprint(decided.decide(decided.initial("w"), create, NOW)[0]._definition), made

    def _ended(self, root: str) -> bool:
        state = self._states.get(f"execution/{root}")
        return state is not None and state.terminal

    def _step(self) -> None:
        number = self.chance.randrange(len(self._runs))
        root, (found, made) = self._runs[number], self._made[number]
        dice = self.chance.random()
        if dice < 0.06:
            kinds = ("CreateWorkflow", "ReviseWorkflow", "ArchiveWorkflow")
            kind = self.chance.choice(kinds)
            data = {"reason": "old"} if kind == "ArchiveWorkflow" else {"definition": made}
            self.say("workflow", f"w-{self.chance.randrange(3)}", kind, **data)
        elif dice < 0.14:
            self._agent(f"agent-{self.chance.randrange(3)}")
        elif dice < 0.23:
            kind = self.chance.choice(("Pause", "Resume", "Resume")) + "Execution"
            self.say("execution", root, kind, reason=self.chance.choice(("", "lunch", "é")))
        elif dice < 0.235:
            self.say("execution", root, "CancelExecution", reason="enough")
        elif dice < 0.27 or f"execution/{root}" not in self._states:
            given = self.chance.choice(OUTPUTS)
            self.say("execution", root, "StartExecution", found, workflow_id="w", input=given)
        elif self._states[f"execution/{root}"].undoing.outcome or dice > 0.98:
            self._undo(root)
        elif dice < 0.4:
            self._outside(root)
        else:
            self._answer(root)

    def _outside(self, root: str) -> None:
        """Time passes, or somebody has a word."""
        state = self._states[f"execution/{root}"]
        task = self.chance.randrange(len(state.plan.ids))
        said: dict[str, Any] = {"task": state.plan.ids[task]}
        match self.chance.choice(("TimeOut", "Signal", "Provide", "Provide", "Retry", "other")):
            case "TimeOut":
                kind = "queue" if self.chance.random() < 0.1 else "run"
                attempt = {"attempt": state.attempts[task], "kind": kind, "reason": "too long"}
                self.say("execution", root, "TimeOutTask", **said, **attempt)
            case "Signal":
                said = {"name": self.chance.choice(SIGNALS), "data": {"by": "ada"}}
                self.say("execution", root, "SignalExecution", **said)
            case "Provide":
                answer = {"input": self.chance.choice(OUTPUTS)}
                self.say("execution", root, "ProvideInput", **said, **answer)
            case "Retry" if self.chance.random() < 0.5:
                self.say("execution", root, "RetryExecution", reason="once more")
            case _:
                kind = "TimeOutExecution" if self.chance.random() < 0.1 else "CheckExecution"
                self.say("execution", root, kind)

    def _undo(self, root: str) -> None:
        """What a saga and the agents say while tasks are undone; and after, where it is late."""
        state = self._states[f"execution/{root}"]
        open_ = [task for task, undo in state.undoing.tasks.items() if not undo.settled]
        if not open_ and state.undoing.outcome:
            return self.say("execution", root, "EndCompensation")
        task = self.chance.choice(open_ or range(len(state.plan.ids)))
        undo = state.undoing.tasks.get(task)
        attempt = {"attempt": undo.attempt if undo else 1}
        said: dict[str, Any] = {"task": state.plan.ids[task]}
        match self.chance.choice(("Compensate", "Complete", "Complete", "Fail", "Time", "Retry")):
            case "Compensate":
                self.say("execution", root, "CompensateTask", **said)
            case "Complete":
                done = said | attempt | {"agent": "agent-0", "output": "undone"}
                self.say("execution", root, "CompleteCompensation", **done)
            case "Fail":
                failed = said | attempt | {"agent": "agent-1", "error": "stuck"}
                failed["retryable"] = self.chance.random() < 0.5
                self.say("execution", root, "FailCompensation", **failed)
            case "Time":
                self.say("execution", root, "TimeOutCompensation", **said, **attempt)
            case "Retry":
                self.say("execution", root, "RetryCompensation", **said, reason="fixed")

    def _agent(self, agent: str) -> None:
        kind = self.chance.choice(AGENT_KINDS)
        data: dict[str, Any] = {}
        if kind == "RegisterAgent":
            roles = self.chance.choices(("a", "b", "c"), k=self.chance.randint(0, 3))
            data = {"name": "n", "roles": roles, "capacity": self.chance.randint(1, 9)}
            data |= {"cost": self.chance.choice((0.0, 2.5)), "region": self.chance.choice(REGIONS)}
        elif kind == "OpenCircuit":
            data = {"reason": "fails", "failures": 5, "cooldown_seconds": 10.0}
        elif kind == "MarkAgentLost":
            data = {"reason": "silent"}
        self.say("agent", agent, kind, **data)

    def _answer(self, root: str) -> None:
        state = self._states[f"execution/{root}"]
        open_ = [task for task, status in enumerate(state.task_status) if status in IN_FLIGHT]
        anything = not open_ or self.chance.random() < 0.1
        task = self.chance.choice(range(len(state.plan.ids)) if anything else open_)
        kind = self.chance.choice(ANSWERS)
        data: dict[str, Any] = {"task": state.plan.ids[task], "attempt": state.attempts[task]}
        data["agent"] = self.chance.choice(("agent-0", "agent-1"))
        if kind != "StartTask":
            data["started_at"] = self.chance.choice((*STARTS, self.now.astimezone(UTC).isoformat()))
        if kind == "CompleteTask":
            data["output"] = self.chance.choice(OUTPUTS)
        elif kind == "RequestInput":
            data["prompt"] = self.chance.choice(OUTPUTS)
        elif kind == "FailTask":
            data["error"] = self.chance.choice(("timeout", "", "boom"))
            data["retryable"] = self.chance.random() < 0.9
        self.say("execution", root, kind, **data)


def plain(events: dict[int, list[Event]]) -> dict[int, list[dict[str, Any]]]:
    """The events as plain JSON, as `read_models.fold` takes them."""
    return {
        partition: [asdict(event) | {"subject": event.subject} for event in log]
        for partition, log in events.items()
    }
