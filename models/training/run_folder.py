"""Keeps a run's folder to one process, and ends a run that the system asks to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from models.errors import UserError
from models.files import take_lock

LOCK_FILE = "lock"  # of a folder while a run writes there
TERMINATED_STATUS = 128 + signal.SIGTERM  # as a shell reports a process that the signal has ended


class TerminatedError(Exception):
    """SIGTERM has stopped a run; the message says what a user can count on."""


class TerminationSignal:
    """Context manager: inside it, SIGTERM only sets `received`, so that an update ends and a checkpoint is written."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> TerminationSignal:
        # Threads other than the main one cannot set handlers; then the signal ends the process as always.
        self._previous = signal.signal(signal.SIGTERM, self._set) if _in_main_thread() else None
        return self

    def __exit__(self, *exception: object) -> None:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, self._previous)

    def _set(self, *_: object) -> None:
        self.received = True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def terminated(step: int, saved: bool) -> TerminatedError:
    """The error that ends a run after update `step`."""
    where = f"after step {step:,}" if saved else f"after step {step:,}, whose weights are not good enough to be kept"
    last = "there" if saved else "the last checkpoint"
    return TerminatedError(f"stopped by SIGTERM {where}; the same command with --resume continues from {last}")


def report_termination(error: TerminatedError) -> int:
    """Prints the line of a command that SIGTERM has stopped, once for all processes of torchrun; returns its status."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"pairmill: {error}", file=sys.stderr)
    return TERMINATED_STATUS


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds the folder for this process. Raises UserError if another run writes there."""
    path = folder / LOCK_FILE
    if (file := take_lock(path)) is None:
        raise UserError(f"--output {folder}: another run is writing there; wait for its end, or choose another folder")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
