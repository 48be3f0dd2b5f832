"""Images that need no fetching: taken out of the file of a source that holds them.

A pair's `stored_at` is PATH#PLACE: a row (from 0) of a Parquet file with the bytes in a column, as wit_base and
img2dataset write them; a row of a text file of URL and base64 bytes, as Kaggle's wikipedia-image-caption has them, or
of JSON with `b64_bytes`; or
the key of img2dataset's sample in a tar or a folder."""

from __future__ import annotations

import base64
import json
import os
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import UserError
from models.hashing import stable_hash
from models.pixels import IMAGE_SUFFIXES
from pipeline.records import Pair
from pipeline.sources.paths import base_name
from pipeline.sources.readers import lines, open_seekable, open_source
from pipeline.sources.tar_names import is_hidden, is_tar

COLUMNS = ("image", "jpg", "png", "webp")  # of a Parquet file's images: wit_base's first, then img2dataset's
ROWS_PER_BLOCK = 100  # neighbours that go into one unit
BATCH_ROWS = 16


class NotStored(NamedTuple):
    """Why a source's file does not give an image that it should hold."""

    detail: str  # for people


def location_hash(stored_at: str) -> int:
    """64 bits, the same for neighbours in a file: what can be read from any place is read in blocks, a text file, which
    can't, as a whole. Independent of the folder."""
    path, _, place = stored_at.rpartition("#")
    whole = not _reads_anywhere(path) or not place.isdecimal()
    block = f"{base_name(path)}#{'' if whole else int(place) // ROWS_PER_BLOCK}"
    return stable_hash(block)


def read_stored(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, bytes | NotStored]]:
    """The bytes of each pair's image, or why there are none; file by file."""
    by_path: dict[str, dict[str, list[Pair]]] = {}
    for pair in pairs:
        path, _, place = pair.stored_at.rpartition("#")
        by_path.setdefault(path, {}).setdefault(place, []).append(pair)
    for path, places in sorted(by_path.items()):
        fault = "is not there"
        try:
            for place, data in _images(path, frozenset(places)):
                for pair in places.pop(place, ()):
                    yield pair, data
        except UserError:
            fault = "can't be opened"
        except (pa.ArrowException, tarfile.TarError, EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk or the network, not the file's content
            fault = f"can't be read: {' '.join(str(error).split())}"
        for place, missing in places.items():
            for pair in missing:
                yield pair, NotStored(f"{base_name(path)}#{place} {fault}")


def _reads_anywhere(path: str) -> bool:
    return path.endswith(".parquet") or is_tar(path) or "." not in base_name(path)


def _images(path: str, places: Collection[str]) -> Iterator[tuple[str, bytes]]:
    if os.path.isdir(path):
        return _of_folder(path, places)
    if is_tar(path):
        return _of_tar(path, places)
    return _of_parquet(path, places) if path.endswith(".parquet") else _of_text(path, places)


def _of_folder(path: str, places: Collection[str]) -> Iterator[tuple[str, bytes]]:
    for place in sorted(places):
        for suffix in sorted(IMAGE_SUFFIXES):
            if os.path.isfile(name := os.path.join(path, f"{os.path.basename(place)}.{suffix}")):
                with open(name, "rb") as file:
                    yield place, file.read()
                break


def _of_tar(path: str, places: Collection[str]) -> Iterator[tuple[str, bytes]]:
    with open_source(path, from_tar=False) as stream, _open_tar(stream) as tar:
        for info in filter(tarfile.TarInfo.isfile, tar):
            place, _, suffix = info.name.removeprefix("./").rpartition(".")
            if place in places and suffix.lower() in IMAGE_SUFFIXES and not is_hidden(info.name):
                yield place, cast(BinaryIO, tar.extractfile(info)).read()


def _open_tar(stream: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r:") if stream.seekable() else tarfile.open(fileobj=stream, mode="r|")


def _of_parquet(path: str, places: Collection[str]) -> Iterator[tuple[str, bytes]]:
    with open_seekable(path) as stream:
        file = pq.ParquetFile(stream)
        column = next((name for name in COLUMNS if name in file.schema_arrow.names), None)
        if column is None:
            return
        first = 0
        for group in range(file.num_row_groups):
            stop = first + file.metadata.row_group(group).num_rows
            if any(str(row) in places for row in range(first, stop)):
                yield from _of_row_group(file, group, column, first, places)
            first = stop


def _of_row_group(
    file: pq.ParquetFile, group: int, column: str, first: int, places: Collection[str]
) -> Iterator[tuple[str, bytes]]:
    last = max(int(place) for place in places)
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column]):
        for index in range(len(batch)):
            if (place := str(first + index)) in places:
                value = batch.column(0)[index].as_py()
                data = value.get("bytes") if isinstance(value, dict) else value
                if isinstance(data, bytes):
                    yield place, data
        first += len(batch)
        if first > last:
            return


def _encoded(line: str) -> str:
    """The base64 of a line: of JSON, as Wikimedia's `part-*.json.gz` have it, or of fields."""
    return json.loads(line)["b64_bytes"] if line.startswith("{") else line.split("\t")[1]


def _of_text(path: str, places: Collection[str]) -> Iterator[tuple[str, bytes]]:
    last = max(int(place) for place in places)
    with open_source(path) as stream:
        for row, line in enumerate(lines(stream)):
            if str(row) in places and not line.fault:
                try:
                    yield str(row), base64.b64decode(_encoded(line.text), validate=True)
                except (LookupError, TypeError, ValueError):  # binascii's is a ValueError, too
                    yield str(row), b""  # which is no image
            if row == last:
                return
