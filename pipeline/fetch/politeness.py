"""Limits of requests to a host: connections, rate, pauses that it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import math
import os
import random
import struct
import threading
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Callable, Sequence

from pipeline.fetch.budget import Budget, BudgetLease
from pipeline.fetch.dead_hosts import POLL_S, HostHealth
from pipeline.fetch.retry import BACK_OFF_S, MAX_BACK_OFF_S, FetchFailed
from pipeline.fetch.shared_folder import open_shared, own_folder
from pipeline.fetch.slots import ActiveRows
from pipeline.records import Reason
from pipeline.sources.hosts import HostLimits

NAMES_PER_GROUP = 4  # whose limits the names of one address, or of one registrable domain, have together
_POLL_S = 0.05  # interval at which a process checks whether another one has released a slot


class HostLimiter:
    """Keeps to a host's limits in one event loop and, with `shared`, in all processes that share the host's files.

    While the host is silent, its rows rest; once it is given up, or asks for a long pause, they fail at once, and a
    later run tries them again.
    """

    def __init__(
        self,
        health: HostHealth,
        limits: HostLimits,
        rows: ActiveRows,
        attempt_s: float,
        shared: SharedHost | None = None,
    ):
        self._health, self._limits, self._rows, self._attempt_s = health, limits, rows, attempt_s
        self._slots = asyncio.Semaphore(limits.connections)
        self._shared = shared
        self._clock = self._shared or _RequestClock()
        self._watch = asyncio.Lock()

    @property
    def has_answered(self) -> bool:
        """Whether the host has answered lately: until it has, silence is no failure of the row that was asked for."""
        return self._health.has_answered

    @property
    def timeout_s(self) -> float:
        """Seconds from the start of a request until the host must have sent a byte."""
        return self._health.timeout_s(self._attempt_s)

    async def ready(self) -> None:
        """Waits while the host's rows rest. Raises HostGivenUp."""
        self._health.check()
        if not self._health.may_ask:
            with self._rows.resting():
                async with self._watch:  # one row polls, for all
                    while not self._health.may_ask:
                        await asyncio.sleep(POLL_S)
                        self._health.check()

    @contextlib.asynccontextmanager
    async def slot(self, groups: Sequence[GroupLimiter], connections: asyncio.Semaphore) -> AsyncIterator[None]:
        """Waits until a request to the host may start: its domain's limits and its address's are `groups`. Acquires one
        of `connections`, for the caller to release; none is held while waiting, so that no host blocks another."""
        while True:
            await self.ready()
            async with self._slots:
                if held := await self._start(groups, connections):
                    try:
                        yield
                    finally:
                        held.close()
                    return

    async def _start(
        self, groups: Sequence[GroupLimiter], connections: asyncio.Semaphore
    ) -> contextlib.ExitStack | None:
        """What a request holds once it may start; None if the host rests, or was given up, in the meantime."""
        while self._health.may_ask:
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
            if not self._health.may_ask:
                return _POLL_S
            if (wait_s := max(group.wait_s() for group in groups)) > 0:
                return wait_s
            if self._shared and not self._shared.try_acquire_slot(self._limits.connections, held):
                return random.uniform(0.5, 1.5) * _POLL_S
            if (wait_s := self._claim_start()) > 0:
                return wait_s
            if not self._health.claim_request(self._attempt_s):
                return _POLL_S
            for group in groups:
                group.count_start()
            return 0.0

    def _claim_start(self) -> float:
        """Seconds until the next request may start; 0 or less if it may start now, and then counts as started."""
        now, interval_s = time.monotonic(), 1 / self._limits.rate
        return self._clock.move(lambda start: now + interval_s if start <= now else start) - now

    def count_bytes(self, length: int) -> None:
        """Delays the next request where the host limits bytes per second."""
        if self._limits.bytes_per_s < math.inf:
            now, seconds = time.monotonic(), length / self._limits.bytes_per_s
            self._clock.move(lambda start: max(start, now) + seconds)

    def answered(self, took_s: float) -> None:
        self._health.answered(took_s)

    def failed(self, failure: FetchFailed, started: float) -> None:
        """Counts an attempt, which started at a time, without a response, or one that asks for a pause, and delays or
        stops requests."""
        if asks_for_pause(failure):
            until = time.monotonic() + min(failure.retry_after_s or BACK_OFF_S, MAX_BACK_OFF_S)
            self._clock.move(lambda start: max(start, until))
        self._health.failed(failure, started)


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
        self._slots = BudgetLease(self._group.slots)
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


class _RequestClock:
    """The time at which the next request to a host may start, on time.monotonic()."""

    def __init__(self) -> None:
        self._start = 0.0

    def move(self, change: Callable[[float], float]) -> float:
        """Replaces the time by `change(time)`. Returns the time before."""
        before, self._start = self._start, change(self._start)
        return before


class SharedHost:
    """Slots and clock of one host, as locked bytes of a file: the kernel frees what a killed process held. A process
    has one for each host, since its own locks do not keep it out."""

    def __init__(self, folder: str, number: int):
        self._file = _hosts_file(own_folder(folder))
        self._clock, self._slots = number * _CLOCK.size, (number + 1) * _MAX_SLOTS
        self._held: set[int] = set()  # slots

    def try_acquire_slot(self, slots: int, held: contextlib.ExitStack) -> bool:
        first = random.randrange(slots)  # random, so that processes try slots in different orders
        for number in (*range(first, slots), *range(first)):
            if number in self._held:
                continue
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._slots + number)
            except (BlockingIOError, PermissionError):  # POSIX allows either
                continue
            self._held.add(number)
            held.callback(self._release_slot, number)
            return True
        return False

    def _release_slot(self, number: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._slots + number)
        self._held.discard(number)

    def move(self, change: Callable[[float], float]) -> float:
        with _moving:  # one of this process's threads; and with one lock at a time, none can wait for another
            fcntl.lockf(self._file, fcntl.LOCK_EX, _CLOCK.size, self._clock)  # for some microseconds
            try:
                [before] = _CLOCK.unpack(os.pread(self._file, _CLOCK.size, self._clock).ljust(_CLOCK.size, b"\0"))
                if (after := change(before)) != before:
                    os.pwrite(self._file, _CLOCK.pack(after), self._clock)
                return before
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _CLOCK.size, self._clock)


_SHARED_HOSTS = 1 << 16  # hosts whose hashes collide share their limits
_CLOCK = struct.Struct("d")
_MAX_SLOTS = 1 << 20
_moving = threading.Lock()
_shared_hosts: weakref.WeakValueDictionary[tuple[str, int], SharedHost] = weakref.WeakValueDictionary()
_finding_hosts = threading.Lock()


@functools.cache
def _hosts_file(folder: str) -> int:
    """The file of all hosts, open for as long as this process runs: closing it would free all of its locks. It begins
    with the clocks; the bytes that stand for slots lie behind its end, where they can be locked all the same."""
    return open_shared(os.path.join(folder, "hosts"))


def shared_host(host: str, folder: str) -> SharedHost | None:
    """What workers with the same folder share of a host's limits; None without a folder."""
    if not folder:
        return None
    number = zlib.crc32(host.encode()) % _SHARED_HOSTS
    with _finding_hosts:
        return _shared_hosts.setdefault((folder, number), SharedHost(folder, number))
