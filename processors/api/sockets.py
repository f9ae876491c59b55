"""Events over WebSocket, as they are committed: CloudEvents JSON, one a message.

A socket is always accepted and then perhaps closed, because a browser is not shown the status of a
handshake that was refused; only pages of foreign origin are refused before.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import orjson
import structlog
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket, WebSocketDisconnect

from aggregates.problem import Refused, bounded
from processors.access.principal import Forbidden
from processors.access.roles import Read, check_read
from processors.api.gateway import Gateway
from processors.api.principal import SUBPROTOCOL, Principal, principal
from processors.api.socket_origin import is_foreign
from processors.following import subscription as reasons
from processors.following.follower import Follower
from processors.following.following import TooMany
from processors.following.places import read_place
from processors.following.stored import belongs
from processors.following.subscription import Ended, Subscription
from processors.following.wanted import FILTER_VALUES_MAX, Wanted
from streams.codec import ID_BYTES_MAX
from streams.ending import end
from streams.log import LogUnavailable

GOING_AWAY, NOT_UNDERSTOOD, INTERNAL, TRY_AGAIN = 1001, 1003, 1011, 1013
BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN, UNKNOWN, SLOW, WENT_BACK, FULL = (
    4400,
    4401,
    4403,
    4404,
    4408,
    4409,
    4429,
)
REASON_BYTES_MAX = 123  # of a close frame

ENDS = {
    reasons.SLOW: (SLOW, "Too slow: resume from the last position that you have."),
    reasons.WENT_BACK: (WENT_BACK, "The log has lost its end: read anew, without a position."),
    reasons.CLOSING: (GOING_AWAY, "The server is going away; come back soon."),
    reasons.BROKEN: (INTERNAL, "Something went wrong here; resume from your last position."),
}

logger = structlog.get_logger(__name__)
router = APIRouter(tags=["events"])


@router.websocket("/ws/executions/{execution_id}")
async def execution(socket: WebSocket, execution_id: str) -> None:
    """The events of one execution."""
    subjects = frozenset({f"execution/{execution_id}"})
    await _serve(socket, {"subjects": subjects}, ("execution", execution_id))


@router.websocket("/ws/workflows/{workflow_id}")
async def workflow(socket: WebSocket, workflow_id: str) -> None:
    """The events of a workflow and of all its executions, also of those that begin later."""
    await _serve(socket, {"workflow": workflow_id}, ("workflow", workflow_id))


@router.websocket("/api/v1/ws/events")
async def events(socket: WebSocket) -> None:
    """All events of a tenant, or some: by type, execution, workflow, agent."""
    await _serve(socket, {}, None)


class Closed(Exception):
    """The socket is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


async def _serve(socket: WebSocket, wanted: dict[str, Any], named: tuple[str, str] | None) -> None:
    gateway: Gateway = socket.app.state.gateway
    if is_foreign(socket, gateway.settings.api_cors_origins):
        await socket.close(FORBIDDEN)  # before the handshake: an HTTP 403
        return
    offered = socket.scope.get("subprotocols", ())
    await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    following = gateway.following
    try:
        with following.place():
            who = await _principal(socket)
            follower, subscription = await _subscribe(gateway, socket, who, wanted, named)
            try:
                await _until_over(socket, follower, subscription, who.may(Read.PAYLOADS))
            finally:
                follower.leave()
    except Closed as closed:
        code, reason = closed.code, closed.reason
    except TooMany as full:
        code, reason = FULL, str(full)
    except Refused as refused:
        code, reason = BAD_REQUEST, str(refused)
    except Ended as ended:
        code, reason = ENDS[ended.why]
    except (HTTPException, LogUnavailable) as error:
        code, reason = _of_failure(error)
    except (WebSocketDisconnect, ConnectionError):
        socket.app.state.metrics.closed(0)
        return
    except Exception:
        logger.exception("socket_crashed")
        code, reason = ENDS[reasons.BROKEN]
    socket.app.state.metrics.closed(code)
    await _close(socket, code, reason)


