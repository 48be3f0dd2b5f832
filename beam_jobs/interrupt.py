"""Ctrl-C on the local runner: ends the job and its workers at once, with one line on how to continue."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exit_on_interrupt(job: str, note: str) -> Iterator[None]:
    """While the block runs, Ctrl-C ends this process and its workers with status 130, and a line with `note`.

    Left alone, the runner's threads would go on waiting for workers that are gone. Whichever thread the signal reaches,
    Python's own handler writes its number into a socket; the thread that reads there acts, since the main thread may be
    waiting for a lock. Nothing has to be tidied: files appear atomically, and the next run removes what was left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, job, note), name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, handler)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, job: str, note: str) -> None:
    while numbers := reader.recv(64):
        if signal.SIGINT in numbers:
            _end(job, note)


def _end(job: str, note: str) -> None:
    below = "\n" * sys.stderr.isatty()  # the progress line stays
    print(f"{below}pairmill: {job} interrupted; {note}", file=sys.stderr, flush=True)
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
