"""Parts of one big text file that are read side by side: ranges of its bytes, cut where lines begin.

A line belongs to the range that holds the line end before it, so that each is read exactly once wherever the cuts are.
Plain files are cut anywhere. bzip2 is cut at its blocks, which decompress alone wherever their first bit lies: a file
made by one `bzip2` splits as well as one of many streams."""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

CHUNK_BYTES = 1 << 18
READ_AHEAD_BYTES = 2 << 20  # a block takes 900 kB and a little more if nothing in it can be compressed

_BLOCK, _END = 0x314159265359, 0x177245385090
"""What a bzip2 block and the end of a stream begin with, 48 bits, at any bit."""
_MAX_FALSE_MARKS = 3  # in one block: by chance there is one in 2^48 places


class Chunk(NamedTuple):
    data: bytes  # decompressed
    in_range: bool  # of the range; what comes behind it completes its last line


def plain_chunks(file: BinaryIO, first: int, stop: int) -> Iterator[Chunk]:
    """The bytes [first, stop) of a file that can seek, then those behind."""
    file.seek(first)
    while first < stop and (data := file.read(min(CHUNK_BYTES, stop - first))):
        first += len(data)
        yield Chunk(data, True)
    while data := file.read(CHUNK_BYTES):
        yield Chunk(data, False)


def bzip2_chunks(file: BinaryIO, first: int, stop: int) -> Iterator[Chunk]:
    """The blocks whose first bit is in the bytes [first, stop), then those behind. Raises OSError where a block is
    damaged or the file is cut off."""
    file.seek(first)
    data = file.read(stop - first + READ_AHEAD_BYTES)
    complete = len(data) < stop - first + READ_AHEAD_BYTES  # nothing is left to read
    marks, searched = _marks(data, 0), len(data)
    position = 0  # of the mark that is looked at
    ended = True  # the last thing seen was the end of a stream
    while True:
        if len(marks) - position <= _MAX_FALSE_MARKS and not complete:
            more = file.read(READ_AHEAD_BYTES)
            complete = len(more) < READ_AHEAD_BYTES
            if 8 * (stop - first) < (marks[position].bit if position < len(marks) else 8 * len(data)):
                kept = (marks[position].bit if position < len(marks) else 8 * (len(data) - 6)) // 8
                data, first, stop, searched = data[kept:], first + kept, stop, searched - kept
                marks = [mark._replace(bit=mark.bit - 8 * kept) for mark in marks[position:]]
                position = 0
            data += more
            marks += [
                mark
                for mark in _marks(data[max(0, searched - 6) :], max(0, searched - 6))
                if not marks or mark.bit > marks[-1].bit
            ]
            searched = len(data)
            continue
        if position == len(marks):
            if not ended:
                raise OSError("bzip2: the end of the stream is missing")
            return
        mark = marks[position]
        ended = mark.is_end
        if mark.is_end:
            position += 1
            continue
        decoded, position = _decode(data, marks, position)
        yield Chunk(decoded, mark.bit < 8 * (stop - first))


class _Mark(NamedTuple):
    bit: int  # from the beginning of the data
    is_end: bool


def _marks(data: bytes, offset: int) -> list[_Mark]:
    """Where blocks and ends of streams begin in the data, which lie `offset` bytes behind the beginning."""
    found = []
    for magic in (_BLOCK, _END):
        for shift in range(8):
            pattern = (magic << (8 - shift)).to_bytes(7, "big")
            head, inner, tail = pattern[0], pattern[1:6], pattern[6]
            head_bits, tail_bits = 0xFF >> shift, (0xFF << (8 - shift)) & 0xFF
            at = data.find(inner, 1)
            while at != -1:
                before, after = data[at - 1], data[at + 5] if at + 5 < len(data) else None
                if before & head_bits == head and (not tail_bits or (after is not None and after & tail_bits == tail)):
                    found.append(_Mark(8 * (offset + at - 1) + shift, magic == _END))
                at = data.find(inner, at + 1)
    return sorted(found)


def _decode(data: bytes, marks: list[_Mark], position: int) -> tuple[bytes, int]:
    """The block that begins at a mark, and the position of the mark that ends it. Raises OSError."""
    start = marks[position].bit
    for end in range(position + 1, min(position + 2 + _MAX_FALSE_MARKS, len(marks))):
        try:
            return bz2.decompress(_stream(data, start, marks[end].bit)), end
        except (OSError, ValueError, EOFError):  # the mark was part of the block
            continue
    raise OSError("bzip2: a block is damaged or cut off")


def _stream(data: bytes, start: int, end: int) -> bytes:
    """A bzip2 file of one block: the bits [begin, end) between a header and the end of a stream with their checksum."""
    size = end - start
    bits = int.from_bytes(data[start // 8 : -(-end // 8)], "big") >> (-end % 8) & ((1 << size) - 1)
    checksum = bits >> (size - 80) & 0xFFFFFFFF
    bits = (bits << 48 | _END) << 32 | checksum
    size += 80
    return b"BZh9" + (bits << (-size % 8)).to_bytes(-(-size // 8), "big")


class RangeLines:
    """A stream of a range's lines: `read1` gives what `lines` cuts. `has_more_lines` says whether the file goes on with
    anything but line ends."""

    def __init__(self, chunks: Iterator[Chunk], at_start: bool):
        self.at_start = at_start
        self._chunks = chunks
        self._started, self._ended = at_start, False
        self._remainder = b""

    def read1(self, _size: int) -> bytes:
        while not self._ended:
            data, in_range = next(self._chunks, Chunk(b"", False))
            if not data:
                self._ended = True
                break
            if not self._started:
                if not in_range:
                    self._ended = True
                    break
                _, line_end, data = data.partition(b"\n")
                self._started = bool(line_end)
                if not self._started or not data:
                    continue
            elif not in_range:
                line, line_end, self._remainder = data.partition(b"\n")
                self._ended, data = bool(line_end), line + line_end
            return data
        return b""

    def has_more_lines(self) -> bool:
        if self._remainder.strip(b"\r\n"):
            return True
        return any(chunk.data.strip(b"\r\n") for chunk in self._chunks)


def count_line_ends(chunks: Iterator[Chunk]) -> int:
    """Line ends in a range; the place where it is damaged counts as one, because it is a row of its own."""
    number = 0
    try:
        for data, in_range in chunks:
            if not in_range:
                break
            number += data.count(b"\n")
    except OSError as error:
        if error.errno is not None:
            raise
        number += 1
    return number
