"""Processes that work on units for the threads of a pipeline that runs in this process.

They are forked once all is imported: a process that imports for itself costs as much as fetching some hundred pictures,
and threads of one process wait for each other's turn in the interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from models.errors import UserError

PR_SET_PDEATHSIG = 1  # of prctl(2)

T = TypeVar("T")
_free: queue.SimpleQueue[Connection] | None = None  # one for each call that the processes take at once


@contextlib.contextmanager
def worker_processes(number: int, at_once: int) -> Iterator[None]:
    """While the block runs, there are so many processes for `in_worker`, each of which takes `at_once` calls at once.

    To be entered before other threads are started, on Linux. They end with the block or with this process, however it
    ends; what they were doing then is lost.
    """
    global _free
    fork = multiprocessing.get_context("fork")
    free, processes = queue.SimpleQueue(), []
    try:
        for _ in range(number):
            pipes = [fork.Pipe() for _ in range(at_once)]
            processes.append(fork.Process(target=_serve, args=([theirs for _, theirs in pipes],), daemon=True))
            processes[-1].start()
            for ours, theirs in pipes:
                theirs.close()  # so that the end of the process is the end of the pipe
                free.put(ours)
        _free = free
        yield
    finally:
        _free = None
        for process in processes:
            process.kill()
            process.join()


def in_worker(function: Callable[..., T], *arguments: Any) -> T:
    """What a function gives, called in a worker process if there are any, else here. Both have to be picklable.

    Raises the function's UserError; a RuntimeError with the traceback of any other exception, or if the process ended.
    """
    if _free is None:
        return function(*arguments)
    connection = _free.get()
    try:
        connection.send((function, arguments))
        value, error = connection.recv()
    except (EOFError, OSError) as broken:
        _free.put(connection)  # the next one is to find it out, too, and not to wait
        raise RuntimeError("a worker process ended; was it killed for its memory?") from broken
    _free.put(connection)
    if error:
        raise error
    return value


def _serve(connections: list[Connection]) -> None:
    """The life of a worker process."""
    global _free
    _free = None
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the first one acts
    threads = [threading.Thread(target=_answer, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _answer(connection: Connection) -> None:
    with connection, contextlib.suppress(EOFError):  # closed whatever happens, so that nobody waits for an answer
        while True:
            function, arguments = connection.recv()
            try:
                answer = function(*arguments), None
            except UserError as error:
                answer = None, error
            except Exception:
                answer = None, RuntimeError(traceback.format_exc())
            connection.send(answer)
