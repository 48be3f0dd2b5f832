"""Units that a process fetches at once: while the last rows of one wait for slow or silent hosts, the next begins."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pipeline.fetch.slots import Activity

MAX_UNITS = 8  # each with a temporary file of its images
POLL_S = 0.1
T = TypeVar("T")


class UnitsInFlight(Generic[T]):
    """Runs each unit in a thread of its own."""

    def __init__(self, connections: int):
        self._busy_rows = connections // 2  # or more: the connections are in use, and another unit would wait
        self._running: dict[concurrent.futures.Future[T], Activity] = {}

    def start(self, fetch: Callable[[Activity], T]) -> Iterator[T]:
        """Starts a unit. Yields the results of finished units until another one may start. Raises what a unit has
        raised."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._running[done] = activity = Activity()
        # A daemon: where one unit has ended the job, nobody waits for the others.
        threading.Thread(target=_run, args=(fetch, activity, done), name="unit", daemon=True).start()
        while not self._may_start():
            yield from self._results(POLL_S)

    def _may_start(self) -> bool:
        busy = sum(activity.busy_rows for activity in self._running.values())
        return not self._running or (len(self._running) < MAX_UNITS and busy < self._busy_rows)

    def finish(self) -> Iterator[T]:
        """Yields the results of the units that are left."""
        while self._running:
            yield from self._results(None)

    def _results(self, timeout_s: float | None) -> Iterator[T]:
        for unit in concurrent.futures.wait(self._running, timeout_s, concurrent.futures.FIRST_COMPLETED).done:
            del self._running[unit]
            yield unit.result()


def _run(fetch: Callable[[Activity], T], activity: Activity, done: concurrent.futures.Future[T]) -> None:
    try:
        done.set_result(fetch(activity))
    except BaseException as error:
        done.set_exception(error)
