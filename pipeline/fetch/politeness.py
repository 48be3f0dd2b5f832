"""Limits of requests to a host: connections, rate, back-off, and when to stop asking it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import random
import struct
import threading
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Sequence

from pipeline.fetch.budget import Budget, Lease
from pipeline.fetch.dead_hosts import HostMemory
from pipeline.fetch.retry import BACK_OFF_S, MAX_BACK_OFF_S, FetchFailed, HostGivenUp
from pipeline.fetch.shared_folder import open_shared, own_folder
from pipeline.records import Reason
from pipeline.sources.hosts import HostLimits

MAX_CONSECUTIVE_FAILURES = 10  # failed attempts in a row after which a host counts as dead
MEMORY_S, SHORT_MEMORY_S = 3600.0, 60.0  # for which that counts in later units; of a host that has answered before
UNKNOWN_NAME = "no name server knows the name"
NAMES_PER_GROUP = 4  # whose limits the names of one address, or of one registrable domain, have together
_POLL_S = 0.05  # interval at which a process checks whether another one has released a slot
_HOST_FILES = 1 << 16  # in the shared folder; hosts whose hashes collide share their limits


class HostLimiter:
    """Keeps to a host's limits in one event loop and, with `shared`, in all processes that share the host's files.

    Closes once the host no longer responds or asks for a long pause: further requests to it then fail at once, and a
    later run tries them again. While a host is silent, its other rows rest.
    """

    def __init__(
        self,
        host: str,
        limits: HostLimits,
        rest: Rest,
        memory: HostMemory,
        shared: SharedHost | None = None,
    ):
        self._host, self._limits, self._rest, self._memory = host, limits, rest, memory
        self._slots = asyncio.Semaphore(limits.connections)
        self._shared = shared
        self._clock = self._shared or _RequestClock()
        self._failures = 0  # in a row
        self._is_silent = False  # at the last of them
        self._is_known = memory.has_answered(host)  # lately, in this process
        self._awake = asyncio.Event()  # ends the rest of its rows
        self._scout = asyncio.Lock()  # then one row asks for all
        self._closed: tuple[Reason, str] | None = None
        if reason := memory.recall(host):
            # A name that does not exist is told of in the same words, whichever process has asked for it.
            self._closed = reason, UNKNOWN_NAME if reason is Reason.DNS else f"{host} has been given up for a while"

    async def ready(self) -> None:
        """Waits while the host's rows rest. Raises HostGivenUp."""
        self._check_closed()
        if self._is_resting:
            await self._rest.wait(self._awake)
            self._check_closed()

    @property
    def _is_resting(self) -> bool:
        enough = MAX_CONSECUTIVE_FAILURES if self._is_known else 1  # one timeout of a host that answers means nothing
        return self._is_silent and self._failures >= enough and not self._rest.is_over

    @property
    def is_asked_last(self) -> bool:
        """Whether the next request decides if the host, which was silent and has never answered, is given up."""
        return self._is_silent and not self._is_known and self._rest.is_over

    def _check_closed(self) -> None:
        if self._closed:
            reason, detail = self._closed
            raise HostGivenUp(reason, detail, final=True)

    @contextlib.asynccontextmanager
    async def slot(self, groups: Sequence[GroupLimiter], connections: asyncio.Semaphore) -> AsyncIterator[None]:
        """Waits until a request to the host may start: its domain's limits and its address's are `groups`. Acquires one
        of `connections`, for the caller to release; none is held while waiting, so that no host blocks another."""
        while True:
            await self.ready()
            async with self._slots, self._scout if self._is_silent else contextlib.nullcontext():
                if held := await self._start(groups, connections):
                    try:
                        yield
                    finally:
                        held.close()
                    return

    async def _start(
        self, groups: Sequence[GroupLimiter], connections: asyncio.Semaphore
    ) -> contextlib.ExitStack | None:
        """What a request holds once it may start; None if the host has fallen silent in the meantime."""
        while not self._is_resting:
            self._check_closed()
            with contextlib.ExitStack() as held:
                for group in groups:
                    await group.acquire(held)
                await connections.acquire()
                if (wait_s := self._claim(groups, held)) <= 0:
                    return held.pop_all()
            connections.release()
            await asyncio.sleep(wait_s)
        return None

    def _claim(self, groups: Sequence[GroupLimiter], held: contextlib.ExitStack) -> float:
        """Seconds until a request may start; 0 or less if it may start now, and then counts as started."""
        with _claiming:  # between the question and the count, no other unit's request may start
            if (wait_s := max(group.wait_s() for group in groups)) > 0:
                return wait_s
            if self._shared and not self._shared.try_acquire_slot(self._limits.connections, held):
                return random.uniform(0.5, 1.5) * _POLL_S
            if (wait_s := self._claim_start()) <= 0:
                for group in groups:
                    group.count_start()
            return wait_s

    def _claim_start(self) -> float:
        """Seconds until the next request may start; 0 or less if it may start now, and then counts as started."""
        now, interval_s = time.monotonic(), 1 / self._limits.rate
        return self._clock.move(lambda start: now + interval_s if start <= now else start) - now

    def answered(self) -> None:
        self._failures = 0
        if self._is_silent:
            self._is_silent = False
            self._awake.set()
            self._awake = asyncio.Event()
        if not self._is_known:
            self._is_known = True
            self._memory.note_answer(self._host)

    def count_bytes(self, length: int) -> None:
        """Delays the next request where the host limits bytes per second."""
        if self._limits.bytes_per_s < math.inf:
            now, seconds = time.monotonic(), length / self._limits.bytes_per_s
            self._clock.move(lambda start: max(start, now) + seconds)

    def failed(self, failure: FetchFailed) -> None:
        """Counts an attempt without a response, or one that asks for a pause, and delays or stops requests."""
        self._failures += 1
        self._is_silent = failure.silent
        wait_s = failure.retry_after_s or 0.0
        if asks_for_pause(failure):
            until = time.monotonic() + min(wait_s or BACK_OFF_S, MAX_BACK_OFF_S)
            self._clock.move(lambda start: max(start, until))
        if wait_s > MAX_BACK_OFF_S:
            self._close(failure.reason, f"{self._host} asks for {wait_s:.0f} s without requests", wait_s)
        elif self.is_asked_last:
            self._close(failure.reason, f"{self._host} is silent, at the end of the unit as well", MEMORY_S)
        elif failure.reason is Reason.DNS and failure.final:
            self._close(failure.reason, failure.detail, MEMORY_S)
        elif self._failures >= MAX_CONSECUTIVE_FAILURES:
            self._close(failure.reason, f"given up on {self._host} after {self._failures} failures in a row", MEMORY_S)

    def _close(self, reason: Reason, detail: str, for_s: float) -> None:
        self._closed = reason, detail
        self._memory.learn(self._host, reason, min(for_s, MEMORY_S))


