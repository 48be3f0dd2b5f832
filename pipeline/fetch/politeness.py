"""Limits of requests to a host: connections, rate, back-off, and when to stop asking it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import functools
import math
import os
import random
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Callable

from pipeline.fetch.retry import BACK_OFF_S, MAX_BACK_OFF_S, FetchFailed
from pipeline.records import Reason
from pipeline.sources.hosts import HostLimits

MAX_CONSECUTIVE_FAILURES = 10  # failed attempts in a row after which a host counts as dead
_POLL_S = 0.05  # interval at which a process checks whether another one has released a slot
_HOST_FILES = 1 << 16  # in the shared folder; hosts whose hashes collide share their limits


# --- slots -----------------------------------------------------------------------------------------------------------


class HostLimiter:
    """Keeps to a host's limits in one event loop and, with `shared`, in all processes that share the host's files.

    Closes once the host no longer responds or asks for a long pause: further requests to it then fail at once, and a
    later run tries them again.
    """

    def __init__(self, host: str, limits: HostLimits, shared: SharedHost | None = None):
        self._host, self._limits = host, limits
        self._slots = asyncio.Semaphore(limits.connections)
        self._shared = shared
        self._clock = self._shared or _RequestClock()
        self._failures = 0  # in a row
        self._closed: tuple[Reason, str] | None = None

    @contextlib.asynccontextmanager
    async def slot(self, connections: asyncio.Semaphore) -> AsyncIterator[None]:
        """Waits until a request to the host may start. Acquires one of `connections`, for the caller to release; none
        is held while waiting, so that no host blocks another."""
        async with self._slots:
            held = await self._start(connections)
            try:
                yield
            finally:
                held.close()

    async def _start(self, connections: asyncio.Semaphore) -> contextlib.ExitStack:
        while True:
            if self._closed:
                reason, detail = self._closed
                raise FetchFailed(reason, detail, final=True)
            await connections.acquire()
            held = contextlib.ExitStack()
            if not self._shared or self._shared.try_acquire_slot(self._limits.connections, held):
                wait_s = self._claim_start()
                if wait_s <= 0:
                    return held
            else:
                wait_s = random.uniform(0.5, 1.5) * _POLL_S
            held.close()
            connections.release()
            await asyncio.sleep(wait_s)

    def _claim_start(self) -> float:
        """Seconds until the next request may start; 0 or less if it may start now, and then counts as started."""
        now, interval_s = time.monotonic(), 1 / self._limits.rate
        return self._clock.move(lambda start: now + interval_s if start <= now else start) - now

    def answered(self) -> None:
        self._failures = 0

    def count_bytes(self, length: int) -> None:
        """Delays the next request where the host limits bytes per second."""
        if self._limits.bytes_per_s < math.inf:
            now, seconds = time.monotonic(), length / self._limits.bytes_per_s
            self._clock.move(lambda start: max(start, now) + seconds)

    def failed(self, failure: FetchFailed) -> None:
        """Counts an attempt without a response, or with status 429, and delays or stops requests to the host."""
        self._failures += 1
        wait_s = failure.retry_after_s or 0.0
        if failure.reason is Reason.HTTP_429:
            until = time.monotonic() + min(wait_s or BACK_OFF_S, MAX_BACK_OFF_S)
            self._clock.move(lambda start: max(start, until))
        if wait_s > MAX_BACK_OFF_S and failure.reason is Reason.HTTP_429:
            self._closed = failure.reason, f"{self._host} asks for {wait_s:.0f} s without requests"
        elif self._failures >= MAX_CONSECUTIVE_FAILURES:
            self._closed = failure.reason, f"given up on {self._host} after {self._failures} failures in a row"


class _RequestClock:
    """The time at which the next request to a host may start, on time.monotonic()."""

    def __init__(self) -> None:
        self._start = 0.0

    def move(self, change: Callable[[float], float]) -> float:
        """Replaces the time by `change(time)`. Returns the time before."""
        before, self._start = self._start, change(self._start)
        return before


class SharedHost:
    """Slots and clock of one host as locked files: the kernel frees what a killed process held."""

    def __init__(self, folder: str, host: str):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._path = os.path.join(folder, f"{zlib.crc32(host.encode()) % _HOST_FILES:04x}")
        self._held: set[int] = set()

    def try_acquire_slot(self, slots: int, held: contextlib.ExitStack) -> bool:
        first = random.randrange(slots)  # random, so that processes try slots in different orders
        for number in (*range(first, slots), *range(first)):
            if number in self._held:
                continue
            file = self._open(str(number))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            self._held.add(number)
            held.callback(self._held.discard, number)
            held.callback(os.close, file)
            return True
        return False

    def move(self, change: Callable[[float], float]) -> float:
        file = self._open("clock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # for some microseconds: every holder only reads and writes 8 bytes
            [before] = struct.unpack("d", os.pread(file, 8, 0) or bytes(8))
            if (after := change(before)) != before:
                os.pwrite(file, struct.pack("d", after), 0)
            return before
        finally:
            os.close(file)

    def _open(self, name: str) -> int:
        return os.open(f"{self._path}.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def shared_host(host: str, folder: str) -> SharedHost | None:
    """The files by which workers with the same folder share a host's limits; None without a folder."""
    return SharedHost(folder, host) if folder else None


@functools.cache
def shared_folder() -> str:
    """A folder for this run, in which its processes on one machine share the limits of hosts."""
    folder = tempfile.mkdtemp(prefix="pairmill-hosts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def warn_once(message: str, folder: str) -> None:
    """Prints a warning to standard error, from one of the processes that share a folder."""
    if folder:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        mark = os.path.join(folder, f"warned-{zlib.crc32(message.encode()):08x}")
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    print(f"warning: {message}", file=sys.stderr, flush=True)
