"""Connection slots, which a download gives to others while its host is silent."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

SILENT_AFTER_S = 1.0
MAX_SILENT = 1_024  # downloads without a slot, each with a connection; at most a quarter of the files allowed


class SilentDownloads:
    """The number of downloads of one event loop that wait without a slot."""

    def __init__(self) -> None:
        self.number = 0
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.limit = MAX_SILENT if files == resource.RLIM_INFINITY else min(MAX_SILENT, files // 4)


class ActiveRows:
    """The number of a unit's rows that are neither done nor resting while their host is silent."""

    def __init__(self, number: int = 1):
        self.number = number

    def done(self) -> None:
        """Counts a row that needs no further request."""
        self.number -= 1

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        self.number -= 1
        try:
            yield
        finally:
            self.number += 1


class Activity:
    """What a unit does, as another thread sees it."""

    def __init__(self) -> None:
        self._count: Callable[[], int] | None = None

    def begin(self, count: Callable[[], int]) -> None:
        """Sets how to count the rows that take, or wait for, a connection; until then, all of a unit's rows do."""
        self._count = count

    @property
    def busy_rows(self) -> int:
        return self._count() if self._count else sys.maxsize


class Slot:
    """A slot that was acquired. Others get it after SILENT_AFTER_S, until `take_back`."""

    def __init__(self, slots: asyncio.Semaphore, silent: SilentDownloads):
        self._slots, self._silent = slots, silent
        self._is_given = False
        self.waited_s = 0.0  # to have it back
        self._timer = asyncio.get_running_loop().call_later(SILENT_AFTER_S, self._give)

    def _give(self) -> None:
        if self._silent.number < self._silent.limit:
            self._silent.number += 1
            self._is_given = True
            self._slots.release()

    async def take_back(self) -> None:
        """Keeps the slot from now on, since the host has answered."""
        self._timer.cancel()
        if self._is_given:
            started = time.monotonic()
            await self._slots.acquire()
            self._is_given = False
            self._silent.number -= 1
            self.waited_s += time.monotonic() - started

    def end(self, is_kept: bool) -> None:
        """Ends a request. Its slot is released, unless a body keeps it."""
        self._timer.cancel()
        if self._is_given:
            self._is_given = False
            self._silent.number -= 1
        elif not is_kept:
            self._slots.release()
