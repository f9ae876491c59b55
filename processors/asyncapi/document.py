"""The AsyncAPI 3 document: which streams and sockets there are, and what travels in each."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from processors.asyncapi.envelopes import Schema, text
from processors.asyncapi.payloads import messages
from processors.following.wanted import FILTER_VALUES_MAX
from streams.partition import COMMANDS_INBOX

SNAPSHOT = Path(__file__).with_name("asyncapi.json")
"""The copy in the repository; a test holds it against what is made here."""

ABOUT = """\
Publish commands, read their outcomes, follow events, be an agent: from any language that speaks to
Redis, or over WebSocket. An entry of a stream has one field, `message`, with the payload.

Ids in `events:{p}` are `<position>-0` and dense: whoever reads anything but the next position has a
gap (the stream keeps the newest events only) and reads it from PostgreSQL or over WebSocket.
"""

STREAM, CHANNEL = "A Redis Stream.", "A Redis channel (PUBLISH): who does not listen does not hear."
PARTITION = "The partition in braces, Redis Cluster's hash tag: crc32(id) mod the partitions."
ROLE = "Tenant and role in braces."
HOST = "The name of a host of agents, in braces."


def document() -> Schema:
    """The whole description, as JSON-able data."""
    found, schemas, commands, events = messages()
    heard = [*events, "Subscribed", "Heartbeat"]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "AgentCore orchestration engine: streams and sockets",
            "version": version("agentcore-orchestrator"),
            "description": ABOUT,
            "license": {
                "name": "Apache 2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        },
        "defaultContentType": "application/json",
        "servers": {
            "redis": {"host": "localhost:6379", "protocol": "redis"},
            "gateway": {"host": "localhost:8002", "protocol": "ws"},
        },
        "channels": {
            "inbox": _stream(COMMANDS_INBOX, commands, "For who cannot compute a partition."),
            "commands": _stream("commands:{partition}", commands, "", partition=PARTITION),
            "replies": _stream(None, ["Outcome"], "Whatever `replyto` named: `replies:…`."),
            "events": _stream(
                "events:{partition}",
                events,
                "The newest events of a partition, after their commit.",
                partition=PARTITION,
            ),
            "tasks": _stream(
                "tasks:{role}",
                ["Task"],
                "A consumer group, `agents`: the free agent takes the next.",
                role=ROLE,
            ),
            "pushedTasks": _stream(
                "tasks:@{host}", ["Task"], "For one agent of a host, named in it.", host=HOST
            ),
            "withdrawn": _channel("withdrawn:{role}", ["Withdrawn"], role=ROLE),
            "gates": _channel("agents:@{host}", ["Gate"], host=HOST),
            "executionSocket": _socket("/ws/executions/{id}", heard, ("type", "agent"), "one"),
            "workflowSocket": _socket(
                "/ws/workflows/{id}", heard, ("type", "agent"), "a workflow and of all its"
            ),
            "eventsSocket": _socket(
                "/api/v1/ws/events", heard, ("type", "agent", "execution", "workflow"), "all"
            ),
        },
        "operations": {
            "takeCommandsIn": _receiving("inbox", commands),
            "decideCommands": _receiving("commands", commands),
            "answerCommands": _operation("send", "replies", ["Outcome"]),
            "publishEvents": _operation("send", "events", events),
            "giveTasks": _operation("send", "tasks", ["Task"]),
            "pushTasks": _operation("send", "pushedTasks", ["Task"]),
            "withdrawTasks": _operation("send", "withdrawn", ["Withdrawn"]),
            "closeAndOpenAgents": _operation("send", "gates", ["Gate"]),
            "tellExecution": _operation("send", "executionSocket", heard),
            "tellWorkflow": _operation("send", "workflowSocket", heard),
            "tellEvents": _operation("send", "eventsSocket", heard),
        },
        "components": {"messages": found, "schemas": schemas},
    }


def written() -> bytes:
    """The document's bytes, as the repository has them."""
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _stream(address: str | None, names: list[str], about: str, **parameters: str) -> Schema:
    return _place(address, names, f"{STREAM} {about}".strip(), "redis", parameters)


def _channel(address: str, names: list[str], **parameters: str) -> Schema:
    return _place(address, names, CHANNEL, "redis", parameters)


def _socket(address: str, names: list[str], filters: tuple[str, ...], of: str) -> Schema:
    asked: dict[str, Any] = {
        name: {"type": "array", "items": text(), "maxItems": FILTER_VALUES_MAX} for name in filters
    }
    asked["from"] = text("A place: `3:17,5:2`, or 0 for the beginning; now where it is left out.")
    about = {
        "one": "Events of one execution, as they are committed.",
        "all": "Events of a tenant, as they are committed.",
    }.get(of, f"Events of {of} executions, also later ones, as they are committed.")
    parameters = {"id": "Its id."} if "{id}" in address else {}
    made = _place(address, names, about, "gateway", parameters)
    made["bindings"] = {"ws": {"method": "GET", "query": {"type": "object", "properties": asked}}}
    return made


def _place(
    address: str | None, names: list[str], about: str, server: str, parameters: dict[str, str]
) -> Schema:
    examples = {"partition": "{7}", "role": "{default/writer}", "host": "{ada}"}
    made: Schema = {
        "address": address,
        "description": about,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }
    if parameters:
        made["parameters"] = {
            name: {"description": said, "examples": [examples.get(name, "0190-…")]}
            for name, said in parameters.items()
        }
    return made


def _operation(action: str, channel: str, names: list[str]) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _receiving(channel: str, names: list[str]) -> Schema:
    reply = {
        "address": {
            "location": "$message.payload#/replyto",
            "description": "Where it is named; nothing is answered else.",
        },
        "channel": {"$ref": "#/channels/replies"},
        "messages": [{"$ref": "#/channels/replies/messages/Outcome"}],
    }
    return _operation("receive", channel, names) | {"reply": reply}
