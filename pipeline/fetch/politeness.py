"""How hosts are treated: connections and requests at once, back-off, opting out, and when to leave a host alone."""

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

MAX_CONSECUTIVE_FAILURES = 10  # attempts in a row, after which a host counts as dead
_POLL_S = 0.05  # how often a process looks whether another one has left a slot
_PLACES = 1 << 16  # hosts that are told apart in the shared folder; two that collide share their limits


# --- turns -----------------------------------------------------------------------------------------------------------


class HostLimiter:
    """A host's limits, kept by one event loop and, given what it shares with others, by all of those together.

    Closed once the host does not answer any more or asks for a long rest: what is left to fetch from it then fails at
    once, and a later run tries it again.
    """

    def __init__(self, host: str, limits: HostLimits, shared: SharedHost | None = None):
        self._host, self._limits = host, limits
        self._slots = asyncio.Semaphore(limits.connections)
        self._shared = shared
        self._clock = self._shared or _RequestClock()
        self._failures = 0  # in a row
        self._closed: tuple[Reason, str] | None = None

    @contextlib.asynccontextmanager
    async def turn(self, room: asyncio.Semaphore) -> AsyncIterator[None]:
        """Waits until the host may be asked once more. Takes a place in `room`, for the caller to give back: none is
        held while waiting, so that no host holds up another."""
        async with self._slots:
            held = await self._start(room)
            try:
                yield
            finally:
                held.close()

    async def _start(self, room: asyncio.Semaphore) -> contextlib.ExitStack:
        while True:
            if self._closed:
                reason, detail = self._closed
                raise FetchFailed(reason, detail, final=True)
            await room.acquire()
            held = contextlib.ExitStack()
            if not self._shared or self._shared.take_slot(self._limits.connections, held):
                wait_s = self._claim_start()
                if wait_s <= 0:
                    return held
            else:
                wait_s = random.uniform(0.5, 1.5) * _POLL_S
            held.close()
            room.release()
            await asyncio.sleep(wait_s)

    def _claim_start(self) -> float:
        """Seconds until the next request may start; 0 or less if it may now, which is then taken."""
        now, interval_s = time.monotonic(), 1 / self._limits.rate
        return self._clock.move(lambda start: now + interval_s if start <= now else start) - now

    def answered(self) -> None:
        self._failures = 0

    def spent(self, length: int) -> None:
        """Of the host's bytes/s, where it asks to keep to some."""
        if self._limits.bytes_per_s < math.inf:
            now, seconds = time.monotonic(), length / self._limits.bytes_per_s
            self._clock.move(lambda start: max(start, now) + seconds)

    def failed(self, failure: FetchFailed) -> None:
        """Of an attempt without an answer, or with the answer that there were too many."""
        self._failures += 1
        rest_s = failure.retry_after_s or 0.0
        if failure.reason is Reason.HTTP_429:
            until = time.monotonic() + min(rest_s or BACK_OFF_S, MAX_BACK_OFF_S)
            self._clock.move(lambda start: max(start, until))
        if rest_s > MAX_BACK_OFF_S and failure.reason is Reason.HTTP_429:
            self._closed = failure.reason, f"{self._host} asks for {rest_s:.0f} s without requests"
        elif self._failures >= MAX_CONSECUTIVE_FAILURES:
            self._closed = failure.reason, f"given up on {self._host} after {self._failures} failures in a row"


class _RequestClock:
    """When the next request to a host may start, on time.monotonic()."""

    def __init__(self) -> None:
        self._start = 0.0

    def move(self, change: Callable[[float], float]) -> float:
        """Returns what it was before."""
        before, self._start = self._start, change(self._start)
        return before


class SharedHost:
    """Slots and clock of one host as locked files: the kernel frees what a killed process held."""

    def __init__(self, folder: str, host: str):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._path = os.path.join(folder, f"{zlib.crc32(host.encode()) % _PLACES:04x}")
        self._mine: set[int] = set()

    def take_slot(self, slots: int, held: contextlib.ExitStack) -> bool:
        first = random.randrange(slots)  # others would look at the same ones, one after the other
        for number in (*range(first, slots), *range(first)):
            if number in self._mine:
                continue
            file = self._open(str(number))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            self._mine.add(number)
            held.callback(self._mine.discard, number)
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
    """What the workers that name the same folder share of a host; None without a folder."""
    return SharedHost(folder, host) if folder else None


@functools.cache
def shared_folder() -> str:
    """A folder for this run, by which its processes on one machine keep the limits of hosts together."""
    folder = tempfile.mkdtemp(prefix="pairmill-hosts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def warn_once(message: str, folder: str) -> None:
    """To standard error; by one of the processes that share a folder."""
    if folder:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        mark = os.path.join(folder, f"warned-{zlib.crc32(message.encode()):08x}")
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    print(f"warning: {message}", file=sys.stderr, flush=True)
