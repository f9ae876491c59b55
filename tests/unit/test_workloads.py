"""The given workloads: hostile files get the verdict they must, open ones their known numbers."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from aggregates.definition import Definition, parse_definition, validate
from aggregates.plan import plan
from aggregates.problem import Refused
from streams.strict import parse

WORKLOADS = Path(__file__).parents[2].parent / "shared" / "workloads"
FILE_BYTES_MAX = 32 * 1024 * 1024

pytestmark = pytest.mark.skipif(
    not WORKLOADS.is_dir(), reason=f"the workloads are not at {WORKLOADS}"
)

# What we do where either verdict is allowed. All are refused: an empty workflow is a mistake, more
# than 8 MiB, 20,000 tasks or 1 MiB of input belong elsewhere, and text that one of PostgreSQL, a
# log line or JSON cannot carry is refused at the edge.
OUR_VERDICT = {
    "empty-tasks.json": "EMPTY_WORKFLOW",
    "chain-100000.json.gz": "TOO_LARGE",
    "wide-100000.json.gz": "TOO_LARGE",
    "layered-100000.json.gz": "TOO_LARGE",
    "nul-in-payload.json": "INVALID_PAYLOAD",
    "redis-glob-ids.json": "INVALID_ID",
    "blank-and-padded-ids.json": "INVALID_ID",
    "max-attempts-1000000000.json": "INVALID_VALUE",
    "payload-5MB.json.gz": "TOO_LARGE",
    "bom.json": "INVALID_JSON",
    # Rejected by everybody, the code is free: of a repeated key the last counts.
    "duplicate-json-keys.json": "UNKNOWN_DEPENDENCY",
}


def listed(name: str) -> list[dict[str, Any]]:
    path = WORKLOADS / name
    found: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else []
    return found


HOSTILE = listed("hostile/expected.json")
OPEN = listed("open/manifest.json")


def read(name: str) -> bytes:
    raw = (WORKLOADS / name).read_bytes()
    return gzip.decompress(raw) if name.endswith(".gz") else raw


@pytest.mark.parametrize("expected", HOSTILE, ids=lambda each: each["file"])
def test_hostile_files_get_their_verdict(expected: dict[str, Any]) -> None:
    raw = read(f"hostile/{expected['file']}")
    assert len(raw) == expected["bytes"]
    begun = time.process_time()
    error = None
    try:
        drawn = plan(parse_definition(raw))
    except Refused as refused:
        error = refused
    seconds = time.process_time() - begun
    assert seconds < expected["max_plan_seconds"]
    if expected["verdict"] == "accept":
        assert error is None
        tasks = json.loads(raw)["tasks"]
        assert list(drawn.ids) == [task["task_id"] for task in tasks]
        assert drawn.phases == expected.get("depth", drawn.phases)
        assert max(drawn.phase_sizes) == expected.get("width", max(drawn.phase_sizes))
        assert drawn.edges == expected.get("edges", drawn.edges)
        return
    assert error is not None
    assert error.code == OUR_VERDICT.get(expected["file"], expected["code"])
    assert len(str(error)) < 1000
    assert len(orjson.dumps(error.problem())) < 5000
    if "cycle" in expected:
        assert error.facts["cycle"] == expected["cycle"]
    if "edge" in expected:
        assert set(expected["edge"]) <= set(error.facts["cycle"])
    if "duplicate" in expected:
        assert error.facts["task_id"] == expected["duplicate"]


@pytest.mark.parametrize("known", OPEN, ids=lambda each: each["name"])
def test_open_files_are_accepted_with_their_numbers(known: dict[str, Any]) -> None:
    raw = read(f"open/{known['file']}")
    found = parse(raw, bytes_max=FILE_BYTES_MAX)
    if isinstance(found, list):
        definitions = [validate(each) for each in found]
        assert len(definitions) == known["workflows"]
        assert all("recorded" in each.metadata for each in definitions)
    else:
        definitions = [parse_definition(raw)]
    plans = [plan(each) for each in definitions]
    assert sum(len(drawn.ids) for drawn in plans) == known["tasks"]
    assert sum(drawn.edges for drawn in plans) == known["edges"]
    assert max(drawn.phases for drawn in plans) == known["depth"]
    assert max(max(drawn.phase_sizes) for drawn in plans) == known["width"]
    assert len({role for drawn in plans for role in drawn.roles}) == known["roles"]
    for drawn in plans:
        again = Definition.from_bytes(drawn.definition.to_bytes())
        assert again == drawn.definition
        assert plan(again) == drawn
        assert Counter(drawn.phase) == dict(enumerate(drawn.phase_sizes, 1))
    if "critical_path_seconds" in known:
        assert plans[0].critical_path_seconds == pytest.approx(
            known["critical_path_seconds"], abs=0.06
        )
        work = sum(task.duration_seconds for task in plans[0].definition.tasks)
        assert work == pytest.approx(known["work_seconds"], abs=0.06)
