"""What a file holds: its bytes without compression, a list inside of a zip, a 7z or a tar, UTF-16 as UTF-8.

First bytes tell what a file is, its ending does not: browsers unpack a .gz and keep its name. Of an archive, files that
only go along (a licence, a README, macOS' hidden ones) are none of its lists."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa

from models.errors import UserError
from pipeline.sources import seven_zip
from pipeline.sources.paths import CHUNK_BYTES
from pipeline.sources.tar_names import is_hidden

GZIP, BZIP2, ZSTD, XZ, ZIP = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"PK\x03\x04"
SEVEN_ZIP = seven_zip.MAGIC
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
PEEK_BYTES = 512
_COMPANION = re.compile(
    r"(?:read_?me|licen[cs]e|terms|copying|notice|changelog|datasheet|citation)\w*\b", re.IGNORECASE
)
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, OSError)
"""What reading raises where bytes are bad; an OSError may be the disk's or the network's: see `is_damage`."""


def is_damage(error: Exception) -> bool:
    """Whether the bytes are bad, rather than the disk or the network, whose errors carry a number or a class."""
    return not isinstance(error, OSError) or (type(error) in (OSError, gzip.BadGzipFile) and error.errno is None)


def lists_in(raw: io.BufferedReader, path: str) -> list[str]:
    """The names of the lists in a zip, in its order; [] for another file. Raises UserError for a damaged zip."""
    if raw.peek(len(ZIP))[: len(ZIP)] != ZIP:
        return []
    with seekable(raw) as stream, _open_zip(stream, path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir() and is_list(info.filename)]


def is_list(name: str) -> bool:
    """Whether a member of an archive is a list, rather than something that goes along with it."""
    hidden = is_hidden(name) or name.startswith("__MACOSX/")
    return not hidden and not _COMPANION.match(name.rsplit("/", 1)[-1])


@contextlib.contextmanager
def unpacked(raw: io.BufferedReader, path: str, member: str = "", from_tar: bool = True) -> Iterator[BinaryIO]:
    """The bytes of a file, or of one of the lists of a zip: decompressed, UTF-16 as UTF-8. A plain file's stream can
    seek. Of a compressed tar it is the list in it, unless `from_tar` is False. Raises UserError for an archive that
    does not hold one list."""
    with contextlib.ExitStack() as stack:
        stream: Any = raw
        if raw.peek(len(SEVEN_ZIP))[: len(SEVEN_ZIP)] == SEVEN_ZIP:
            on_disk = stack.enter_context(_with_descriptor(raw))
            stream = stack.enter_context(seven_zip.open_member(on_disk.fileno(), path, is_list))
        elif raw.peek(len(ZIP))[: len(ZIP)] == ZIP:
            stream = io.BufferedReader(
                cast(io.RawIOBase, stack.enter_context(_zip_member(raw, path, member))), CHUNK_BYTES
            )
        stream = decompressed(stream)
        if stream is not raw:
            stack.callback(stream.close)
        head, stream = peeked(stream)
        if from_tar and stream is not raw and head[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
            stream = stack.enter_context(_tar_member(stream, path))
            head, stream = peeked(stream)
        if head.startswith(UTF_16):
            stream = _Recoded(stream)
        yield stream


@contextlib.contextmanager
def _with_descriptor(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream itself if it is a local file; else a copy of it on the disk."""
    try:
        stream.fileno()
    except OSError:  # of a server or a store
        with _copied(stream) as copy:
            yield copy
    else:
        yield stream


