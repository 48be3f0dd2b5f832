"""The error that a user reads, and how a command ends with one line."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO


class UserError(Exception):
    """Wrong usage or unusable input: one line that names the place and the fix. Commands print it and exit with 2."""


class WriteError(UserError):
    """The system refuses a file or a folder of an output."""

    def __init__(self, line: str, strerror: str) -> None:
        super().__init__(line)
        self.strerror = strerror  # what the system says, as OSError has it


JOINERS = "\u200c\u200d"  # invisible, but scripts and emoji are spelt with them


def printable(text: str) -> str:
    """One line of text in which control characters are escaped as in JSON: text from the web could control a
    terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in JOINERS else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


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


def write_error(error: OSError, path: str | os.PathLike) -> WriteError:
    """The error to raise for what the system says about writing `path`, whichever file or folder on the way it names:
    where to write is the user's choice."""
    message = error.strerror or str(error)
    if link := _broken_link(path):
        message = f"{link} is a link to {os.readlink(link)}, which does not exist"
        return WriteError(f"can't write {path}: {message}; create that, or name another place", message)
    line = system_fault(error.errno, message, path) or f"{path}: {message}; name another place"
    return WriteError(f"can't write {line}", message)


def _broken_link(path: str | os.PathLike) -> Path | None:
    """The link to nothing on the way to a path."""
    places = [Path(path), *Path(path).parents]
    return next((place for place in places if place.is_symlink() and not place.exists()), None)


STORE_EXTRAS = {"gs": "gcp", "s3": "s3"}
"""Scheme of a store -> the extra whose packages Beam needs for it."""


def not_installed(what: str, extra: str) -> UserError:
    """The error to raise where packages are missing that an extra of this package brings."""
    return UserError(f"{what}: packages for it are not installed; `pip install '.[{extra}]'` in a clone installs them")


def report_errors(command: Callable[[], int], after_interrupt: str = "") -> int:
    """Runs a command; a user's error becomes one line and status 2, an interruption status 130 and a line that ends
    with what the user may count on then."""
    try:
        try:
            return command()
        finally:
            if sys.stdout:  # None: it was closed when the process started
                sys.stdout.flush()  # not at Python's exit, where a reader that has gone would be an error
    except UserError as error:
        print(f"pairmill: {printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
            # The reader of our output (head, less) has seen enough; what is left goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if (line := system_fault(error.errno, error.strerror or str(error), error.filename)) is None:
            raise
        print(f"pairmill: {printable(line)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted(after_interrupt)
    except Exception as error:
        # A library's own clean-up may fail on the way out, as that of `logging` does for a lock it was just taking.
        if not _follows_interrupt(error):
            raise
        return _interrupted(after_interrupt)


def _has_no_reader(stream: TextIO) -> bool:
    """Whether what reads from the stream has gone. The pipe that broke may be another one, such as a connection."""
    broken = select.poll()
    broken.register(stream, 0)  # errors are always reported
    return bool(broken.poll(0))


def _interrupted(after_interrupt: str) -> int:
    print(_interruption(after_interrupt), file=sys.stderr)
    return 130


def _interruption(after_interrupt: str) -> str:
    return "pairmill: interrupted" + f"; {after_interrupt}" * bool(after_interrupt)


@contextlib.contextmanager
def ends_on_interrupt(after_interrupt: str) -> Iterator[None]:
    """While the block runs, Ctrl-C ends this process at once, with the line and status of `report_errors`. For imports:
    they leave nothing to tidy, and a package that tries whether another is there may swallow a KeyboardInterrupt."""

    def end(*_: object) -> None:
        os.write(sys.stderr.fileno(), f"{_interruption(after_interrupt)}\n".encode())
        os._exit(130)

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # ignored, or somebody else's
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _follows_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
