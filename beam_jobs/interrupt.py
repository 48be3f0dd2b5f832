"""Ctrl-C: ends the job and its workers at once, or asks its engine to; one line says how to continue."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def exit_on_interrupt(job: str, stop: Callable[[], str]) -> Iterator[None]:
    """While the block runs, Ctrl-C ends this process and its workers with status 130. `stop` is called before; the line
    that is printed ends with what it returns. Another Ctrl-C does not wait for it.

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
    stopper = threading.Thread(
        target=lambda: end_process(f"{job} interrupted; {stop()}", 130), name="stop", daemon=True
    )
    watcher = threading.Thread(target=_watch, args=(reader, job, stopper), name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, handler)
        writer.close()
        watcher.join()
        reader.close()
        if stopper.is_alive():  # the job has ended because it was stopped
            stopper.join()


def _watch(reader: socket.socket, job: str, stopper: threading.Thread) -> None:
    while numbers := reader.recv(64):
        if signal.SIGINT in numbers and stopper.is_alive():
            end_process(f"{job} interrupted again; whether it was stopped is not known", 130)
        elif signal.SIGINT in numbers:
            stopper.start()


def end_process(line: str, status: int) -> None:
    """Ends this process and its workers at once, with a line on stderr."""
    below = "\n" * sys.stderr.isatty()  # the progress line stays
    print(f"{below}pairmill: {line}", file=sys.stderr, flush=True)
    for child in _descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    os._exit(status)


def _descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these started; empty without /proc."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the process has ended
            for child in map(int, path.read_text().split()):
                found += [child, *_descendants(child)]
    return found
