"""What downloads cost this process: bytes and seconds, from the threads where they arise to who counts them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

from pipeline.output.counts import BYTES, DECODE_S, Counts


class Costs:
    """Amounts by their names in SLOTS that no counts have yet. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: Counter[str] = Counter()

    def add(self, name: str, amount: float) -> None:
        with self._lock:
            self._amounts[name] += amount  # type: ignore[assignment]  # seconds are no integers

    def downloaded(self, size: int) -> None:
        """Adds bytes of a body, of an image or of what turned out to be none."""
        self.add(BYTES, size)

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Adds the seconds of the block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(DECODE_S, time.perf_counter() - started)

    def count(self, counts: Counts) -> None:
        """Moves all amounts to the counts of a job."""
        with self._lock:
            amounts, self._amounts = self._amounts, Counter()
        counts.add(amounts)


costs = Costs()
"""Of this process."""
