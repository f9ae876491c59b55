"""uvicorn's WebSockets, closed for certain: also towards somebody who does not read any more.

As they come, a close frame waits until the other side has read what was sent before, and a closed
transport waits for that too, for ever where it never does; and a server that stops says 1012.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CLOSE_S_MAX = 5.0  # for the other side to read on and to answer the close frame
PING_S = 20.0  # so often an idle connection is asked whether it lives
PONG_S_MAX = 20.0  # who does not answer that is gone
MESSAGE_BYTES_MAX = 4_096  # from a client: nothing is expected of it
GOING_AWAY = 1001


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection."""

    async def send(self, message: Any) -> None:
        """A close frame goes out behind what is in the buffer, at once."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self._abort_later()
        await super().send(message)

    def keepalive_timeout(self) -> None:
        """No pong came."""
        self._abort_later()
        super().keepalive_timeout()

    def shutdown(self) -> None:
        """The server stops; the app has had its chance to say so itself."""
        if self.handshake_complete and not self.close_sent and not self.transport.is_closing():
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY})
            self.conn.send_close(GOING_AWAY, "The server is going away; come back soon.")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        self._abort_later()
        super().shutdown()

    def _abort_later(self) -> None:
        self.loop.call_later(CLOSE_S_MAX, self.transport.abort)


OPTIONS: dict[str, Any] = {
    "ws": SocketProtocol,
    "ws_max_size": MESSAGE_BYTES_MAX,
    "ws_ping_interval": PING_S,
    "ws_ping_timeout": PONG_S_MAX,
    "ws_per_message_deflate": False,  # 60 kB a socket, and CPU, for messages of 300 bytes
}
"""What uvicorn has to be told for WebSockets."""