def asks_for_pause(failure: FetchFailed) -> bool:
    """Whether a response asks for fewer requests: status 429, or any other with Retry-After."""
    return failure.reason is Reason.HTTP_429 or failure.retry_after_s is not None


_claiming = threading.Lock()  # of the requests of all units of this process, for some microseconds


class _Group:
    """An address or a registrable domain, for all units of this process."""

    def __init__(self, limits: HostLimits):
        self.slots = Budget(NAMES_PER_GROUP * limits.connections)
        self.interval_s = 1 / (NAMES_PER_GROUP * limits.rate)
        self.next = 0.0  # on time.monotonic(): when a request may start


_groups: weakref.WeakValueDictionary[tuple[bytes | str, HostLimits], _Group] = weakref.WeakValueDictionary()
_finding_groups = threading.Lock()


class GroupLimiter:
    """Keeps to the limits of an address or a registrable domain, however many names it has: one event loop's share of
    what all units of a process keep to."""

    def __init__(self, key: bytes | str, limits: HostLimits):
        with _finding_groups:
            self._group = _groups.setdefault((key, limits), _Group(limits))
        self._slots = Lease(self._group.slots)
        self._turn = asyncio.Lock()  # of the request that starts next

    async def acquire(self, held: contextlib.ExitStack) -> None:
        """Waits for one of the group's slots, which the stack releases, and for the time at which a request may start.

        One request at a time waits for the latter: if all did, each start would wake the requests of every name.
        """
        held.callback(self._slots.release, await self._slots.acquire(1))
        async with self._turn:
            while (wait_s := self.wait_s()) > 0:
                await asyncio.sleep(wait_s)

    def wait_s(self) -> float:
        """Seconds until a request may start; 0 or less if it may start now."""
        return self._group.next - time.monotonic()

    def count_start(self) -> None:
        self._group.next = time.monotonic() + self._group.interval_s


class Rest:
    """Where rows wait whose hosts are silent, until the other rows of their unit are done."""

    def __init__(self, rows: int = 1):
        self.active = rows
        self._waiting: set[asyncio.Event] = set()  # one for each host
        self.is_over = False

    async def wait(self, awake: asyncio.Event) -> None:
        """Waits until the other rows are done, or until the row's host is awake."""
        self._waiting.add(awake)
        self.done()
        try:
            await awake.wait()
        finally:
            self.active += 1

    def done(self) -> None:
        """Counts a row that needs no further request."""
        self.active -= 1
        if self.active <= 0:
            self.is_over = True
            for awake in self._waiting:
                awake.set()


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
        self._path = os.path.join(own_folder(folder), f"{zlib.crc32(host.encode()) % _HOST_FILES:04x}")
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
        return open_shared(f"{self._path}.{name}")


def shared_host(host: str, folder: str) -> SharedHost | None:
    """The files by which workers with the same folder share a host's limits; None without a folder."""
    return SharedHost(folder, host) if folder else None
