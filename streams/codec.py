"""Bytes to messages and back: CloudEvents 1.0 in JSON.

An event's bytes are made once: the same bytes are hashed, stored in Postgres and mirrored to Redis,
so every reader sees the same. `datacontenttype` is left out, which in CloudEvents' JSON format
means application/json; so is `dataschema` while an event type is in its first version.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any, TypeGuard

import msgspec
import orjson

from streams import quick
from streams.message import DEFAULT_TENANT, TOKEN_CHARS_MAX, Command, Event
from streams.strict import Malformed, parse

SOURCE = "agentcore"
SPEC_VERSION = "1.0"

COMMAND_BYTES_MAX = 12 * 1024 * 1024  # a definition of 8 MiB, sealed, and its envelope
ID_BYTES_MAX = 200
REPLY_PREFIX = quick.REPLY_PREFIX
"""Outcomes are sent to streams of this prefix only, so that no command writes elsewhere."""

TENANT = quick.TENANT

_TOKEN = re.compile(rb"""(token["']?\s*[:=]\s*["']?)[\w-]{4,}\.[\w-]+\.[\w-]*""")
"""A JSON Web Token where an envelope, or what was meant to be one, has it."""

_TEXTS = ("type", "subject", "id")
_OPTIONAL_TEXTS = (
    "tenant",
    "actor",
    "correlationid",
    "causationid",
    "traceparent",
    "replyto",
    "time",
    "source",
    "origin",
)


class Poison(Exception):
    """A message that cannot be understood; it goes to the dead letters, with this reason."""


class _Envelope(msgspec.Struct, gc=False, omit_defaults=True):
    """An event as it is written; msgspec does so in a third of the time that a dictionary takes."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    tenant: str
    actor: str
    causationid: str
    correlationid: str
    partition: int
    position: int
    version: int
    data: Any
    traceparent: str | None = None
    origin: str | None = None


_write = msgspec.json.Encoder().encode


def encode_event(
    partition: int,
    position: int,
    event_type: str,
    subject: str,
    version: int,
    time: str,
    command: Command,
    data: Any,
) -> bytes:
    """The bytes of a fact that `command` caused; `data` is a dataclass or a JSON-able object.

    Fields of `data` whose names begin with an underscore are the engine's, and are left out.
    """
    if type(data) in _SOME_ARE_OURS or (type(data) not in _ALL_ARE_SAID and _ours(type(data))):
        data = {f.name: getattr(data, f.name) for f in fields(data) if not f.name.startswith("_")}
    name = command.id
    return _write(
        _Envelope(
            SPEC_VERSION,
            f"{partition}-{position}",
            SOURCE,
            event_type,
            subject,
            time,
            command.tenant,
            command.actor,
            name,
            command.correlation or name,
            partition,
            position,
            version,
            data,
            command.traceparent or None,
            command.origin or None,
        )
    )


_SOME_ARE_OURS: set[type[Any]] = set()
_ALL_ARE_SAID: set[type[Any]] = {dict}


def _ours(kind: type[Any]) -> bool:
    """Whether a class of events has fields of the engine's own; looked at once."""
    some = is_dataclass(kind) and any(f.name.startswith("_") for f in fields(kind))
    (_SOME_ARE_OURS if some else _ALL_ARE_SAID).add(kind)
    return some


class _Stored(msgspec.Struct, gc=False):
    """What is read of a stored event's envelope, in one pass; the rest is skipped over."""

    partition: int
    position: int
    type: str
    subject: str
    version: int
    time: str
    tenant: str
    actor: str
    data: Any
    causationid: str | None = None
    correlationid: str | None = None


_read = msgspec.json.Decoder(_Stored).decode


def decode_event(raw: bytes | str) -> Event:
    """A stored event; it was checked when it was written."""
    stored = _read(raw)
    aggregate, _, root = stored.subject.partition("/")
    return Event(
        stored.partition,
        stored.position,
        stored.type,
        aggregate,
        root,
        stored.version,
        stored.time,
        stored.tenant,
        stored.actor,
        stored.causationid,
        stored.correlationid,
        stored.data,
    )


def encode_command(command: Command) -> bytes:
    """The bytes of an intent, as any publisher in any language writes them."""
    envelope: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": command.id,
        "source": SOURCE,
        "type": command.type,
        "subject": command.subject,
        "tenant": command.tenant,
        "actor": command.actor,
        "data": command.data,
    }
    for name, value in (
        ("correlationid", command.correlation),
        ("causationid", command.causation),
        ("traceparent", command.traceparent),
        ("replyto", command.reply_to),
        ("time", command.time),
        ("expectedversion", command.expected),
        ("token", command.token),
        ("origin", command.origin),
    ):
        if value is not None:
            envelope[name] = value
    return orjson.dumps(envelope)


def stamped(raw: bytes, token: str | None) -> bytes:
    """An encoded command with the token of whoever gives it, put in at the last moment."""
    if token is None:
        return raw
    return b'%b,"token":%b}' % (raw[:-1], orjson.dumps(token))


def redacted(raw: bytes) -> bytes:
    """What may be kept of a command's bytes: not its token, whether they are JSON or not."""
    return _TOKEN.sub(rb"\1***", raw) if b"token" in raw else raw


def decode_command(raw: bytes) -> Command:
    """A command from outside, its envelope checked once; raises Poison."""
    if (found := quick.command(raw)) is not None:
        return found
    try:
        envelope = parse(raw, bytes_max=COMMAND_BYTES_MAX)
    except Malformed as error:
        raise Poison(f"{error.code}: {error.detail}") from None
    if type(envelope) is not dict:
        raise Poison("INVALID_TYPE: A message is a JSON object (a CloudEvents envelope).")
    get = envelope.get
    name, kind, subject = get("id"), get("type"), get("subject")
    if not (_named(name) and _named(kind) and _named(subject)):
        raise _unnamed(envelope)
    for optional in _OPTIONAL_TEXTS:
        value = get(optional)
        if value is not None and (type(value) is not str or len(value) > ID_BYTES_MAX):
            raise Poison(
                f"INVALID_VALUE: `{optional}` is a text of up to {ID_BYTES_MAX} characters."
            )
    aggregate, slash, root = subject.partition("/")
    if not slash or not root or not root.isprintable():
        raise Poison("INVALID_VALUE: `subject` is `kind/id`, such as `execution/0190…`.")
    data = get("data")
    if type(data) is not dict:
        raise Poison("INVALID_TYPE: `data` is a JSON object.")
    tenant = get("tenant") or DEFAULT_TENANT
    if tenant != DEFAULT_TENANT and not TENANT.fullmatch(tenant):
        raise Poison("INVALID_VALUE: `tenant` is 1 to 64 letters, digits, `.`, `_` or `-`.")
    reply_to = get("replyto")
    if reply_to is not None and not reply_to.startswith(REPLY_PREFIX):
        raise Poison(f"INVALID_VALUE: `replyto` names a stream that begins with `{REPLY_PREFIX}`.")
    expected = get("expectedversion")
    if expected is not None and type(expected) is not int:
        raise Poison("INVALID_TYPE: `expectedversion` is the version of an aggregate, a number.")
    token = get("token")
    if token is not None and (type(token) is not str or len(token) > TOKEN_CHARS_MAX):
        raise Poison(f"INVALID_VALUE: `token` is a text of up to {TOKEN_CHARS_MAX:,} characters.")
    command = Command(
        name,
        kind,
        aggregate,
        root,
        data,
        tenant,
        get("actor") or "",
        get("correlationid"),
        get("causationid"),
        get("traceparent"),
        reply_to,
        get("time"),
        expected,
        token,
        get("origin"),
    )
    command.digest = quick.digest_of(command)
    return command


def _named(value: Any) -> TypeGuard[str]:
    """Whether this is a text of 1 to ID_BYTES_MAX bytes; short ones need no encoding to know."""
    return type(value) is str and (
        0 < len(value) <= ID_BYTES_MAX // 4 or (value != "" and len(value.encode()) <= ID_BYTES_MAX)
    )


def _unnamed(envelope: dict[str, Any]) -> Poison:
    """What is wrong with the first of the needed names."""
    for name in _TEXTS:
        value = envelope.get(name)
        if not isinstance(value, str) or not value:
            return Poison(f"MISSING_FIELD: The envelope needs `{name}`, a text.")
        if not _named(value):
            return Poison(f"TOO_LARGE: `{name}` is longer than {ID_BYTES_MAX} bytes.")
    raise AssertionError("every name is well")
