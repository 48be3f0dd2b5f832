"""Processes forked from pytest's own once it has imported all tests, before it runs the first: each would spend ten
seconds of a processor on the imports.

pytest has no other thread then. Later there are gRPC's and others', and a child may wait for ever for a lock that one
of them held at the fork.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator

from beam_jobs import fork_server, local_runner
from tests.support import launcher


@contextlib.contextmanager
def commands() -> Iterator[launcher.Launcher]:
    """Forks a process that runs commands, until the end of the block."""
    ours, theirs = os.pipe()
    pid = _fork(ours, lambda: launcher.serve(os.fdopen(ours)))
    os.close(ours)
    with os.fdopen(theirs, "w") as orders:
        yield launcher.Launcher(orders)
        orders.write(launcher.END)
    os.waitpid(pid, 0)


def workers() -> None:
    """Forks the process that forks the workers of this process's jobs. It ends with this one."""
    ours, theirs = socket.socketpair()
    with theirs:
        pid = _fork(theirs.fileno(), lambda: fork_server._serve(theirs))
    local_runner.FORK_SERVER._requests, local_runner.FORK_SERVER._process = ours, fork_server._Forked(pid)


def _fork(descriptor: int, serve: Callable[[], object]) -> int:
    """Forks a process that serves what it reads from an open file, and returns its id."""
    if pid := os.fork():
        return pid
    status: object = 1
    try:
        _forget_pytest(descriptor)
        serve()
        status = 0
    except SystemExit as exit_:  # of a process that this one has forked in turn
        status = exit_.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status if isinstance(status, int) else 1)


def _forget_pytest(descriptor: int) -> None:
    """Leaves open the streams for errors and one more file; what pytest would do at its end is not done here."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # the stubs lack it
        finalizer.detach()
    faulthandler.disable()
    logging.getLogger().handlers.clear()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at a terminal it reaches all processes: pytest acts on it
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    # Their numbers stay taken. Objects from before still write to them, such as pytest's handlers at loggers of torch:
    # under a number that was free again, torch's server of ranks read a line of a log as pointers.
    for opened in map(int, os.listdir("/dev/fd")):
        if opened > 2 and opened not in (nothing, descriptor):
            os.dup2(nothing, opened, inheritable=False)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
