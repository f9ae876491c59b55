"""Serves the HTTP interface until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from processors.api.app import make_app
from processors.api.protocol import BoundedProtocol
from processors.api.socket_protocol import OPTIONS as SOCKETS
from processors.settings import Addresses, BadSettings, Settings
from processors.worker import GC_ALLOCATIONS

BACKLOG = 1_024
GRACE_S = 5  # for answers that are on their way when the gateway is told to stop
KEEP_ALIVE_S = 30  # of an idle connection


class Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield


async def serve(
    settings: Settings,
    addresses: Addresses,
    report: Callable[[str], None] = lambda url: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set, or SIGTERM or SIGINT comes where it is not given.

    `report` hears the URL once it answers. Raises BadSettings where the port cannot be had.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listener = listen(settings.api_host, settings.api_port)
    app = make_app(settings, addresses)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        lifespan="off",  # it is entered here, so that its errors are ours
        log_config=None,
        access_log=False,
        server_header=False,
        **SOCKETS,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = Server(config)
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    with listener:
        async with app.router.lifespan_context(app):
            serving = asyncio.create_task(server.serve([listener]), name="http")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            host, port = listener.getsockname()[:2]
            report(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            try:
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
                server.should_exit = True
                await serving


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises BadSettings."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        text = f"AGENTCORE_API_PORT: {host}:{port} cannot be listened on: {error.strerror}."
        raise BadSettings(text) from None
    return made
