"""What a request may look like: JSON by the one strict parser, within bounds, in time.

A route of this class refuses what it cannot read (415, 413, 400) or answer (406) before anything
else happens; what a body means is checked by its model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, ClassVar

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from processors.api.problems import Problem
from streams.codec import COMMAND_BYTES_MAX
from streams.strict import DEPTH_MAX, Malformed, parse

BODY_BYTES_MAX = 2 * 1024 * 1024  # a task's input may have 1 MiB
DEFINITION_BYTES_MAX = COMMAND_BYTES_MAX - 64 * 1024  # the rest is for the envelope
BODY_DEPTH_MAX = DEPTH_MAX - 4  # the command around it is nested as well
BODY_S_MAX = 30.0  # who sends more slowly is cut off
ACCEPTED = ("application/json", "application/problem+json", "application/*", "*/*")


class StrictRequest(Request):
    """A request whose body is bounded, in bytes and in time, and JSON for all later readers."""

    bytes_max = BODY_BYTES_MAX

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body's chunks; raises Problem where there are too many bytes."""
        length = self.headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > 15 or int(length) > self.bytes_max):
            raise self._too_large()
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > self.bytes_max:
                raise self._too_large()
            yield chunk

    async def body(self) -> bytes:
        """The whole body; raises Problem where it does not come in time."""
        try:
            async with asyncio.timeout(BODY_S_MAX):
                return await super().body()
        except TimeoutError:
            detail = f"The body did not come within {BODY_S_MAX:g} s."
            raise Problem("REQUEST_TIMEOUT", detail, headers={"Connection": "close"}) from None

    async def json(self) -> Any:
        """The body's value; raises Problem."""
        if not hasattr(self, "_json"):
            try:
                raw = await self.body()
                self._json = parse(raw, bytes_max=self.bytes_max, depth_max=BODY_DEPTH_MAX)
            except Malformed as error:
                raise Problem(error.code, error.detail, error.pointer) from None
        return self._json

    def _too_large(self) -> Problem:
        detail = f"The body has more than {self.bytes_max:,} bytes."
        return Problem("TOO_LARGE", detail, headers={"Connection": "close"})


class DefinitionRequest(StrictRequest):
    """A request that may carry a whole workflow definition."""

    bytes_max = DEFINITION_BYTES_MAX


class JsonRoute(APIRoute):
    """A route that speaks JSON and problems."""

    request: ClassVar[type[StrictRequest]] = StrictRequest
    understood: ClassVar[tuple[str, ...]] = ("application/json",)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, behind our checks."""
        handle = super().get_route_handler()
        has_body = self.body_field is not None

        async def checked(request: Request) -> Response:
            headers = request.headers
            if not acceptable(headers.get("accept")):
                detail = "Answers are application/json, and problems application/problem+json."
                raise Problem("NOT_ACCEPTABLE", detail)
            if has_body and not self._reads(headers):
                names = " or ".join(self.understood)
                raise Problem("UNSUPPORTED_MEDIA_TYPE", f"Send the body as {names}.")
            return await handle(self.request(request.scope, request.receive))

        return checked

    def _reads(self, headers: Headers) -> bool:
        kind = headers.get("content-type")
        if kind is None:  # no body at all is for the model to refuse, or to accept
            return "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        return media_type(kind) in self.understood


def media_type(header: str | None) -> str:
    """The type in a Content-Type header, without its parameters."""
    return (header or "").partition(";")[0].strip().lower()


def acceptable(accept: str | None) -> bool:
    """Whether JSON is among what the client takes."""
    if accept is None or not accept.strip():
        return True
    for choice in accept.lower().split(","):
        name, _, parameters = choice.partition(";")
        if name.strip() in ACCEPTED and "q=0" not in _compact(parameters).split(";"):
            return True
    return False


def _compact(parameters: str) -> str:
    return parameters.replace(" ", "").replace("q=0.0", "q=0").replace("q=00", "q=0")
