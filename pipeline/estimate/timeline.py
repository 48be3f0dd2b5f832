"""What a job did when: the counts of its processes, looked at several times a second while it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import NamedTuple

import numpy as np

from pipeline.output.counts import BYTES, PLACE, Step, counts_folder, sum_of_files

INTERVAL_S = 0.1
STEADY = 0.9
"""Share of a step's rows after which only its slowest are left, such as hosts that do not answer."""
MIN_STEADY_ROWS = 20
WINDOWS = 8


class StepTime(NamedTuple):
    """How long a step took: `seconds` = `rows` x `seconds_per_row` + `tail_s`."""

    rows: int
    seconds: float
    seconds_per_row: float  # while all workers were busy
    tail_s: float  # waiting for the last rows
    rates: np.ndarray  # rows/s in windows of the steady time
    downloaded: np.ndarray  # [windows, 2]: rows, and bytes that were downloaded for them

    @property
    def downloads(self) -> bool:
        return bool(self.downloaded[:, 1].sum())


class Timeline:
    """Context manager that records the counts of an output while its job runs on this machine."""

    def __init__(self, output: str):
        self._folder = counts_folder(output) or ""
        self._moments: list[tuple[float, np.ndarray]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)

    def __enter__(self) -> Timeline:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self.seconds = time.monotonic() - self.started
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            with contextlib.suppress(FileNotFoundError):  # a process's file that is deleted at the job's end
                self._note(time.monotonic(), np.array(sum_of_files(self._folder)))

    def _note(self, now: float, counts: np.ndarray) -> None:
        if counts.sum() and (not self._moments or (counts != self._moments[-1][1]).any()):
            self._moments.append((now, counts))

    def step(self, step: Step) -> StepTime | None:
        """None for a step that the job does not have, or that was done at once."""
        times = np.array([moment for moment, _ in self._moments])
        rows, size = (
            np.array([counts[PLACE[name]] for _, counts in self._moments]) for name in (f"{step.name} done", BYTES)
        )
        if not len(times) or not rows.any():
            return None
        first = int(np.argmax(rows > 0))
        end = int(np.argmax(rows == rows.max())) + 1
        began = times[first - 1] if first else max(self.started, times[first] - INTERVAL_S)
        return step_time(
            np.concatenate([[began], times[first:end]]) - began,
            np.concatenate([[0], rows[first:end]]),
            np.concatenate([[size[first - 1] if first else 0], size[first:end]]),
        )


def step_time(times: np.ndarray, rows: np.ndarray, size: np.ndarray) -> StepTime:
    """From moments [T]: seconds since the step's beginning, rows done until then, bytes downloaded until then."""
    number, seconds = int(rows[-1]), float(times[-1])
    steady = int(np.argmax(rows >= STEADY * number)) if number >= MIN_STEADY_ROWS else len(rows) - 1
    per_row = float(times[steady] / rows[steady])
    at = np.linspace(0, times[steady], 1 + min(WINDOWS, steady))
    window_s = np.diff(at)
    rates = np.diff(np.interp(at, times, rows)) / np.where(window_s > 0, window_s, 1)
    windows = np.unique(np.linspace(0, len(rows) - 1, 1 + 4 * WINDOWS).astype(int))
    downloaded = np.stack([np.diff(rows[windows]), np.diff(size[windows])], axis=1)
    return StepTime(
        rows=number,
        seconds=seconds,
        seconds_per_row=per_row,
        tail_s=seconds - per_row * number,
        rates=rates,
        downloaded=downloaded,
    )
