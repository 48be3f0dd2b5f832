"""What img2dataset (https://github.com/rom1504/img2dataset) wrote: `NNNNN.parquet` with a row for each URL that it was
given, failures included, beside the tar, folder or Parquet of pictures; and any Parquet file with a column of URLs and
one of captions, which is what img2dataset reads.

Its pictures are not fetched again: they are read from the tar, the folder or the Parquet file. Rows that failed there
are fetched: a picture that did not answer then may answer now. A tar whose Parquet file is gone has a row for each of
its samples (KEY.jpg, KEY.txt, KEY.json)."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from models.errors import UserError
from pipeline.records import Candidate, malformed
from pipeline.sources.paths import absolute, base_name, exists, expand
from pipeline.sources.readers import MAX_ROW_BYTES, Row, open_seekable, parquet_columns, parquet_records, pixels
from pipeline.sources.source import FileRange, NoSettings, Source

NAME = "img2dataset"
URL_COLUMNS = ("url", "image_url")
IMAGE_COLUMNS = ("jpg", "png", "webp")
TEXT_SUFFIXES = {"json", "txt"}  # of a sample's members in a tar; any other is its image
CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text")


def files(pattern: str) -> list[str]:
    """The Parquet files of an output that is named by its folder, by its tars, by one of its folders of pictures or by
    themselves; a tar that has none stands for itself."""
    if not os.path.isdir(pattern):
        return sorted({_table(path) for path in expand(pattern)})
    folder = pattern.rstrip(os.sep)
    if os.path.isfile(f"{folder}.parquet"):
        return [f"{folder}.parquet"]
    found = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith((".parquet", ".tar"))]
    if not found:
        raise UserError(f"{pattern} holds no Parquet file and no tar: name the folder that img2dataset wrote")
    return sorted(set(map(_table, found)))


def _table(path: str) -> str:
    table = f"{path.removesuffix('.tar')}.parquet"
    return table if path.endswith(".tar") and exists(table) else path


def read(stream: BinaryIO, file: str, path: str = "") -> Iterator[Row]:
    """The rows; `stream` must be able to seek. `path`: where a later stage finds the file."""
    if file.endswith(".tar"):
        yield from _of_tar(stream, file, absolute(path) if path else "")
        return
    wanted = (*URL_COLUMNS, *CAPTION_COLUMNS, "original_width", "original_height", "key", "status")
    store = _store(absolute(path), parquet_columns(stream)) if path else ""
    for row, (record, fault) in enumerate(parquet_records(stream, wanted, (URL_COLUMNS, CAPTION_COLUMNS))):
        yield malformed(NAME, file, row, "", fault) if fault else _candidate(record, file, row, store)


def _store(path: str, columns: Sequence[str]) -> str:
    """What holds the pictures of a Parquet file's rows: itself, the tar or the folder beside it; "" if nothing does."""
    beside = path.removesuffix(".parquet")
    if "key" not in columns or "status" not in columns or beside == path:
        return ""
    if set(IMAGE_COLUMNS) & set(columns):
        return path
    if exists(f"{beside}.tar"):
        return f"{beside}.tar"
    return beside if os.path.isdir(beside) else ""


def _candidate(record: Mapping[str, Any], file: str, row: int, store: str) -> Row:
    url, caption = _first(record, URL_COLUMNS), _first(record, CAPTION_COLUMNS)
    if not isinstance(url, str) or not isinstance(caption, str):
        return malformed(NAME, file, row, f"{url}\t{caption}", "the URL or the caption is not text")
    width, height = (pixels(record.get(name)) for name in ("original_width", "original_height"))
    place = row if store.endswith(".parquet") else record.get("key")
    stored_at = f"{store}#{place}" if store and record.get("status") == "success" else ""
    return Candidate(
        source=NAME,
        file=file,
        row=row,
        url=url.strip(),
        fallback_urls=(),
        raw_caption=caption,
        width=width,
        height=height,
        licence="",
        page_url="",
        mime_type="",
        stored_at=stored_at,
    )


def _of_tar(stream: BinaryIO, file: str, store: str) -> Iterator[Row]:
    row = 0
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for key, members in _samples(tar):
                if members.keys() - TEXT_SUFFIXES:
                    yield _sample(tar, key, members, file, row, store)
                    row += 1
        stream.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        fault = "" if stream.read() == bytes(tarfile.BLOCKSIZE) else "it has no end"
    except (tarfile.TarError, EOFError) as error:
        fault = str(error)
    if fault:
        yield malformed(NAME, file, row, "", f"not readable as a tar file from here on: {fault}")


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Members of one key, which stand together, by their endings."""
    key, members = "", {}
    for info in filter(tarfile.TarInfo.isfile, tar):
        stem, _, ending = info.name.rpartition(".")
        if stem != key:
            yield key, members
            key, members = stem, {}
        members[ending.lower()] = info
    yield key, members


def _sample(
    tar: tarfile.TarFile, key: str, members: Mapping[str, tarfile.TarInfo], file: str, row: int, store: str
) -> Row:
    texts = {ending: info for ending, info in members.items() if ending in TEXT_SUFFIXES}
    if any(info.size > MAX_ROW_BYTES for info in texts.values()):
        return malformed(NAME, file, row, key, f"{key}: a text of more than {MAX_ROW_BYTES} bytes")
    data = {ending: tar.extractfile(info).read() for ending, info in texts.items()}
    try:
        said = dict(json.loads(data.get("json", b"{}")))
        caption = data["txt"].decode() if "txt" in data else said.get("caption")
    except (ValueError, TypeError, RecursionError) as error:
        return malformed(NAME, file, row, key, f"{key}: not readable as img2dataset's .json and .txt: {error}")
    record = said | {"url": said.get("url"), "caption": caption, "key": key, "status": "success"}
    return _candidate(record, file, row, store)


def _first(record: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """The value of the first of the columns that the file has, "" for null."""
    value = next(record[column] for column in columns if column in record)
    return "" if value is None else value


class Img2dataset(Source[NoSettings]):
    """An output of img2dataset, or any table of URLs and captions, as a source of select."""

    name = NAME
    settings = NoSettings()

    def files(self, pattern: str) -> list[str]:
        return files(pattern)

    def read_range(self, file_range: FileRange, settings: NoSettings, lines_before: int = 0) -> Iterator[Row]:
        with open_seekable(file_range.path) as stream:
            yield from read(stream, base_name(file_range.path), file_range.path)
