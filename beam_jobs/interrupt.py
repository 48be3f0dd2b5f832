"""Ctrl-C on the local runner: ends the job and its workers at once, with one line on how to continue."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

POLL_INTERVAL_S = 0.05


@contextlib.contextmanager
def exit_on_interrupt(job: str) -> Iterator[None]:
    """While the block runs, Ctrl-C ends this process and its workers with status 130.

    Without it, the runner's threads would wait for workers that have ended. The signal may reach any thread: it is
    blocked in this thread and those it starts, one thread waits for it, and a handler serves the older ones. No
    clean-up is needed: files are written atomically, and the next run removes what was left.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "sigtimedwait"):
        yield  # another thread's to handle, or a system without the call
        return
    is_over = threading.Event()
    handler = signal.signal(signal.SIGINT, lambda *_: _end(job))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    watcher = threading.Thread(target=_watch, args=(job, is_over), name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)


def _watch(job: str, is_over: threading.Event) -> None:
    while not is_over.is_set():
        if signal.sigtimedwait({signal.SIGINT}, POLL_INTERVAL_S):
            _end(job)


def _end(job: str) -> None:
    print(f"pairmill: {job} interrupted; the same command continues where it stopped", file=sys.stderr, flush=True)
    for child in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    os._exit(130)


def _descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs; empty without /proc."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the process has ended
            for child in map(int, path.read_text().split()):
                found += [child, *_descendants(child)]
    return found
