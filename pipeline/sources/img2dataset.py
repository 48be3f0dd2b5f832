"""What img2dataset (https://github.com/rom1504/img2dataset) wrote: `NNNNN.parquet` with a row for each URL that it was
given, failures included, beside the tar, folder or Parquet of images; and any Parquet file with a column of URLs and
one of captions, which is what img2dataset reads.

Its images are not fetched again: they are read from the tar, the folder or the Parquet file, and it is they that are
checked, not the size of the original that a row states. Rows that failed there are fetched by `build` and `fetch`,
since an image that did not answer then may answer now; `encode` rejects them. A tar whose Parquet file is gone has a
row for each of its samples (KEY.jpg, KEY.txt, KEY.json).

The key of a row is made of "img2dataset", its URL and its caption as it stands there (`records.row_key`), in `build`
and in `encode`; it depends on neither the file nor img2dataset's own number. A sample of a tar that states no URL has
`sha256:` and the hash of its image in the URL's place."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

from models.errors import UserError
from models.pixels import IMAGE_SUFFIXES
from pipeline.records import IMG2DATASET, Candidate, Damage, malformed
from pipeline.sources.file_kinds import PARQUET, TAR
from pipeline.sources.paths import absolute, base_name, exists, expand, map_files
from pipeline.sources.readers import MAX_ROW_BYTES, Row, open_seekable, parquet_columns, parquet_records, pixels
from pipeline.sources.source import FileRange, NoSettings, Source
from pipeline.sources.tar_names import TAR_SUFFIXES, is_hidden, is_tar, split_name, without_tar_suffix

NAME = IMG2DATASET
URL_COLUMNS = ("url", "image_url")
IMAGE_COLUMNS = ("jpg", "png", "webp")
TEXT_SUFFIXES = {"json", "txt"}  # of a sample's members in a tar; any other is its image
CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text")
STATE_COLUMNS = ("original_width", "original_height", "key", "status", "error_message")


class StatedRow(NamedTuple):
    """A row, and why img2dataset has no image of it ("" if it has one)."""

    row: Row
    failure: str = ""


def files(pattern: str) -> list[str]:
    """The Parquet files of an output that is named by its folder, by its tars, by one of its folders of images or by
    themselves; a tar that has none stands for itself."""
    if not os.path.isdir(pattern):
        return sorted(set(map_files(table_of, [path for path in expand(pattern) if not is_hidden(path)])))
    folder = pattern.rstrip(os.sep)
    if os.path.isfile(f"{folder}.parquet"):
        return [f"{folder}.parquet"]
    names = [name for name in os.listdir(folder) if not is_hidden(name)]
    found = [os.path.join(folder, name) for name in names if name.endswith((".parquet", *TAR_SUFFIXES))]
    if not found:
        raise UserError(f"{pattern} holds no Parquet file and no tar: name the folder that img2dataset wrote")
    return sorted(set(map_files(table_of, found)))


def table_of(path: str) -> str:
    """The Parquet file beside a tar; the path itself if there is none, or if it is no tar."""
    table = f"{without_tar_suffix(path)}.parquet"
    return table if is_tar(path) and exists(table) else path


def tar_beside(table: str) -> str:
    """The tar beside a Parquet file, or ""."""
    beside = table.removesuffix(".parquet")
    return next((f"{beside}{suffix}" for suffix in TAR_SUFFIXES if exists(f"{beside}{suffix}")), "")


def read(stream: BinaryIO, file: str, path: str = "") -> Iterator[Row]:
    """The rows; `stream` must be able to seek. `path`: where a later stage finds the file."""
    return (stated.row for stated in read_stated(stream, file, path))


def read_stated(stream: BinaryIO, file: str, path: str = "") -> Iterator[StatedRow]:
    """The rows, each with its failure."""
    if is_tar(file):
        yield from map(StatedRow, _of_tar(stream, file, absolute(path) if path else ""))
        return
    wanted = (*URL_COLUMNS, *CAPTION_COLUMNS, *STATE_COLUMNS)
    store = image_store(absolute(path), parquet_columns(stream)) if path else ""
    for row, (record, fault) in enumerate(parquet_records(stream, wanted, (URL_COLUMNS, CAPTION_COLUMNS))):
        if fault:
            yield StatedRow(malformed(NAME, file, row, "", fault))
        else:
            yield StatedRow(_candidate(record, file, row, store), _failure(record))


def _failure(record: Mapping[str, Any]) -> str:
    status = record.get("status")
    return "" if status == "success" else f"{status or 'no status'}: {record.get('error_message') or 'not told why'}"


def image_store(path: str, columns: Sequence[str]) -> str:
    """What holds the images of a Parquet file's rows: itself, the tar or the folder beside it; "" if nothing does."""
    beside = path.removesuffix(".parquet")
    if "key" not in columns or "status" not in columns or beside == path:
        return ""
    if set(IMAGE_COLUMNS) & set(columns):
        return path
    return tar_beside(path) or (beside if os.path.isdir(beside) else "")


