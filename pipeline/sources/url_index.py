"""URL -> a few bytes, for millions of URLs: one file sorted by a hash of the URL, which processes map instead of
loading it. A URL takes 16 bytes of hash and its value, on disk and in memory while the file is made."""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from typing import IO

import numpy as np

from pipeline.output import files

BATCH = 1 << 20  # URLs that are written at once


def write_index(path: str, values: Iterable[tuple[str, bytes]], width: int) -> int:
    """Writes URL -> `width` bytes; of a URL given twice the first stays. Returns how many were given."""
    return write_entries(path, [pack_entries(values)], width)


def pack_entries(values: Iterable[tuple[str, bytes]]) -> bytes:
    """The entries of URLs, in the order given, for `write_entries`: several processes may pack some each."""
    data = bytearray()
    for url, value in values:
        data += _digest(url) + value
    return bytes(data)


def write_entries(path: str, packed: Iterable[bytes], width: int) -> int:
    """Writes what `pack_entries` made; of a URL given twice the first stays. Returns the number of entries."""
    data = bytearray()
    for part in packed:
        data += part
    entries = np.frombuffer(data, [("high", "<u8"), ("rest", f"V{8 + width}")])
    high = np.ascontiguousarray(entries["high"])
    order = np.argsort(high, kind="stable")
    with files.atomic_writer(path) as file:
        for column in (high, entries["rest"]):
            for first in range(0, len(order), BATCH):
                file.write(column[order[first : first + BATCH]].tobytes())
    return len(order)


class UrlIndex:
    """Looks up what `write_index` wrote with values of `width` bytes."""

    def __init__(self, path: str, width: int):
        rest = np.dtype([("low", "<u8"), ("value", f"V{width}")])
        with files.open_read(path) as file:
            number = file.seek(0, 2) // (8 + rest.itemsize)
        if number == 0:  # nothing can be mapped
            self._high, self._low, self._value = np.empty(0, "<u8"), np.empty(0, "<u8"), np.empty(0, rest["value"])
            return
        # a plain array: a memmap's own items take 20 times as long to reach
        data = np.asarray(np.memmap(path if files.is_local(path) else _local_copy(path), np.uint8, "r"))
        self._high, entries = data[: 8 * number].view("<u8"), data[8 * number :].view(rest)
        self._low, self._value = entries["low"], entries["value"]

    def get(self, url: str) -> bytes | None:
        digest = _digest(url)
        high, low = (int.from_bytes(half, "little") for half in (digest[:8], digest[8:]))
        position = int(np.searchsorted(self._high, np.uint64(high)))
        while position < len(self._high) and int(self._high[position]) == high:
            if int(self._low[position]) == low:
                return bytes(self._value[position].tobytes())
            position += 1
        return None


@functools.lru_cache(4)
def open_index(path: str, width: int) -> UrlIndex:
    """The index, mapped once in a process."""
    return UrlIndex(path, width)


def _digest(url: str) -> bytes:
    return hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _local_copy(path: str) -> IO[bytes]:
    """A file without a name, which the disk forgets with the process."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (the map holds it)
    with files.open_read(path) as file:
        shutil.copyfileobj(file, copy, 1 << 20)
    copy.flush()
    return copy
