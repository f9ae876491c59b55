"""Sealing on the way in: clients and agents seal what they send, the processor what came in clear.

Values that arrive sealed are passed on as they are, through decisions, events, snapshots and tasks:
the engine opens nothing but definitions, which it has to read. So sealing costs the processor only
what a program sends in clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from aggregates.definition import Definition
from aggregates.problem import Refused
from processors.payloads import COMMANDS, DOCUMENT, TYPED, is_clear, open_, seal
from streams.codec import redacted
from streams.log import RAW_BYTES_MAX, DeadLetter
from streams.message import Command
from streams.sealing.keyring import Keyring
from streams.sealing.sealer import ERASED, WRONG_KEY, Unopenable
from streams.sealing.token import MARK, is_sealed, wrap

DEFINED_INPUT = "task"
"""The field that an input is bound to which stands in a definition; its subject is the workflow."""

Typed = tuple[int, Command, str, Any]
"""As in `decide`: a command's place, itself, its subject, and its typed data or what refused it."""


def _salt(command: Command) -> bytes:
    """The same for a command that is given again under its id."""
    return command.id.encode()


async def sealed(keys: Keyring | None, command: Command) -> Command:
    """The command as it may travel and be stored; raises Refused, or LogUnavailable."""
    marks = COMMANDS.get((command.aggregate, command.type))
    if keys is None or marks is None:
        return command
    data = command.data
    wanted = [name for name, mark in marks.items() if is_clear(mark, data.get(name))]
    if not wanted:
        return command
    try:
        sealer = await keys.sealer(command.tenant)
    except Unopenable as error:
        raise refused(error) from None
    fresh = {
        name: seal(sealer, marks[name], data[name], command.subject, _salt(command))
        for name in wanted
    }
    return command.but(data=data | fresh)


async def settle(keys: Keyring, commands: list[Typed]) -> set[int]:
    """Have all payloads of typed commands sealed, but definitions, and those in clear.

    A command whose tenant's keys cannot be had is refused. Returns the places of those that came
    in clear. Raises LogUnavailable.
    """
    wanted: list[tuple[int, Any]] = []
    for place, (_, _, _, typed) in enumerate(commands):
        if (marks := TYPED.get(type(typed))) is not None:
            for name, mark in marks:
                if (value := getattr(typed, name)) is not None and (
                    mark.name == DOCUMENT or is_clear(mark, value)
                ):
                    wanted.append((place, marks))
                    break
    if not wanted:
        return set()
    await keys.hold({commands[place][1].tenant for place, _ in wanted})
    came_clear: set[int] = set()
    for place, marks in wanted:
        number, command, subject, typed = commands[place]
        try:
            if _settle(keys, command, typed, marks):
                came_clear.add(number)
        except Refused as error:
            commands[place] = (number, command, subject, error)
    return came_clear


def _settle(keys: Keyring, command: Command, typed: Any, marks: Any) -> bool:
    """Whether a payload came in clear."""
    came_clear = False
    sealer = keys.held(command.tenant)
    for name, mark in marks:
        value = getattr(typed, name)
        if mark.name == DOCUMENT:
            if value is None:
                continue
            if sealer is None:  # what is stored of it is sealed again
                raise refused(keys.why_not(command.tenant))
            if is_clear(mark, value):
                came_clear = True
                continue
            try:
                setattr(typed, name, open_(sealer, mark, value, command.subject))
            except Unopenable as error:
                raise refused(error) from None
        elif is_clear(mark, value):
            if sealer is None:
                raise refused(keys.why_not(command.tenant))
            setattr(typed, name, seal(sealer, mark, value, command.subject, _salt(command)))
            came_clear = True
    return came_clear


def seal_definition(keys: Keyring | None, tenant: str, workflow: str, known: Definition) -> bytes:
    """A definition as it is stored: with its tasks' inputs sealed, and all else in clear."""
    sealer = keys.held(tenant) if keys is not None else None
    if keys is None or all(task.input is None for task in known.tasks):
        return known.to_bytes()
    if sealer is None:
        raise refused(keys.why_not(tenant))
    subject = f"workflow/{workflow}"
    tasks = tuple(
        task
        if task.input is None or is_sealed(task.input)
        else replace(task, input=sealer.seal_value(task.input, subject, DEFINED_INPUT))
        for task in known.tasks
    )
    return replace(known, tasks=tasks).to_bytes()


def refused(error: Unopenable) -> Refused:
    """Why a command's payload cannot be stored, or read."""
    if error.code == ERASED:
        return Refused("TENANT_ERASED", "The tenant was erased: nothing more is kept for it.")
    return Refused("KEY_UNAVAILABLE", str(error))


# Whole messages that nobody understood -----------------------------------------------------------


async def seal_letters(keys: Keyring | None, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Dead letters as they are kept; where no key can be had, without their bytes."""
    if keys is None:
        return list(letters)
    fresh = []
    for letter in letters:
        whole = redacted(letter.raw)
        raw = whole[:RAW_BYTES_MAX]
        try:
            sealer = await keys.any_sealer(letter.tenant)
        except Unopenable:
            raw = b""
        else:
            token = sealer.seal(raw, f"dead_letter/{letter.id}", "raw")
            raw = orjson.dumps(wrap(token) | {"tenant": sealer.tenant})
        fresh.append(letter._replace(raw=raw, size=len(whole)))
    return fresh


async def open_raw(keys: Keyring | None, letter: str, raw: bytes) -> bytes:
    """A dead letter's bytes in clear; raises Unopenable."""
    if not raw.startswith(b'{"$sealed":"'):
        return raw
    try:
        said = orjson.loads(raw)
        token, tenant = said[MARK], said["tenant"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return raw  # somebody sent just that
    if keys is None:
        raise Unopenable(WRONG_KEY, "No key-encryption key is set here: ORCHESTRATOR_KEK.")
    return (await keys.sealer(tenant, create=False)).open(token, f"dead_letter/{letter}", "raw")
