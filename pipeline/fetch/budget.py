"""What the event loops of one process share: the memory for images, the connections to a group of hosts."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import threading

from pipeline.fetch.per_process import per_process


class Budget:
    """Bytes or slots, granted in the order in which they are requested, so that large requests do not starve."""

    def __init__(self, length: int):
        self.length = self._free = length
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[int, concurrent.futures.Future[None]]] = collections.deque()

    def acquire(self, length: int) -> concurrent.futures.Future[None] | None:
        """Returns None if so many are free, else a future that is done once they were acquired."""
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


class BudgetLease:
    """What one event loop holds of a budget. Any thread may release a part of it."""

    def __init__(self, budget: Budget):
        self._budget = budget
        self._lock = threading.Lock()
        self._is_closed = False
        self.held = 0

    def at_most(self, length: int) -> int:
        """`length`, or the whole budget if that is less."""
        return min(length, self._budget.length)

    async def acquire(self, length: int) -> int:
        """Waits for `at_most(length)`. Returns how many, for the caller to release."""
        length = self.at_most(length)
        if granted := self._budget.acquire(length):
            try:
                await asyncio.wrap_future(granted)
            except asyncio.CancelledError:
                if granted.done() and not granted.cancelled():  # granted just before the cancellation
                    self._budget.release(length)
                raise
        with self._lock:
            self.held += length
        return length

    def release(self, length: int) -> None:
        with self._lock:
            if self._is_closed:
                return
            self.held -= length
        self._budget.release(length)

    def close(self) -> None:
        """Releases all that is held, once and for all. To be called when the event loop has ended."""
        with self._lock:
            held, self.held, self._is_closed = self.held, 0, True
        self._budget.release(held)


_memory_of_process = per_process(Budget)


def memory_lease(length: int) -> BudgetLease:
    """A lease of the `length` bytes that the images of this process may take."""
    return BudgetLease(_memory_of_process(length))
