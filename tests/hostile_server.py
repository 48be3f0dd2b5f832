"""A web server on the loopback that does everything wrong that a host on the web may do: one handler for each way.

    with HostileServer() as server:
        server.url("endless")            # http://127.0.0.1:PORT/endless
        server.url("good", host=2)       # the same server as another host, http://127.0.0.2:PORT/good
        server.tls_url("good")           # with a certificate that nobody has signed

Every request is logged with its time and headers, and the bytes that a handler could send are counted.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import functools
import gzip
import io
import itertools
import socket
import ssl
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HOSTS = 80  # 127.0.0.1 to 127.0.0.80, each of which is a host of its own to a fetcher
BLOCK = bytes(1 << 16)
JPEG_START = b"\xff\xd8\xff\xe0"


class Request(NamedTuple):
    """What a client asked for."""

    time: float  # time.monotonic()
    host: int  # the last number of the address
    path: str  # after the first slash
    headers: dict[str, str]  # names in lower case


class HostileServer:
    """Runs in a thread of its own from `with` to its end."""

    def __init__(self) -> None:
        self.log: list[Request] = []
        self.sent: collections.Counter[str] = collections.Counter()  # bytes of bodies, by path
        self.most_at_once: collections.Counter[int] = collections.Counter()  # requests, by host
        self._at_once: collections.Counter[int] = collections.Counter()
        self._connections: set[asyncio.StreamWriter] = set()

    def url(self, path: str, host: int = 1) -> str:
        return f"http://127.0.0.{host}:{self.port}/{path}"

    def tls_url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.tls_port}/{path}"

    @functools.cached_property
    def silent_port(self) -> int:
        """Of a socket that nobody accepts connections of."""
        self._silent = socket.create_server(("127.0.0.1", 0), backlog=1)
        return self._silent.getsockname()[1]

    def requests(self, path: str) -> list[Request]:
        return [request for request in self.log if request.path == path]

    def __enter__(self) -> HostileServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hostile", daemon=True)
        begun = self._loop.create_future()
        self._begun = threading.Event()
        self._thread.start()
        self._begun.wait()
        del begun
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if "silent_port" in self.__dict__:
            self._silent.close()