def _candidate(record: Mapping[str, Any], file: str, row: int, store: str) -> Row:
    url, caption = _first(record, URL_COLUMNS), _first(record, CAPTION_COLUMNS)
    if not isinstance(url, str) or not isinstance(caption, str):
        return malformed(NAME, file, row, f"{url}\t{caption}", "the URL or the caption is not text")
    place = row if store.endswith(".parquet") else record.get("key")
    stored_at = f"{store}#{place}" if store and record.get("status") == "success" else ""
    # The size of the original is not that of the image that lies there, which is checked when it is read.
    width, height = (None if stored_at else pixels(record.get(f"original_{side}")) for side in ("width", "height"))
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


Sample = tuple[str, dict[str, tarfile.TarInfo]]
"""Key and members of a sample in a tar, by their endings in lower case."""


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
        yield malformed(NAME, file, row, "", Damage(f"not readable as a tar file from here on: {fault}"))


def _samples(tar: tarfile.TarFile) -> Iterator[Sample]:
    """Members of one key, which stand together, by their endings."""
    key = ""
    members: dict[str, tarfile.TarInfo] = {}
    for info in filter(tarfile.TarInfo.isfile, tar):
        if is_hidden(info.name):
            continue
        stem, ending = split_name(info.name)
        if stem != key:
            yield from _split_sample(key, members)
            key, members = stem, {}
        members.setdefault(ending, info)
    yield from _split_sample(key, members)


def _split_sample(key: str, members: dict[str, tarfile.TarInfo]) -> Iterator[Sample]:
    """The sample of a key up to the first dot, without further files such as KEY.seg.png; if it has no image KEY.jpg,
    its dots belong to keys."""
    if any(ending in IMAGE_SUFFIXES for ending in members):
        yield key, {ending: info for ending, info in members.items() if "." not in ending}
        return
    by_key: dict[str, dict[str, tarfile.TarInfo]] = {}
    for full_ending, info in members.items():
        rest, _, ending = full_ending.rpartition(".")
        by_key.setdefault(f"{key}.{rest}" if rest else key, {})[ending] = info
    yield from by_key.items()


def _sample(
    tar: tarfile.TarFile, key: str, members: Mapping[str, tarfile.TarInfo], file: str, row: int, store: str
) -> Row:
    texts = {ending: info for ending, info in members.items() if ending in TEXT_SUFFIXES}
    if any(info.size > MAX_ROW_BYTES for info in texts.values()):
        return malformed(NAME, file, row, key, f"{key}: a text of more than {MAX_ROW_BYTES} bytes")
    data = {ending: cast(BinaryIO, tar.extractfile(info)).read() for ending, info in texts.items()}
    try:
        metadata = dict(json.loads(data.get("json", b"{}")))
        caption = data["txt"].decode() if "txt" in data else metadata.get("caption")
    except (ValueError, TypeError, RecursionError) as error:
        return malformed(NAME, file, row, key, f"{key}: not readable as img2dataset's .json and .txt: {error}")
    url = metadata.get("url") or _hash_url(tar, members)
    record = metadata | {"url": url, "caption": caption, "key": key, "status": "success"}
    return _candidate(record, file, row, store)


def _hash_url(tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> str:
    """What stands for the URL of an image that has none; "" if there is no image."""
    info = next((info for ending, info in members.items() if ending in IMAGE_SUFFIXES), None)
    return f"sha256:{hashlib.sha256(cast(BinaryIO, tar.extractfile(info)).read()).hexdigest()}" if info else ""


def _first(record: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """The value of the first of the columns that the file has, "" for null."""
    value = next(record[column] for column in columns if column in record)
    return "" if value is None else value


class Img2dataset(Source[NoSettings]):
    """An output of img2dataset, or any table of URLs and captions, as a source of select."""

    name = NAME
    settings = NoSettings()
    kinds = frozenset({PARQUET, TAR})

    def files(self, pattern: str) -> list[str]:
        return files(pattern)

    def read_range(self, file_range: FileRange, settings: NoSettings, first_line_number: int = 0) -> Iterator[Row]:
        with open_seekable(file_range.path, from_tar=False) as stream:
            yield from read(stream, base_name(file_range.path), file_range.path)
