"""From a request to a command, and from its committed outcome to the answer.

`Idempotency-Key` names the command, `If-Match` the version that its aggregate must have, `Prefer:
respond-async` does not wait, `traceparent` goes along. Nothing is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from processors.api.answers import POSITION, json
from processors.api.gateway import WAITING_MAX, At, Gateway
from processors.api.parameters import ID, ID_CHARS_MAX
from processors.api.principal import Principal, Who
from processors.api.problems import Problem, of_document
from processors.api.trouble import RETRY_AFTER_S, busy, full, unavailable
from processors.client import NoAnswer, Rejected
from processors.commands import new_id
from streams.bus import BusFull, BusUnavailable
from streams.message import Command, Outcome

VERSION_TAG = re.compile(r'"(\d{1,18})"')

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=ID,
        max_length=ID_CHARS_MAX,
        description="Names this command: said twice it has one effect and one answer.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        pattern=r'^"\d{1,18}"$',
        description="The version (ETag) that the resource must still have.",
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        max_length=200,
        description="`respond-async`: answer 202 at once, without waiting for the outcome.",
    ),
]


class Sender:
    """Publishes the commands of one request and answers with their outcomes."""

    def __init__(
        self,
        request: Request,
        gateway: At,
        who: Who,
        key: IdempotencyKey = None,
        prefer: Prefer = None,
    ) -> None:
        self.gateway: Gateway = gateway
        self.who: Principal = who
        self.key = key or new_id()
        self.key_given = key is not None
        self._at_once = prefer is not None and "respond-async" in _preferences(prefer)
        self._traceparent: str | None = request.scope.get("traceparent")
        self._origin = request.client.host if request.client else None

    def fresh_root(self, kind: str) -> str:
        """The id of what a request creates: the same for the same key, so that a repeat is one."""
        if not self.key_given:
            return new_id()
        return str(uuid5(NAMESPACE_URL, f"{kind}/{self.who.tenant}/{self.key}"))

    async def send(
        self,
        command: Command,
        *,
        location: str = "",
        created: bool = False,
        if_match: str | None = None,
        about: dict[str, Any] | None = None,
        places: Mapping[str, str] | None = None,
    ) -> Response:
        """The answer to a command: 201, 200, 202, or the problem that the engine wrote.

        `about` is part of the answer; `places` says where the request has what the engine points
        at by another name.
        """
        gateway = self.gateway
        said = command.but(
            id=command_id(self.who, self.key),
            tenant=self.who.tenant,
            actor=self.who.actor,
            token=self.who.token,
            traceparent=self._traceparent,
            origin=self._origin,
            expected=expected(if_match),
        )
        if said.id in gateway.in_flight:
            raise Problem("IN_FLIGHT", "A request with this Idempotency-Key is still under way.")
        if len(gateway.in_flight) >= WAITING_MAX:
            raise busy("More commands wait for their outcomes than may")
        headers = {"Idempotency-Key": self.key}
        about = {"command_id": said.id} | (about or {})
        gateway.in_flight.add(said.id)
        try:
            await _room(gateway)
            if self._at_once:
                await gateway.client.publish(said)
                headers["Location"] = outcome_path(command.root, self.key)
                headers["Preference-Applied"] = "respond-async"
                return json(about | {"status": "pending"}, 202, headers)
            outcome = await gateway.client.call(said, gateway.settings.api_wait_s)
        except Rejected as refused:
            return of_document(placed(masked(command, refused.problem), places or {}), headers)
        except BusFull:
            raise full() from None
        except BusUnavailable:
            raise unavailable("Redis") from None
        except NoAnswer:
            detail = "No outcome yet; the command may still be carried out. Ask again with its key."
            raise Problem(
                "NO_OUTCOME",
                detail,
                headers=headers | {"Retry-After": str(RETRY_AFTER_S)},
                command_id=said.id,
            ) from None
        finally:
            gateway.in_flight.discard(said.id)
        headers[POSITION] = f"{outcome.partition}:{outcome.last}"
        if created:
            headers["Location"] = location
        return json(about | accepted(outcome), 201 if created else 200, headers)


Sending = Annotated[Sender, Depends()]


def command_id(who: Principal, key: str) -> str:
    """The engine's name of a command: keys of one tenant never meet those of another."""
    return f"{who.tenant}:{key}"


def outcome_path(root: str, key: str) -> str:
    """Where the outcome of a command can be asked for."""
    return f"/api/v1/outcomes/{quote(root, safe='')}/{quote(key, safe='')}"


def accepted(outcome: Outcome) -> dict[str, Any]:
    """An accepted command's outcome; `changed` is false where all of it was true before."""
    return {
        "status": "accepted",
        "position": f"{outcome.partition}:{outcome.last}",
        "changed": outcome.last >= outcome.first,
    }


def masked(command: Command, problem: dict[str, Any]) -> dict[str, Any]:
    """A refusal without what belongs to others: who asks for it finds nothing."""
    if problem.get("code") != "FOREIGN_TENANT":
        return problem
    kind = command.aggregate
    code = f"UNKNOWN_{kind.upper()}"
    return Problem(code, f"There is no {kind.replace('_', ' ')} {command.root}.").document()


def placed(problem: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """A refusal whose pointer is one into the request's body."""
    where = str(problem.get("pointer") or "")
    for inside, outside in places.items():
        if where == inside or where.startswith(f"{inside}/"):
            return problem | {"pointer": f"{outside}{where[len(inside) :]}"}
    return problem


def expected(if_match: str | None) -> int | None:
    """The version in an If-Match header."""
    found = VERSION_TAG.fullmatch(if_match or "")
    return int(found[1]) if found else None


async def _room(gateway: Gateway) -> None:
    """Raises BusFull at once; a Redis that is away may come back while we wait for the outcome."""
    try:
        await gateway.bus.make_sure_of_room()
    except BusFull:
        raise
    except BusUnavailable:
        return


def _preferences(header: str) -> set[str]:
    return {part.partition(";")[0].strip().lower() for part in header.split(",")}
