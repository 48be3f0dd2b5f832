"""Ends responses whose framing grows without content."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

import aiohttp

WATCH_INTERVAL_S = 1.0  # a body that takes longer is checked this often
MAX_FRAMING_BYTES = 16 << 20  # beside the body; counts some MB that wait in the kernel, too


class FramingWatch:
    """Context manager that closes a response whose connection brings framing instead of a body.

    The size of a chunk may be written with any number of zeros, which the client library reads without an error and
    without a limit. The watch compares the kernel's count of bytes received with the body's length, so it works on
    Linux only.
    """

    def __init__(self, response: aiohttp.ClientResponse):
        self._response = response
        # None if the connection was given back already: a short body came with the headers.
        self._transport = response.connection.transport if response.connection else None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if self._transport and sys.platform == "linux":
            self._received_at_start = _bytes_received(self._transport)
            self._wait(self._transport)

    def __exit__(self, *exception: object) -> None:
        if self._timer:
            self._timer.cancel()

    def _wait(self, transport: asyncio.Transport) -> None:
        self._timer = asyncio.get_running_loop().call_later(WATCH_INTERVAL_S, self._check, transport)

    def _check(self, transport: asyncio.Transport) -> None:
        if transport.is_closing():
            return
        received = _bytes_received(transport) - self._received_at_start
        if received > MAX_FRAMING_BYTES + 8 * self._response.content.total_bytes:
            self._response.close()  # the reader of the body gets an error
        else:
            self._wait(transport)


def _bytes_received(transport: asyncio.Transport) -> int:
    info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
    return struct.unpack_from("Q", info, 128)[0]  # tcpi_bytes_received of struct tcp_info
