"""The AsyncAPI description is valid, is the present one, and names every message (R51)."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path

import jsonschema_rs
import orjson
import pytest

from aggregates import DECIDERS
from processors.asyncapi.document import SNAPSHOT, document, written
from processors.commands import create_workflow, start_execution
from streams.codec import encode_command
from streams.partition import commands_key
from tests.described import check

OFFICIAL = Path(__file__).parents[2] / "asyncapi" / "asyncapi-3.0.0.json"


@cache
def official():
    """The specification's own schema of such documents."""
    return jsonschema_rs.Draft7Validator(orjson.loads(OFFICIAL.read_bytes()))


def test_the_copy_in_the_repository_is_the_present_one():
    renew = "orchestrator schema asyncapi > processors/asyncapi/asyncapi.json"
    assert SNAPSHOT.read_bytes() == written(), f"look at the difference, then: {renew}"


def test_it_is_an_asyncapi_document():
    errors = [
        f"{one.instance_path}: {one.message}"[:300] for one in official().iter_errors(document())
    ]
    assert not errors


@pytest.mark.parametrize(
    "place",
    [("info", "title"), ("channels", "events", "address"), ("operations", "giveTasks", "action")],
)
def test_the_official_schema_notices_what_is_wrong(place):
    wrong = copy.deepcopy(document())
    *outer, last = place
    node = wrong
    for key in outer:
        node = node[key]
    node[last] = 17
    assert not official().is_valid(wrong)


def test_every_reference_leads_somewhere():
    whole = document()
    found = set(re.findall(r'"\$ref":"#/([^"]+)"', orjson.dumps(whole).decode()))
    for pointer in found:
        node = whole
        for part in pointer.split("/"):
            node = node[part]


def test_every_command_and_event_is_there_with_its_fields():
    made = document()
    messages, channels = made["components"]["messages"], made["channels"]
    for decider in DECIDERS:
        for kind in decider.commands:
            assert kind.__name__ in channels["commands"]["messages"]
        for kind in decider.events:
            assert kind.__name__ in channels["events"]["messages"]
            assert kind.__name__ in channels["eventsSocket"]["messages"]
    assert messages.keys() >= {"CommandRejected", "Outcome", "Task", "Withdrawn", "Heartbeat"}
    completed = made["components"]["schemas"]["CompleteTask"]
    assert completed["required"] == ["task", "attempt", "agent"]
    assert completed["additionalProperties"] is False


def test_a_command_that_the_engine_takes_is_as_described_and_another_is_not():
    good = start_execution("w", timeout_seconds=5.0)
    assert check(commands_key(3), encode_command(good)) == "StartExecution"
    good.data["timeout_seconds"] = "soon"
    with pytest.raises(AssertionError, match="StartExecution"):
        check(commands_key(3), encode_command(good))
    stranger = create_workflow(source="{}")
    stranger.type = "DestroyWorkflow"
    with pytest.raises(AssertionError, match="not described"):
        check(commands_key(3), encode_command(stranger))
