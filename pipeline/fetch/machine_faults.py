"""Faults of this machine and of pairmill itself, as against those of a host or of an image: they end the job with one
line, or hold it until they are fixed, and are never a row's reject."""

from __future__ import annotations

import errno
import os
import traceback

from models.errors import UserError
from pipeline.fetch.shared_folder import warn_once
from pipeline.output.files import machine_fault_of
from pipeline.records import Pair, Reason, Rejected, Stage, reject
from pipeline.sources.url_hosts import host_of

# No host can cause these. Not EACCES and the like: those of a connection may be a rule for its address.
_OF_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EROFS, errno.EIO}
)
MAX_CAUSES = 20  # of an exception that are looked at
MAX_UNEXPECTED_HOSTS, MAX_UNEXPECTED_SHARE = 20, 0.05  # both exceeded: the fault is not the rows'


def machine_fault(error: BaseException) -> UserError | None:
    """The error to end the job with if this machine's files, memory or limits are at fault, or None."""
    found: BaseException = error
    for _ in range(MAX_CAUSES):
        if isinstance(found, UserError):
            return found
        if isinstance(found, MemoryError):
            return UserError("out of memory; give the process more, or lower --connections or --max-pixels")
        if isinstance(found, OSError) and found.errno in _OF_MACHINE:
            return machine_fault_of(found)
        if (cause := found.__cause__ or found.__context__) is None:
            break
        found = cause
    return None


class UnexpectedErrors:
    """The rows of one process that ended in an exception which nothing foresaw."""

    def __init__(self) -> None:
        self.rows, self.unexpected = 0, 0
        self._hosts: set[str] = set()

    def reject(self, pair: Pair, error: Exception, folder: str) -> Rejected:
        """The row's reject, with the exception's name; the first of each kind is shown with its place. Raises UserError
        once too many rows of different hosts have ended that way, and for faults of this machine."""
        if isinstance(error, UserError):
            raise error
        if fault := machine_fault(error):
            raise fault from error
        name = describe(error)
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
        warn_once(f"unexpected {type(error).__name__} at {place}: such rows are rejected as `unexpected`", folder)
        self.unexpected += 1
        self._hosts.add(host_of(pair.url))
        if len(self._hosts) > MAX_UNEXPECTED_HOSTS and self.unexpected > MAX_UNEXPECTED_SHARE * self.rows:
            raise UserError(
                f"{self.unexpected:,} of {self.rows:,} rows ended in an error that pairmill does not know, the last at "
                f"{place}: {name}; please report it"
            ) from error
        return reject(pair, Stage.FETCH, Reason.UNEXPECTED, name[:200])


def describe(error: BaseException) -> str:
    """An exception's name and message as one line of text that any file can hold."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.encode("utf-8", "replace").decode()


unexpected_errors = UnexpectedErrors()
"""Of this process."""
