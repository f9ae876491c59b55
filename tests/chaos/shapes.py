"""The workflows of a mixed load, and how an execution of each must end."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

ROLES = ("alpha", "beta", "gamma")
WORKLOADS = Path(__file__).parents[3] / "shared" / "workloads" / "open"
OPEN_WORKLOADS = ("nfcore-viralrecon.json", "montage-2mass-05d.json", "bwa-large.json")
QUICK = {"initial_backoff_seconds": 0.05, "max_backoff_seconds": 0.2, "max_attempts": 4}

Json = dict[str, Any]


@dataclass
class Shape:
    """A definition, the ends that its executions may have, and how often tasks must fail."""

    name: str
    document: Json
    end: str = "ExecutionCompleted"
    or_else: str | None = None
    """Another end that is as good: time-outs may come late, and never early."""
    failures: dict[str, int] = field(default_factory=dict)
    weight: int = 4
    timeout_s: float | None = None
    signal: str | None = None
    """Given by a client some time after the start."""
    asks: bool = False
    """A client answers what its tasks ask."""
    retried: bool = False
    """After its first failure, a person has it tried again."""
    undone: tuple[list[str], list[str]] | None = None
    """What its end says was undone, and what could not be."""


def task(name: str, *after: str, role: int = 0, do: Json | None = None, **more: Any) -> Json:
    """One task that does what `do` says."""
    made: Json = {"task_id": name, "agent_role": ROLES[role % len(ROLES)], **more}
    if after:
        made["depends_on"] = list(after)
    if do:
        made["metadata"] = {"do": do}
    return made


def document(name: str, tasks: list[Json], **more: Any) -> Json:
    """A definition of these tasks."""
    return {
        "name": name,
        "version": "1",
        "agents": {role: {} for role in {one["agent_role"] for one in tasks}},
        "tasks": tasks,
        "retry_policy": QUICK,
        **more,
    }


def shapes() -> list[Shape]:
    """All of them; the same ones in every run."""
    nap = {"sleep_s": 0.3}
    fan = [f"f{n}" for n in range(8)]
    made = [
        Shape("single", document("single", [task("t")]), weight=8),
        Shape(
            "chain",
            document(
                "chain", [task(f"t{n}", *([f"t{n - 1}"] if n else []), role=n) for n in range(5)]
            ),
            weight=8,
        ),
        Shape(
            "fan",
            document(
                "fan",
                [
                    task("a"),
                    *[task(f, "a", role=n) for n, f in enumerate(fan)],
                    task("z", *fan, role=1),
                ],
                coordination={"max_parallel_tasks": 4},
            ),
        ),
        Shape(
            "diamond",
            document(
                "diamond",
                [
                    task("a", role=2),
                    task("b", "a", role=1, do=nap),
                    task("c", "a", priority=5),
                    task("d", "b", "c", parallel=False),
                ],
            ),
        ),
        Shape(
            "slow",
            document(
                "slow", [task(f"s{n}", role=n, do={"sleep_s": 0.2 + n / 4}) for n in range(4)]
            ),
        ),
        Shape(
            "flaky",
            document(
                "flaky",
                [
                    task("a", do={"fail_first": 1}),
                    task("b", "a", role=1, do={"fail_first": 2, "late": True}),
                    task("c", "b", role=2, do={"crash_first": 1}),
                ],
            ),
            failures={"a": 1, "b": 2, "c": 1},
        ),
        Shape(
            "liars",
            document(
                "liars",
                [task("a", do={"twice": True}), task("b", "a", role=1, do={"twice": True} | nap)],
            ),
        ),
        Shape(
            "doomed",
            document("doomed", [task("a"), task("b", "a", role=1, do={"fatal": True}), task("c")]),
            end="ExecutionFailed",
            failures={"b": 1},
            weight=2,
        ),
        Shape(
            "exhausted",
            document(
                "exhausted",
                [task("a", do={"fail_first": 99}, retry_policy=QUICK | {"max_attempts": 2})],
            ),
            end="ExecutionFailed",
            failures={"a": 2},
            weight=2,
        ),
        Shape("layers", document("layers", layers()), weight=2),
    ]
    return made + waiting() + undoing()


def waiting() -> list[Shape]:
    """Executions that wait for a clock or for people."""
    return [
        Shape(
            "hangs",
            document("hangs", [task("a", do={"hang_first": 1}, timeout_seconds=0.4)]),
            failures={"a": 1},
            weight=2,
        ),
        Shape(
            "overdue",
            document("overdue", [task("a"), task("b", "a", do={"sleep_s": 6.0})]),
            end="ExecutionFailed",
            or_else="ExecutionCompleted",
            timeout_s=1.0,
            weight=1,
        ),
        Shape(
            "unserved",
            document(
                "unserved",
                [task("a"), {"task_id": "b", "agent_role": "nobody", "depends_on": ["a"]}],
                coordination={"queue_timeout_seconds": 1.0},
            ),
            end="ExecutionFailed",
            weight=1,
        ),
        Shape(
            "signalled",
            document("signalled", [task("a"), task("b", "a", wait_for="go"), task("c", "b")]),
            signal="go",
            weight=2,
        ),
        Shape(
            "asking",
            document("asking", [task("a", do={"ask": True}), task("b", "a", role=2)]),
            asks=True,
            weight=2,
        ),
        Shape(
            "retried",
            document(
                "retried",
                [
                    task("a"),
                    task("b", "a", do={"fail_first": 1}, retry_policy=QUICK | {"max_attempts": 1}),
                    task("c", "b", role=1),
                ],
            ),
            failures={"b": 1},
            retried=True,
            weight=2,
        ),
    ]


def undoing() -> list[Shape]:
    """Executions that fail and undo what they did; some of it cannot be undone."""
    fails = {"fatal": True}
    return [
        Shape(
            "saga",
            document(
                "saga",
                [
                    task("a", compensation_action="undo", do={"undo_fail_first": 1}),
                    task("b", "a", role=1, compensation_action="gamma/undo"),
                    task("c", "b", role=2),
                    task("d", "c", role=2, do=fails),
                ],
                agents={role: {} for role in ROLES},
            ),
            end="ExecutionFailed",
            failures={"d": 1},
            undone=(["b", "a"], []),
        ),
        Shape(
            "parked",
            document(
                "parked",
                [
                    task("a", compensation_action="undo"),
                    task("b", "a", compensation_action="undo", do={"undo_fatal": True}),
                    task("c", "b", role=2, do=fails),
                ],
            ),
            end="ExecutionFailed",
            failures={"c": 1},
            undone=(["a"], ["b"]),
            weight=2,
        ),
    ]


def layers(seed: int = 5, depth: int = 5, width: int = 5) -> list[Json]:
    """Five by five, each task after up to three of the layer before."""
    chance, made = random.Random(seed), []
    for level in range(depth):
        for place in range(width):
            before = [f"l{level - 1}.{n}" for n in range(width)] if level else []
            after = chance.sample(before, chance.randint(1, 3)) if before else []
            made.append(task(f"l{level}.{place}", *after, role=place))
    return made


def open_workloads() -> list[Shape]:
    """Real ones, where they lie beside the checkout: their graphs, with our roles and time."""
    made = []
    for name in OPEN_WORKLOADS:
        path = WORKLOADS / name
        if path.exists():
            given = json.loads(path.read_text())
            tasks = [
                task(
                    one["task_id"],
                    *(one.get("depends_on") or []),
                    role=crc32(one["agent_role"].encode()),
                )
                for one in given["tasks"]
            ]
            made.append(Shape(path.stem, document(path.stem, tasks), weight=0))
    return made
