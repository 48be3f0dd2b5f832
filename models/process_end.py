"""How the process of a command ends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable


def run_as_process(command: Callable[[], int]) -> int:
    """Runs the command that this process is for, whose status is to be the process's.

    The process ends as Python lets it, with all threads that it waits for and all functions of `atexit`, but without
    the interpreter's finalisation. A library's thread (Arrow's, torch's, Gloo's) may still want the interpreter's lock
    for a moment, to let go of an object, and before Python 3.14 a thread that asks for it then aborts the process
    ("terminate called without an active exception"): a command that had done its work failed.
    https://github.com/apache/arrow/issues/34314
    """
    process, status = os.getpid(), 1  # the status of a traceback

    def end() -> None:
        if os.getpid() == process:  # not a fork, to which this was handed down
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    atexit.register(end)  # the first one that is registered is called last
    try:
        status = command()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    return status
