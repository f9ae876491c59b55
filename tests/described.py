"""What the AsyncAPI document says of a message: which one it is, and whether it is as described."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jsonschema_rs
import orjson

from processors.asyncapi.document import document


@cache
def _described() -> dict[str, Any]:
    return document()


@cache
def _validator(message: str) -> Any:
    """Of one message's payload, by the rules of AsyncAPI's schemas."""
    pointer = f"#/components/messages/{message}/payload"
    return jsonschema_rs.Draft7Validator(
        {"$ref": pointer, "components": _described()["components"]}, validate_formats=True
    )


@cache
def _channel_of(key: str) -> str:
    """The channel that a Redis key belongs to."""
    if key.startswith("replies:"):
        return "replies"
    for name, channel in _described()["channels"].items():
        address = channel["address"]
        if address and channel["servers"] == [{"$ref": "#/servers/redis"}]:
            # A parameter's value has its braces.
            pattern = re.sub(r"\\\{\w+\\\}", r"\\{[^}]+\\}", re.escape(address))
            if re.fullmatch(pattern, key):
                return str(name)
    raise AssertionError(f"{key} is not described")


def check(key: str, raw: bytes) -> str:
    """The name of a message in a stream or channel; fails where it is not as described."""
    channel = _channel_of(key)
    allowed = _described()["channels"][channel]["messages"]
    if list(allowed) == ["Withdrawn"]:
        value: Any = raw.decode()
        name = "Withdrawn"
    else:
        value = orjson.loads(raw)
        name = value["type"] if len(allowed) > 1 else next(iter(allowed))
    assert name in allowed, f"{name} is not described for {channel}"
    valid(name, value)
    unknown = undescribed(name, value)
    assert not unknown, f"{name} in {key} has {unknown}, which nobody describes"
    return name


def valid(name: str, value: Any) -> None:
    """Fail where a value is not as this message is described."""
    errors = [f"{e.message} at {e.instance_path}" for e in _validator(name).iter_errors(value)]
    assert not errors, f"{name}: {errors}"


def undescribed(name: str, value: Any) -> set[str]:
    """The members of an envelope and its data that the document does not name."""
    schemas = _described()["components"]["schemas"]
    payload = _described()["components"]["messages"][name]["payload"]
    if "allOf" not in payload:
        return set()
    envelope = schemas[payload["allOf"][0]["$ref"].rpartition("/")[2]]
    data = schemas[name]
    more = set() if name == "CommandRejected" else set(value["data"]) - set(data["properties"])
    return set(value) - set(envelope["properties"]) | more
