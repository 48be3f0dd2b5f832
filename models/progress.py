"""The progress line that every long command shows, in one form:

    COMMAND: STAGE: DONE/TOTAL UNIT (SHARE), RATE UNIT/s, TIME left; DETAIL

It is written to stderr. On a terminal it is rewritten in place; in a log it is a line every LOG_INTERVAL_S seconds and
one at the end. Commands that end within MIN_SHOWN_S seconds show nothing, unless they ask for it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, TextIO, TypeVar

from tqdm import tqdm

TERMINAL_INTERVAL_S = 0.5
LOG_INTERVAL_S = 30.0
MIN_SHOWN_S = 2.0
DEFAULT_COLUMNS = 80  # of a terminal that does not tell its width

T = TypeVar("T")


class Progress(NamedTuple):
    """How far one stage of a command is."""

    done: int  # of `unit`; those of an interrupted run included
    unit: str  # plural
    total: int | None = None  # None: unknown
    stage: str = ""  # "" if the command has only one
    before: int = 0  # of `done`, those of an interrupted run: they are not in the rate
    share: float | None = None  # 0 to 1, of the work; None: done / total
    share_before: float | None = None  # of the work, by an interrupted run; None: before / total
    detail: str = ""

    def shares(self) -> tuple[float, float] | None:
        """The shares of the work that are done and that an interrupted run did; None if the total is unknown."""
        if self.share is not None:
            return self.share, self.share_before or 0.0
        if self.total:
            return self.done / self.total, self.before / self.total
        return None


class ProgressLine:
    """Context manager that shows progress. One for each command, used from one thread."""

    def __init__(self, command: str, min_shown_s: float = MIN_SHOWN_S):
        """A command that ends within `min_shown_s` seconds writes no last line."""
        self._command, self._min_shown_s = command, min_shown_s
        self._is_terminal = sys.stderr.isatty()
        self._interval_s = TERMINAL_INTERVAL_S if self._is_terminal else LOG_INTERVAL_S
        self._started = self._last_call = self._stage_started = self._shown = time.monotonic()
        self._last: Progress | None = None
        self._bar: _TerminalLine | None = None
        self._lines = 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        now = time.monotonic()
        if kind is None and self._last and (self._lines or now - self._started >= self._min_shown_s):
            self._write(self._text(self._last, now, ended=True))
        if self._bar is not None:
            self._bar.close()  # moves to the next line

    def is_due(self) -> bool:
        """Whether the next `show` writes; for callers whose numbers are expensive."""
        return time.monotonic() - self._shown >= self._interval_s

    def show(self, progress: Progress, now: bool = False) -> None:
        """Remembers the progress, and writes it if the last line is old enough, or `now`: before a long silence."""
        called = time.monotonic()
        if self._last is None or progress.stage != self._last.stage:
            self._stage_started = self._last_call  # it started between that call and this one
        self._last, self._last_call = progress, called
        if now or called - self._shown >= self._interval_s:
            self._shown = called
            self._write(self._text(progress, called))

    def _text(self, progress: Progress, now: float, ended: bool = False) -> str:
        stage = progress.stage if progress.stage != self._command else ""
        name = ": ".join(filter(None, (self._command, stage, _amount(progress))))
        parts = [name, *_rate(progress, now - self._stage_started)]
        if ended:
            parts.append(f"took {tqdm.format_interval(now - self._started)}")
        elif (left_s := _left_s(progress, now - self._stage_started)) is not None:
            parts.append(f"{tqdm.format_interval(left_s)} left")
        elif not progress.total:
            parts.append(tqdm.format_interval(now - self._stage_started))
        return ", ".join(parts) + f"; {progress.detail}" * bool(progress.detail)

    def _write(self, text: str) -> None:
        self._lines += 1
        if not self._is_terminal:
            print(text, file=sys.stderr, flush=True)
        elif self._bar is None:
            self._bar = _TerminalLine(text)
        else:
            self._bar.set_description_str(text)


class _TerminalLine(tqdm):
    """A line that tqdm rewrites in place and cuts to the terminal's width."""

    monitor_interval = 0  # no thread of its own

    def __init__(self, text: str):
        # tqdm itself shows nothing on a terminal that does not tell its size.
        super().__init__(desc=text, bar_format="{desc}", file=sys.stderr, ncols=DEFAULT_COLUMNS, nrows=2)

    @property
    def format_dict(self) -> dict[str, Any]:
        return super().format_dict | {"ncols": _columns() - 1}  # in the last one, some terminals start a new line


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or DEFAULT_COLUMNS
    except OSError:
        return DEFAULT_COLUMNS


_TerminalLine.set_lock(threading.RLock())  # tqdm's own would be shared with other processes


def print_above(text: str, file: TextIO | None = None) -> None:
    """Prints a line of a command's results, to stdout if not to `file`, above its progress line on a terminal."""
    _TerminalLine.write(text, file=file or sys.stdout)
    (file or sys.stdout).flush()


def _amount(progress: Progress) -> str:
    if not progress.unit:
        return ""
    total = f"/{progress.total:,}" if progress.total is not None else ""
    shares = progress.shares()
    share = f" ({math.floor(100 * min(shares[0], 1.0))}%)" if shares else ""
    return f"{progress.done:,}{total} {progress.unit}{share}"


def _rate(progress: Progress, seconds: float) -> list[str]:
    fresh = progress.done - progress.before
    if fresh <= 0 or seconds <= 0:
        return []
    rate = fresh / seconds
    return [f"{rate:,.0f} {progress.unit}/s" if rate >= 100 else f"{rate:.3g} {progress.unit}/s"]


def _left_s(progress: Progress, seconds: float) -> float | None:
    """Seconds left at the mean speed of the stage; None while it is unknown."""
    shares = progress.shares()
    if shares is None or shares[0] <= shares[1] or seconds <= 0:
        return None
    return max(0.0, 1 - shares[0]) * seconds / (shares[0] - shares[1])


def track(items: Iterable[T], command: str, unit: str, total: int) -> Iterator[T]:
    """Yields the items, and shows how many of them were reached."""
    with ProgressLine(command) as line:
        for done, item in enumerate(items, 1):
            line.show(Progress(done, unit, total))
            yield item
