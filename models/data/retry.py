"""Repeats what the network or a store has failed to do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from models.errors import UserError
from models.files import is_url, read

WAITS_S = (1.0, 4.0, 15.0, 40.0)  # before each further attempt
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, UserError)
_LASTING_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of the local disk
_PASSING_STATUS = (408, 429)
ResultT = TypeVar("ResultT")


def retried(action: Callable[[], ResultT], waits_s: Sequence[float] = WAITS_S) -> ResultT:
    """The result of an action that reads from a remote store. It is repeated after a failure that may pass: the
    clients of the stores have exceptions of their own for a busy server and a connection that broke.

    Raises OSError, or UserError as the action does.
    """
    try:
        return action()
    except Exception as error:
        cause = _cause(error)
        if _is_lasting(cause):
            raise
        if not waits_s:
            raise cause if isinstance(cause, OSError) else OSError(one_line(cause)) from error
    time.sleep(waits_s[0])
    return retried(action, waits_s[1:])


def read_patiently(path: str) -> bytes:
    """All bytes of a local file or a URL. Raises as `retried`."""
    return retried(lambda: read(path)) if is_url(path) else read(path)


def _cause(error: Exception) -> Exception:
    """The failure behind an error: fsspec reports any answer of a web server but 200 as a missing file."""
    is_answer = isinstance(error, FileNotFoundError) and hasattr(error.__cause__, "status")
    return error.__cause__ if is_answer and isinstance(error.__cause__, Exception) else error


def _is_lasting(error: Exception) -> bool:
    status = getattr(error, "status", None)  # of an answer of a web server
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _PASSING_STATUS
    return isinstance(error, _LASTING) or getattr(error, "errno", None) in _LASTING_NUMBERS


def one_line(error: Exception) -> str:
    """An exception's message without line breaks; its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
