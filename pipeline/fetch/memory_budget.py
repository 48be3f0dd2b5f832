"""The memory for pictures that one process may use, taken by all event loops in it."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import threading


class MemoryBudget:
    """Bytes, handed out in the order in which they are asked for: large pictures do not starve."""

    def __init__(self, length: int):
        self.length = self._free = length
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[int, concurrent.futures.Future[None]]] = collections.deque()

    def take(self, length: int) -> concurrent.futures.Future[None] | None:
        """None if the bytes are there, else what is done once they are."""
        with self._lock:
            if not self._waiting and length <= self._free:
                self._free -= length
                return None
            turn: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._waiting.append((length, turn))
            return turn

    def give(self, length: int) -> None:
        with self._lock:
            self._free += length
            while self._waiting and self._waiting[0][0] <= self._free:
                wanted, turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    self._free -= wanted
                    turn.set_result(None)


_of_process = functools.cache(MemoryBudget)


class MemoryLease:
    """What one event loop holds of it."""

    def __init__(self, memory: MemoryBudget):
        self._memory = memory
        self.held = 0

    def at_most(self, length: int) -> int:
        """So many bytes, or all that there are if that is less."""
        return min(length, self._memory.length)

    async def take(self, length: int) -> int:
        """Waits for `at_most` as many bytes. Returns how many, which are to be given back."""
        length = self.at_most(length)
        if turn := self._memory.take(length):
            try:
                await asyncio.wrap_future(turn)
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # they came in the same moment
                    self._memory.give(length)
                raise
        self.held += length
        return length

    def give(self, length: int) -> None:
        self.held -= length
        self._memory.give(length)


def memory_lease(length: int) -> MemoryLease:
    """A share of this process's memory of so many bytes."""
    return MemoryLease(_of_process(length))
