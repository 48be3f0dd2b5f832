"""Connections of the server: how many at once, and how long a client may take to send a request.

uvicorn limits neither; what it is told here is its own protocol, with a clock and a count."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT_S = 10.0  # from connecting, or from the first byte of a further request, to its last
MAX_CONNECTIONS = 1_024  # at most half of the files that the process may open
CLIENT_SHARE = 2  # one address has at most half of these
_INCOMPLETE = (h11.IDLE, h11.SEND_BODY)


class LimitedProtocol(H11Protocol):
    """Ends connections whose request does not arrive in time, and those beyond the limits."""

    _clients: ClassVar[Counter[str]] = Counter()  # connections by address, of this process
    _client = ""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._client = str((transport.get_extra_info("peername") or ("",))[0])
        self._clients[self._client] += 1
        limit = max_connections()
        if self._clients.total() > limit or self._clients[self._client] > limit // CLIENT_SHARE:
            self.transport.abort()
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._clients[self._client] -= 1
        if self._clients[self._client] <= 0:
            del self._clients[self._client]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state not in _INCOMPLETE:
            self._disarm()
        elif self._deadline is None:
            self._arm()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.abort)

    def _disarm(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None


def max_connections() -> int:
    """Number of connections that may be open at a time."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, files // 2)


def uvicorn_settings() -> dict[str, Any]:
    """What uvicorn is to be configured with beside the application."""
    return {"http": LimitedProtocol, "ws": "none", "h11_max_incomplete_event_size": 32 << 10}