@contextlib.contextmanager
def seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The stream itself if it can seek at no cost; else a copy of it on the disk."""
    if not isinstance(stream, _COSTLY) and stream.seekable():
        yield stream
        return
    with _copied(stream) as copy:
        yield copy


@contextlib.contextmanager
def _copied(stream: BinaryIO) -> Iterator[BinaryIO]:
    """A copy on the disk, at its beginning."""
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(stream, copy, CHUNK_BYTES)
        except DAMAGE as error:  # its reader finds that it has no end
            if not is_damage(error):
                raise
        copy.seek(0)
        yield cast(BinaryIO, copy)


def decompressed(raw: io.BufferedReader) -> Any:
    """The stream without gzip, bzip2, zstd or xz; itself if it has none."""
    magic = raw.peek(len(XZ))[: len(XZ)]
    if magic.startswith(GZIP):
        return gzip.GzipFile(fileobj=raw)
    if magic.startswith(BZIP2):
        return bz2.BZ2File(raw)
    if magic.startswith(ZSTD):
        # pyarrow's reader, because zstandard's takes a frame that is cut off for the end of the file
        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    return lzma.LZMAFile(raw) if magic == XZ else raw


def head_of(stream: Any, size: int) -> bytes:
    """The first bytes of a stream, as far as they can be read."""
    read = getattr(stream, "read1", stream.read)
    head = b""
    while len(head) < size:
        try:
            data = read(size - len(head))
        except DAMAGE as error:
            if not is_damage(error):
                raise
            break
        if not data:
            break
        head += data
    return head


def peeked(stream: Any) -> tuple[bytes, Any]:
    """The first bytes, up to PEEK_BYTES, and a stream that still begins with them."""
    if isinstance(stream, io.BufferedReader):
        return stream.peek(PEEK_BYTES)[:PEEK_BYTES], stream
    head = Head(stream)
    return head.start[:PEEK_BYTES], head


class Head(io.BufferedIOBase):
    """A stream of which the first bytes have been looked at. It hands out what is decoded before it raises at
    damage."""

    def __init__(self, stream: Any):
        self._read1: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._close = stream.close
        self._error: Exception | None = None
        self.start = b""
        while len(self.start) < PEEK_BYTES and not self._error and (data := self._next()):
            self.start += data
        self._rest = self.start

    def _next(self) -> bytes:
        try:
            return self._read1(CHUNK_BYTES)
        except DAMAGE as error:
            self._error = error
            return b""

    def read1(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        if self._rest:
            data, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
            return data
        if self._error:
            raise self._error
        return self._read1(CHUNK_BYTES if size < 0 else size)

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        parts, total = [], 0
        try:
            while (size < 0 or total < size) and (data := self.read1(-1 if size < 0 else size - total)):
                parts.append(data)
                total += len(data)
        except DAMAGE as error:
            if not parts:
                raise
            self._error = error
        return b"".join(parts)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._close()
        super().close()


class _Recoded(io.BufferedIOBase):
    """UTF-16 with its mark as UTF-8; what is no text in it becomes U+FFFD."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        self._ended = False

    def readable(self) -> bool:
        return True

    def read1(self, size: int | None = -1) -> bytes:
        while not self._ended:
            data = self._stream.read1(CHUNK_BYTES)
            self._ended = not data
            if text := self._decoder.decode(data, self._ended):
                return text.encode("utf-8", "replace")
        return b""

    def read(self, size: int | None = -1) -> bytes:
        return b"".join(iter(self.read1, b"")) if size is None or size < 0 else self.read1()


@contextlib.contextmanager
def _zip_member(raw: io.BufferedReader, path: str, member: str) -> Iterator[BinaryIO]:
    names = [member] if member else lists_in(raw, path)
    if len(names) != 1:
        raise UserError(f"{path}: the zip holds {len(names)} files; unpack it and name the list")
    with seekable(raw) as stream, _open_zip(stream, path) as archive:
        try:
            file = archive.open(names[0])
        except (RuntimeError, NotImplementedError, KeyError) as error:  # encrypted, packed by another method, not there
            raise UserError(f"{path}: the zip can't be read ({error}); unpack it and name the list") from error
        with file:
            yield cast(BinaryIO, file)


def _open_zip(stream: BinaryIO, path: str) -> zipfile.ZipFile:
    try:
        stream.seek(0)
        return zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: the zip is cut off or damaged ({error}); copy it again") from error


@contextlib.contextmanager
def _tar_member(stream: Any, path: str) -> Iterator[BinaryIO]:
    """The one list of a compressed tar, which is read from its beginning."""
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for info in tar:
            if info.isfile() and is_list(info.name):
                yield cast(BinaryIO, tar.extractfile(info))
                return
    raise UserError(f"{path}: the tar holds no list; unpack it and name the file")


# Streams that can't seek back, or only by reading all again.
_COSTLY = (gzip.GzipFile, bz2.BZ2File, lzma.LZMAFile, tarfile.ExFileObject, Head)