async def _principal(socket: WebSocket) -> Principal:
    try:
        who = await principal(socket)
        if who.known is not None:
            check_read(who.known, Read.EVENTS)
        return who
    except Forbidden as error:
        raise Closed(FORBIDDEN, error.detail) from None
    except HTTPException as error:
        code = UNAUTHENTICATED if error.status_code == 401 else FORBIDDEN
        raise Closed(code, str(error.detail)) from None


async def _subscribe(
    gateway: Gateway,
    socket: WebSocket,
    who: Principal,
    given: dict[str, Any],
    named: tuple[str, str] | None,
) -> tuple[Follower, Subscription]:
    """The follower that a request asks for; raises Closed or Refused."""
    wanted = _wanted(socket, who, given)
    fetch = partial(gateway.rows, who)
    if named is not None:
        kind, root = named
        if not 0 < len(root.encode()) <= ID_BYTES_MAX or not await belongs(
            fetch, kind, root, who.tenant, gateway.partitions
        ):
            raise Closed(UNKNOWN, f"There is no {kind} {bounded(root, 60)}.")
    partitions = wanted.partitions(gateway.partitions)
    place = socket.query_params.get("from")
    after = None if place is None else read_place(place, partitions)
    following = gateway.following
    if after is not None:
        await following.make_sure_of(after)
    subscription = Subscription(wanted, partitions, after)
    return Follower(following.hub, following.stored, fetch, subscription), subscription


def _wanted(socket: WebSocket, who: Principal, given: dict[str, Any]) -> Wanted:
    """The filter in the path and the query; raises Refused."""
    asked = socket.query_params
    allowed = {"from", "type", "agent"}
    allowed |= set() if given else {"execution", "workflow"}
    if unknown := sorted(set(asked) - allowed):
        raise Refused("UNKNOWN_FIELD", f"There is no parameter {bounded(unknown[0], 40)!r} here.")
    values = {name: frozenset(asked.getlist(name)) for name in allowed}
    for name, some in values.items():
        if name != "from" and (
            len(some) > FILTER_VALUES_MAX
            or any(not 0 < len(one.encode()) <= ID_BYTES_MAX for one in some)
        ):
            raise Refused(
                "INVALID_VALUE",
                f"At most {FILTER_VALUES_MAX} times `{name}`, of up to {ID_BYTES_MAX} bytes each.",
            )
    filters: dict[str, Any] = {"types": values["type"], "agents": values["agent"]}
    if not given:
        executions, workflows = values["execution"], values["workflow"]
        if len(workflows) > 1 or (workflows and executions):
            raise Refused("INVALID_VALUE", "Name executions, or one `workflow`.")
        filters["subjects"] = frozenset(f"execution/{one}" for one in executions)
        filters["workflow"] = next(iter(workflows), None)
    return Wanted(who.tenant, **(filters | given))


async def _until_over(
    socket: WebSocket, follower: Follower, one: Subscription, payloads: bool
) -> None:
    """Send until somebody ends it; raises why."""
    loop = asyncio.get_running_loop()

    async def send() -> None:
        async for said in follower.said():
            if isinstance(said, str):
                kind = "subscribed" if not sent else "heartbeat"
                await put(orjson.dumps({"type": kind, "position": said}).decode())
            else:
                for event in said:
                    await put(event.text if payloads else event.withheld)

    sent = 0

    async def put(text: str) -> None:
        nonlocal sent
        one.sending_since = loop.time()
        await socket.send_text(text)
        one.sending_since = None
        sent += 1

    async def receive() -> None:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        raise Closed(NOT_UNDERSTOOD, "Nothing is read from clients here.")

    tasks = (asyncio.create_task(send()), asyncio.create_task(receive()))
    try:
        await asyncio.wait((*tasks, one.ended), return_when=asyncio.FIRST_COMPLETED)
        if one.ended.done():
            raise Ended(one.ended.result())
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            await end(task)


def _of_failure(error: HTTPException | LogUnavailable) -> tuple[int, str]:
    status = getattr(error, "status_code", 503)
    detail = str(getattr(error, "detail", "The log cannot be reached at the moment; try again."))
    return (TRY_AGAIN if status in (429, 503) else INTERNAL), detail


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    try:
        await socket.close(code, reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"))
    except (RuntimeError, ConnectionError, WebSocketDisconnect):
        return  # it has gone meanwhile
