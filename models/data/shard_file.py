"""Random access to the members of a shard whose hash matches the manifest.

Opening a shard reads it once from end to end, for its hash and the offset of each member. Members are then read one by
one. tarfile does the same at a tenth of the speed, as it parses each field of a header.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np

from models.data.format import REBUILD_HINT, SAMPLE_SUFFIX, Shard
from models.errors import UserError

TAR_HEADER_BYTES = 512  # size of the header of a member, to whose multiples data is padded
KEY_BYTES = 32  # hex digits
CHUNK = (
    2048 * TAR_HEADER_BYTES
)  # bytes read at a time: few enough to stay in the CPU's cache until the headers are parsed
MAX_OPEN = 256  # files; the usual limit of a process is 1,024

SOURCE_BYTES = slice(265, 297)  # of a header: the owner's name

_NAME_END = SAMPLE_SUFFIX.encode() + b"\0"


class MemberIndex(NamedTuple):
    """Offsets and sizes in bytes of a shard's members, headers included."""

    offsets: np.ndarray  # int64 [pairs]
    sizes: np.ndarray  # int32 [pairs]
    sources: np.ndarray | None  # bytes [pairs]; None if not requested


class ShardFile:
    """One checked shard."""

    _open: ClassVar[OrderedDict[int, weakref.ref[ShardFile]]] = OrderedDict()  # by descriptor, oldest first
    _checked: ClassVar[dict[str, tuple[tuple[int, ...], str]]] = {}  # path -> signature and sha256 at the check

    def __init__(self, path: str, shard: Shard, with_sources: bool = False, keep_open: bool = False):
        """Checks the file against the manifest's entry. `keep_open` keeps it readable after its path is removed.

        Raises UserError for a file that is unreadable, damaged or of another hash.
        """
        self.path, self._descriptor = path, -1
        try:
            with open(path, "rb", buffering=0) as file:
                self._signature = _signature(file.fileno())
                is_known = self._checked.get(path) == (self._signature, shard.sha256)  # hashed in an earlier epoch
                self.members = _scan(file, path, shard, with_sources, is_known)
                if keep_open:
                    self._descriptor = os.dup(file.fileno())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; {REBUILD_HINT}") from None
        self._checked[path] = self._signature, shard.sha256

    def read(self, offset: int, size: int) -> bytes:
        """Returns the bytes of a member with its header. Raises UserError if the file has changed since the check."""
        try:
            return os.pread(self._descriptor if self._descriptor >= 0 else self._reopen(), size, offset)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}; {REBUILD_HINT}") from None

    def _reopen(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        if _signature(descriptor) != self._signature:
            os.close(descriptor)
            raise UserError(f"{self.path} has changed since it was checked; {REBUILD_HINT}")
        if len(self._open) >= MAX_OPEN and (oldest := next(iter(self._open.values()))()):
            oldest.close()
        self._descriptor, self._open[descriptor] = descriptor, weakref.ref(self)
        return descriptor

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        if self._descriptor >= 0:
            self._open.pop(self._descriptor, None)
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():  # then modules lose their names; the system closes the file
            self.close()


def _signature(descriptor: int) -> tuple[int, ...]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _scan(file: io.FileIO, path: str, shard: Shard, with_sources: bool, is_known: bool) -> MemberIndex:
    """Reads the full file for its sha256, unless that is known, and its headers, which never cross a chunk."""
    data = bytearray(CHUNK)
    digest, chunk = hashlib.sha256(), memoryview(data)
    offsets: list[int] = []
    sizes: list[int] = []
    sources: list[bytes] = []
    problem = ""
    start, offset, ended = 0, 0, False
    while length := _fill(file, chunk):
        if not is_known:
            digest.update(chunk[:length])
        last = start + length - TAR_HEADER_BYTES
        while offset <= last and not (ended or problem):
            at = offset - start
            if data[at + KEY_BYTES : at + KEY_BYTES + len(_NAME_END)] == _NAME_END:
                size = int(data[at + 124 : at + 135], 8)
                offsets.append(offset)
                sizes.append(TAR_HEADER_BYTES + size)
                if with_sources:
                    sources.append(bytes(data[at + SOURCE_BYTES.start : at + SOURCE_BYTES.stop]).rstrip(b"\0"))
                offset += TAR_HEADER_BYTES + (size + TAR_HEADER_BYTES - 1 & -TAR_HEADER_BYTES)
            elif data[at]:
                problem = f"unexpected member {bytes(data[at : at + 100]).rstrip(bytes(1)).decode('ascii', 'replace')}"
            else:
                ended = True  # blocks of zeros mark the end
        start += length
    if not is_known and digest.hexdigest() != shard.sha256:
        raise UserError(f"{path} is not the file that the manifest names (its sha256 differs); {REBUILD_HINT}")
    if problem:
        raise UserError(f"{path} is damaged: {problem}; build the dataset again")
    if len(offsets) != shard.pairs:
        raise UserError(
            f"{path} holds {len(offsets)} pairs, but the manifest lists {shard.pairs}; build the dataset again"
        )
    return MemberIndex(
        np.array(offsets, np.int64), np.array(sizes, np.int32), np.array(sources) if with_sources else None
    )


def _fill(file: io.FileIO, chunk: memoryview) -> int:
    """Reads until the chunk is full or the file ends, since a short read could split a header. Returns the length."""
    length = 0
    while length < len(chunk) and (more := file.readinto(chunk[length:])):
        length += more
    return length
