"""How the process of a command ends."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


def run_as_process(command: Callable[[], int]) -> NoReturn:
    """Runs the command that this process is for, and ends the process with its status: 1 for a traceback, as Python."""
    status: object
    try:
        status = command()
    except SystemExit as ended:
        status = ended.code
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        status = 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    exit_process(status if isinstance(status, int) else int(status is not None))


def exit_process(status: int) -> NoReturn:
    """Ends this process as Python does, with the threads that it waits for and all functions of `atexit`, but without
    the interpreter's finalisation.

    A thread of a library (Arrow's, torch's, Gloo's) may still need the interpreter's lock to release an object, and
    before Python 3.14 a thread that requests it during finalisation aborts the process ("terminate called without an
    active exception"): a command that had done its work failed. https://github.com/apache/arrow/issues/34314
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # the stubs lack it
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream:  # None: it was closed when the process started
                stream.flush()
    finally:
        os._exit(status)
