"""Random access to the members of a shard, once its bytes are known to be those that the manifest names.

A shard is opened by reading it once from end to end: its hash is taken and the place of each member noted. Members are
then read one by one. tarfile does the same at a tenth of the speed, as it parses every field of a header.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections import OrderedDict
from typing import ClassVar, NamedTuple

import numpy as np

from models.data.format import REBUILD_HINT, SAMPLE_SUFFIX, Shard
from models.errors import UserError

TAR_HEADER_BYTES = 512  # bytes before each member, and the unit of their length
KEY_BYTES = 32  # hex digits
CHUNK = 2048 * TAR_HEADER_BYTES  # small enough to be still in the processor's cache when the headers are looked at
MAX_OPEN = 256  # files; a process may usually have 1,024

_NAME_END = SAMPLE_SUFFIX.encode() + b"\0"


class MemberIndex(NamedTuple):
    """Where the members of a shard are, header included."""

    offsets: np.ndarray  # int64 [pairs]
    sizes: np.ndarray  # int32 [pairs]
    sources: np.ndarray | None  # bytes [pairs]; None where nobody asked


class ShardFile:
    """One opened shard. `read` gives a member with its header."""

    _open: ClassVar[OrderedDict[int, weakref.ref[ShardFile]]] = OrderedDict()  # by descriptor, oldest first
    _checked: ClassVar[dict[str, tuple[tuple[int, ...], str]]] = {}  # path -> the signature and sha256 that were found

    def __init__(self, path: str, shard: Shard, with_sources: bool = False, keep_open: bool = False):
        """`keep_open`: the path may vanish, what is open stays. Raises UserError unless the file is the one that the
        manifest names."""
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
        """Raises UserError when the file is no longer what it was."""
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
        """Until the next read."""
        if self._descriptor >= 0:
            self._open.pop(self._descriptor, None)
            os.close(self._descriptor)
            self._descriptor = -1

    __del__ = close


def _signature(descriptor: int) -> tuple[int, ...]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _scan(file, path: str, shard: Shard, with_sources: bool, is_known: bool) -> MemberIndex:
    """Reads the whole file: its sha256 unless that is known, and the headers on the way (they never cross a chunk)."""
    digest, chunk = hashlib.sha256(), memoryview(bytearray(CHUNK))
    offsets: list[int] = []
    sizes: list[int] = []
    sources: list[bytes] = []
    fault = ""
    start, place, ended = 0, 0, False
    while length := _fill(file, chunk):
        if not is_known:
            digest.update(chunk[:length])
        data = chunk.obj
        last = start + length - TAR_HEADER_BYTES
        while place <= last and not (ended or fault):
            at = place - start
            if data[at + KEY_BYTES : at + KEY_BYTES + len(_NAME_END)] == _NAME_END:
                size = int(data[at + 124 : at + 135], 8)
                offsets.append(place)
                sizes.append(TAR_HEADER_BYTES + size)
                if with_sources:
                    sources.append(bytes(data[at + 265 : at + 297]).rstrip(b"\0"))
                place += TAR_HEADER_BYTES + (size + TAR_HEADER_BYTES - 1 & -TAR_HEADER_BYTES)
            elif data[at]:
                fault = f"unexpected member {bytes(data[at : at + 100]).rstrip(bytes(1)).decode('ascii', 'replace')}"
            else:
                ended = True  # the end is marked by blocks of zeros
        start += length
    if not is_known and digest.hexdigest() != shard.sha256:
        raise UserError(f"{path} is not the file that the manifest names (its sha256 differs); {REBUILD_HINT}")
    if fault:
        raise UserError(f"{path} is damaged: {fault}; build the dataset again")
    if len(offsets) != shard.pairs:
        raise UserError(f"{path} holds {len(offsets)} pairs, the manifest says {shard.pairs}; build the dataset again")
    return MemberIndex(
        np.array(offsets, np.int64), np.array(sizes, np.int32), np.array(sources) if with_sources else None
    )


def _fill(file, chunk: memoryview) -> int:
    """Reads until the chunk is full or the file ends: a short read would tear a header."""
    length = 0
    while length < len(chunk) and (more := file.readinto(chunk[length:])):
        length += more
    return length
