"""The memory for images that one process may use, shared by all event loops in it."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import threading


class MemoryBudget:
    """Bytes, granted in the order in which they are requested, so that large images do not starve."""

    def __init__(self, length: int):
        self.length = self._free = length
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[int, concurrent.futures.Future[None]]] = collections.deque()

    def acquire(self, length: int) -> concurrent.futures.Future[None] | None:
        """Returns None if the bytes are free, else a future that is done once they were acquired."""
        with self._lock:
            if not self._waiting and length <= self._free:
                self._free -= length
                return None
            granted: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._waiting.append((length, granted))
            return granted

    def release(self, length: int) -> None:
        with self._lock:
            self._free += length
            while self._waiting and self._waiting[0][0] <= self._free:
                granted_length, granted = self._waiting.popleft()
                if granted.set_running_or_notify_cancel():
                    self._free -= granted_length
                    granted.set_result(None)


_of_process = functools.cache(MemoryBudget)


class MemoryLease:
    """The bytes of a budget that one event loop holds."""

    def __init__(self, budget: MemoryBudget):
        self._budget = budget
        self.held = 0

    def at_most(self, length: int) -> int:
        """`length`, or the whole budget if that is less."""
        return min(length, self._budget.length)

    async def acquire(self, length: int) -> int:
        """Waits for `at_most(length)` bytes. Returns how many, for the caller to release."""
        length = self.at_most(length)
        if granted := self._budget.acquire(length):
            try:
                await asyncio.wrap_future(granted)
            except asyncio.CancelledError:
                if granted.done() and not granted.cancelled():  # granted just before the cancellation
                    self._budget.release(length)
                raise
        self.held += length
        return length

    def release(self, length: int) -> None:
        self.held -= length
        self._budget.release(length)


def memory_lease(length: int) -> MemoryLease:
    """A lease of this process's budget of `length` bytes."""
    return MemoryLease(_of_process(length))
