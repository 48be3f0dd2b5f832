"""Hosts by the thousand on the loopback, one in twenty of them dead, under names that a resolver of their own knows."""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DEAD_EVERY = 20
HELD_CONNECTIONS = 4_096

# Both programs look names up by Python's socket.getaddrinfo. Each name has an address, and a registrable domain, of its
# own: nN.bench is 127.(1 + N / 65,536).(N / 256 mod 256).(N mod 256).
RESOLVER = """
import socket

_getaddrinfo = socket.getaddrinfo


def getaddrinfo(host, *arguments, **options):
    if isinstance(host, str) and host.endswith(".bench"):
        number = int(host[1:-len(".bench")])
        host = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return _getaddrinfo(host, *arguments, **options)


socket.getaddrinfo = getaddrinfo
"""


@contextlib.contextmanager
def resolver(folder: Path) -> Iterator[None]:
    """While the block runs, Python programs that are started know the names."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(RESOLVER)
    before = os.environ.get("PYTHONPATH", os.getcwd())
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before


class Ports(NamedTuple):
    """Where what kind of host listens, on all addresses of the loopback."""

    good: int
    drops: int  # what is sent to it: not even connected
    silent: int  # once connected

    def of(self, host: int) -> int:
        if host % DEAD_EVERY != DEAD_EVERY - 1:
            return self.good
        return self.drops if host // DEAD_EVERY % 2 else self.silent


@contextlib.contextmanager
def dead_hosts(good: int) -> Iterator[Ports]:
    """The ports of hosts; the port of the good ones is given."""
    with (
        socket.create_server(("0.0.0.0", 0), backlog=0) as drops,
        socket.create_server(("0.0.0.0", 0), backlog=HELD_CONNECTIONS) as silent,
        contextlib.ExitStack() as waiting,
    ):
        for _ in range(4):  # the queue of what nobody accepts is full: the kernel drops what comes next
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(drops.getsockname())
        threading.Thread(target=_hold, args=[silent], daemon=True).start()
        yield Ports(good, drops.getsockname()[1], silent.getsockname()[1])


def _hold(listening: socket.socket) -> None:
    """Accepts connections and says nothing, until the socket is closed."""
    held: collections.deque[tuple[socket.socket, object]] = collections.deque(maxlen=HELD_CONNECTIONS)
    with contextlib.suppress(OSError):
        while True:
            held.append(listening.accept())


def url(number: int, hosts: int, photographs: int, ports: Ports) -> str:
    """The URL of a list's row: its rows go through all hosts again and again."""
    host = number % hosts
    return f"http://n{host}.bench:{ports.of(host)}/{number % photographs}.jpg?{number}"
