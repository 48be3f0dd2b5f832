"""Ends responses whose framing grows without content."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

import aiohttp  # asynchronous, pooled, and its resolver can be replaced, which the address check needs

WATCH_INTERVAL_S = 1.0  # how often a body that takes so long is looked after
MAX_FRAMING_BYTES = 16 << 20  # beside the body; what waits in the kernel counts as well, which may be some MB


class FramingWatch:
    """Context manager, in which the connection of a response is dropped if it brings framing instead of a body: a
    chunk's size may be written with zeros without end, of which the client library says nothing while it reads them.
    It goes by the kernel's count, so on Linux only."""

    def __init__(self, response: aiohttp.ClientResponse):
        self._response = response
        self._transport = response.connection and response.connection.transport
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if self._transport and sys.platform == "linux":  # no connection any more: it came with the headers
            self._begin = self._received()
            self._wait()

    def __exit__(self, *exception: object) -> None:
        if self._timer:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WATCH_INTERVAL_S, self._look)

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        if self._received() - self._begin > MAX_FRAMING_BYTES + 8 * self._response.content.total_bytes:
            self._response.close()  # whoever reads then finds the connection closed
        else:
            self._wait()

    def _received(self) -> int:
        info = self._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
        return struct.unpack_from("Q", info, 128)[0]  # tcpi_bytes_received of struct tcp_info
