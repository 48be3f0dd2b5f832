"""The list in a 7z archive, as a stream of constant memory; by libarchive, which the extra `7z` needs.

py7zr, the other reader, hands out a file only when it is unpacked as a whole."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import Any

from models.errors import UserError

MAGIC = b"7z\xbc\xaf\x27\x1c"
BLOCK_BYTES = 1 << 16  # what is lost before a damaged place


@contextlib.contextmanager
def open_member(descriptor: int, path: str, is_wanted: Callable[[str], bool]) -> Iterator[io.BufferedReader]:
    """The first wanted member of the archive that an open file holds. Its read raises OSError where the archive is
    damaged. `path` is for errors. Raises UserError without libarchive, and for an archive that lacks such a member."""
    libarchive = _library(path)
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        with libarchive.fd_reader(descriptor, format_name="7zip", filter_name="none") as archive:
            for entry in archive:
                if entry.isfile and is_wanted(entry.pathname):
                    yield _opened(entry.get_blocks(BLOCK_BYTES), path)
                    return
    except libarchive.ArchiveError as error:
        raise _unreadable(path, error.msg) from error
    raise UserError(f"{path}: the 7z archive holds no list; unpack it and name the file")


def _opened(blocks: Iterator[bytes], path: str) -> io.BufferedReader:
    member: io.BufferedReader = io.BufferedReader(_Member(blocks), BLOCK_BYTES)
    try:
        member.peek()
    except OSError as error:
        if error.errno is not None:
            raise
        raise _unreadable(path, str(error)) from error
    return member


def _unreadable(path: str, fault: str) -> UserError:
    return UserError(f"{path}: the 7z archive can't be read ({fault}); copy it again")


def _library(path: str) -> Any:
    try:
        import libarchive
    except (ImportError, OSError, TypeError, AttributeError) as error:  # no package; no shared library
        raise UserError(
            f"{path} is a 7z archive: unpack it with `7z x` and name the file in it, or install the extra 7z "
            "(libarchive-c and the system's libarchive)"
        ) from error
    return libarchive


class _Member(io.RawIOBase):
    """The blocks of a member as a file."""

    def __init__(self, blocks: Iterator[bytes]):
        self._blocks, self._rest = blocks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._next()
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def _next(self) -> bytes:
        import libarchive

        try:
            return next(self._blocks, b"")
        except libarchive.ArchiveError as error:
            if error.errno == errno.EIO:  # the disk's error
                raise OSError(errno.EIO, error.msg) from error
            raise OSError(f"7z: {error.msg}") from error
