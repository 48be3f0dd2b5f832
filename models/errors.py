"""The error that a user reads, and how a command ends with one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Wrong usage or unusable input: one line that names the place and the fix. Commands print it and exit with 2."""


# What the system refuses, and what a user can do about it. Other system errors are bugs and keep their traceback.
_FIXES = {
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "name a place where this user may write"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a part of the path is a file; name another place"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, then run the same command again"),
    errno.EISDIR: "this is a folder; name a file",
    errno.ENAMETOOLONG: "give a shorter name",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
}


def system_fault(number: int | None, message: str, path: object) -> str | None:
    """One line for a system error that a user can fix: `path`, what the system says, the fix; None for any other."""
    if number not in _FIXES:
        return None
    return f"{path}: {message}; {_FIXES[number]}" if path else f"{message}; {_FIXES[number]}"


def report_errors(command: Callable[[], int], after_interrupt: str = "") -> int:
    """Runs a command; a user's error becomes one line and status 2, an interruption status 130 and a line that ends
    with what the user may count on then."""
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()  # not at Python's exit, where a reader that has gone would be an error
    except UserError as error:
        print(f"pairmill: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of our output (head, less) has seen enough; what is left goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if (line := system_fault(error.errno, error.strerror or str(error), error.filename)) is None:
            raise
        print(f"pairmill: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted(after_interrupt)
    except Exception as error:
        # A library's own clean-up may fail on the way out, as that of `logging` does for a lock it was just taking.
        if not _follows_interrupt(error):
            raise
        return _interrupted(after_interrupt)


def _interrupted(after_interrupt: str) -> int:
    print("pairmill: interrupted" + f"; {after_interrupt}" * bool(after_interrupt), file=sys.stderr)
    return 130


def _follows_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
