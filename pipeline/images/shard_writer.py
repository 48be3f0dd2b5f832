"""Pictures in img2dataset's layout: `NNNNN.tar` (picture, .txt, .json), `NNNNN.parquet`, `NNNNN_stats.json`.

Written by `pairmill fetch`, read by `pairmill encode`, which takes img2dataset's own output as well. Our .json and
Parquet hold img2dataset's fields first and then those of the pair.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from apache_beam.io.filesystems import FileSystems
from PIL import Image

from models.errors import UserError
from pipeline.fetch.fetcher import Fetched
from pipeline.filters import split_of
from pipeline.images.area_resize import shrink
from pipeline.images.validate import PICTURE_SUFFIXES, PictureConfig, PictureRejected, decode, exif_text, suffix
from pipeline.output import files
from pipeline.output.parquet import table_bytes
from pipeline.output.work_folder import WORK_FOLDER
from pipeline.records import Pair, Reason, Rejected, Stage, reject, row_key

# Of pictures that arrived and are of no use; img2dataset calls those "failed_to_resize".
PICTURE_REASONS = frozenset(
    {Reason.NOT_AN_IMAGE, Reason.CORRUPT_IMAGE, Reason.TOO_MANY_PIXELS, Reason.ASPECT_RATIO, Reason.TOO_SMALL}
)
SOURCE = "img2dataset"  # of pictures that another tool has fetched
VAL_SHARE = 0.01  # of those, too

_PAIR_FIELDS = [
    ("pair_key", pa.string()),
    ("source", pa.string()),
    ("file", pa.string()),
    ("row", pa.int64()),
    ("fallback_urls", pa.list_(pa.string())),
    ("raw_caption", pa.string()),
    ("licence", pa.string()),
    ("page_url", pa.string()),
    ("split", pa.string()),
    ("source_width", pa.int32()),
    ("source_height", pa.int32()),
]
METADATA = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
        *_PAIR_FIELDS,
        ("reason", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class StoreConfig:
    """How pictures are stored. resize 0: the bytes as fetched."""

    resize: int = 0  # px of the shorter side, never enlarged
    image_format: str = "jpg"  # jpg, webp or png; of resized pictures
    quality: int = 95


class Stored(NamedTuple):
    """One picture's bytes as they go into the tar."""

    data: bytes
    suffix: str
    width: int
    height: int


def to_stored(picture: Fetched, config: StoreConfig) -> Stored:
    width, height = picture.size
    if not config.resize:
        return Stored(picture.data, suffix(picture.data), width, height)
    rgb_HWC, scale = picture.rgb_HWC, config.resize / min(width, height)
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        rgb_HWC = shrink(rgb_HWC, width, height)
    return Stored(_encoded(rgb_HWC, config), config.image_format, width, height)


def _encoded(rgb_HWC: np.ndarray, config: StoreConfig) -> bytes:
    if config.image_format == "jpg":
        return simplejpeg.encode_jpeg(rgb_HWC, config.quality, colorsubsampling="420")
    buffer = io.BytesIO()
    options = {"quality": config.quality} if config.image_format == "webp" else {}
    Image.fromarray(rgb_HWC).save(buffer, config.image_format, **options)
    return buffer.getvalue()


# --- writing ---------------------------------------------------------------------------------------------------------


class ShardWriter:
    """Takes outcomes in any order and writes one unit's three files in the order of its pairs.

    Pictures wait in a temporary file on the local disk, which the `with` block closes: a unit of large ones need not
    fit into memory.
    """

    def __init__(self, folder: str, number: int, pairs: list[Pair], config: StoreConfig):
        self._folder, self._number, self._pairs, self._config = folder, number, pairs, config
        self._rows: dict[str, dict] = {}
        self._places: dict[str, tuple[int, int]] = {}  # pair key -> offset and size in the spool
        self._spool: BinaryIO = tempfile.TemporaryFile()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._spool.close()

    def add(self, outcome: Fetched | Rejected) -> None:
        if isinstance(outcome, Rejected):
            self._rows[outcome.key] = {
                "status": "failed_to_resize" if outcome.reason in PICTURE_REASONS else "failed_to_download",
                "reason": outcome.reason,
                "error_message": f"{outcome.reason}: {outcome.detail}",
            }
            return
        stored, key = to_stored(outcome, self._config), outcome.pair.key
        self._keep(key, stored.data)
        width, height = outcome.size
        self._rows[key] = {
            "status": "success",
            "width": stored.width,
            "height": stored.height,
            "original_width": width,
            "original_height": height,
            "exif": exif_text(outcome.data),
            "sha256": outcome.sha256,
            "suffix": stored.suffix,
        }

    def add_stored(self, row: dict, data: bytes, file_suffix: str) -> None:
        """A picture of an earlier run, with its metadata row."""
        self._keep(row["pair_key"], data)
        self._rows[row["pair_key"]] = {**row, "suffix": file_suffix}

    def _keep(self, key: str, data: bytes) -> None:
        self._places[key] = (self._spool.seek(0, os.SEEK_END), len(data))
        self._spool.write(data)

    def write(self) -> None:
        """The tar, the Parquet file, then the statistics, whose presence says that the unit is finished."""
        base = files.join(self._folder, f"{self._number:05d}")
        rows = []
        with (
            files.whole_file(f"{base}.tar") as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for position, pair in enumerate(self._pairs):
                row = self._row(pair, position)
                rows.append(row)
                if pair.key in self._places:
                    self._add_members(tar, row, self._rows[pair.key]["suffix"], self._places[pair.key])
        files.write_whole(f"{base}.parquet", table_bytes(rows, METADATA))
        files.write_whole(f"{base}_stats.json", json.dumps(_statistics(rows), indent=4).encode() + b"\n")

    def _row(self, pair: Pair, position: int) -> dict:
        blank = dict.fromkeys(METADATA.names)
        outcome = {name: value for name, value in self._rows[pair.key].items() if name in blank}
        return (
            blank
            | outcome
            | {
                "key": f"{self._number:05d}{position:04d}",
                "url": pair.url,
                "caption": pair.caption,
                "pair_key": pair.key,
                "source": pair.source,
                "file": pair.file,
                "row": pair.row,
                "fallback_urls": list(pair.fallback_urls),
                "raw_caption": pair.raw_caption,
                "licence": pair.licence,
                "page_url": pair.page_url,
                "split": pair.split,
                "source_width": pair.width,
                "source_height": pair.height,
            }
        )

    def _add_members(self, tar: tarfile.TarFile, row: dict, file_suffix: str, place: tuple[int, int]) -> None:
        self._spool.seek(place[0])
        picture = self._spool.read(place[1])
        metadata = json.dumps(row, ensure_ascii=False, sort_keys=True).encode()
        for ending, data in ((file_suffix, picture), ("json", metadata), ("txt", row["caption"].encode())):
            info = tarfile.TarInfo(f"{row['key']}.{ending}")
            info.size, info.mode = len(data), 0o644  # the time stays 0: same pictures, same bytes
            tar.addfile(info, io.BytesIO(data))


def _statistics(rows: list[dict]) -> dict:
    """In img2dataset's names, without its times: same pictures, same bytes."""
    by_status = Counter(row["status"] for row in rows)
    by_reason = Counter(row["reason"] or "success" for row in rows)
    return {
        "count": len(rows),
        "successes": by_status["success"],
        "failed_to_download": by_status["failed_to_download"],
        "failed_to_resize": by_status["failed_to_resize"],
        "status_dict": dict(sorted(by_reason.items())),
    }


# --- finding -------------------------------------------------------------------------------------------------------


def find(pattern: str) -> list[str]:
    """The tar files of a pattern, sorted. Raises UserError if there are none."""
    paths = sorted(metadata.path for match in FileSystems.match([pattern]) for metadata in match.metadata_list)
    if not paths:
        raise UserError(f"--images {pattern}: no such file; give tar files of `pairmill fetch` or img2dataset")
    if others := [path for path in paths if not path.endswith(".tar")]:
        raise UserError(f"--images {pattern}: {others[0]} is not a .tar file; narrow the pattern, for example '*.tar'")
    return paths


def made_by_fetch(paths: list[str]) -> str | None:
    """The folder of a finished `pairmill fetch` whose tar files these are; None for those of another tool.

    Raises UserError for some of a folder's files only, or an unfinished fetch: rows would go missing in the account.
    """
    folders = sorted({FileSystems.split(path)[0] for path in paths})
    ours = [
        folder
        for folder in folders
        if files.exists(files.join(folder, "settings.json"))
        or files.exists(files.join(folder, WORK_FOLDER, "settings.json"))
    ]
    if not ours:
        return None
    if len(folders) > 1:
        raise UserError(f"--images: {folders[0]} and {folders[1]}: encode one output of `pairmill fetch` at a time")
    [folder] = folders
    if not files.exists(files.join(folder, "ledger.json")):
        raise UserError(f"--images: {folder} holds an unfinished fetch; run the same `pairmill fetch` again first")
    there = {name for name in files.list_files(folder) if re.fullmatch(r"\d+\.tar", name)}
    if missing := sorted(there - {FileSystems.split(path)[1] for path in paths}):
        raise UserError(f"--images: leaves out {missing[0]} of {folder}; give '{files.join(folder, '*.tar')}'")
    return folder


# --- reading ---------------------------------------------------------------------------------------------------------


class StoredPicture(NamedTuple):
    """What a tar holds of one key."""

    metadata: dict
    data: bytes
    suffix: str
    caption: str


def read_shard(path: str) -> Iterator[StoredPicture]:
    """The pictures of a tar file, in order; members of one key stand together, as webdataset wants.

    Raises ValueError for a file that is no whole tar, and for a .json that is none.
    """
    with files.open_read(path) as file:
        _check_end(file, path)
        try:
            with tarfile.open(fileobj=file, mode="r|") as tar:
                key, members = None, {}
                for info in tar:
                    if not info.isfile():
                        continue
                    stem, _, ending = info.name.rpartition(".")
                    if stem != key:
                        yield from _stored(path, key, members)
                        key, members = stem, {}
                    members[ending.lower()] = tar.extractfile(info).read()
                yield from _stored(path, key, members)
        except tarfile.TarError as error:
            raise ValueError(f"{path} is not a whole tar file: {error}") from error


def _check_end(file: BinaryIO, path: str) -> None:
    """tarfile takes a file that was cut between two members for a whole one; a whole one ends in zeros."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - tarfile.BLOCKSIZE))
    if length % tarfile.BLOCKSIZE or file.read() != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"{path} is not a whole tar file: it has no end")
    file.seek(0)


def _stored(path: str, key: str | None, members: dict[str, bytes]) -> Iterator[StoredPicture]:
    endings = sorted(PICTURE_SUFFIXES & members.keys())
    if endings:
        try:
            metadata = json.loads(members.get("json", b"{}"))
        except ValueError as error:
            raise ValueError(f"{path}: {key}.json does not parse: {error}") from error
        caption = members.get("txt", b"").decode("utf-8", "replace") or metadata.get("caption") or ""
        yield StoredPicture(metadata, members[endings[0]], endings[0], caption)


def to_pair(picture: StoredPicture, file: str, row: int) -> Pair:
    """The pair of a stored picture; one that another tool fetched gets its key from its URL and caption."""
    said = picture.metadata
    if "pair_key" in said:
        return Pair(
            said["pair_key"],
            said["source"],
            said["file"],
            said["row"],
            said["url"],
            said["fallback_urls"],
            picture.caption,
            said["raw_caption"],
            said["source_width"],
            said["source_height"],
            said["licence"],
            said["page_url"],
            said["split"],
        )
    url = said.get("url") or ""
    # Other tools' sets may hold a URL twice, with other bytes: the bytes are part of what the set says.
    key = row_key(SOURCE, f"{url} {hashlib.sha256(picture.data).hexdigest()}", picture.caption)
    return Pair(
        key,
        SOURCE,
        file,
        row,
        url,
        [],
        picture.caption,
        picture.caption,
        said.get("original_width"),
        said.get("original_height"),
        "",
        "",
        split_of(key, VAL_SHARE),
    )


def list_pairs(path: str) -> Iterator[Pair]:
    for row, picture in enumerate(read_shard(path)):
        yield to_pair(picture, os.path.basename(path), row)


def read_pictures(path: str, config: PictureConfig) -> Iterator[Fetched | Rejected]:
    """The tar's pictures as if they had just arrived; those that can't be used, as rejects of the encode stage."""
    for row, picture in enumerate(read_shard(path)):
        pair = to_pair(picture, os.path.basename(path), row)
        try:
            rgb_HWC = decode(picture.data, config)
        except PictureRejected as fault:
            yield reject(pair, Stage.ENCODE, fault.reason, fault.detail)
            continue
        sha256 = picture.metadata.get("sha256") or hashlib.sha256(picture.data).hexdigest()
        yield Fetched(pair, picture.data, np.ascontiguousarray(rgb_HWC), sha256)


def read_metadata(folder: str, number: int) -> Iterable[dict]:
    """The rows of a unit's Parquet file; none if there is no such file."""
    path = files.join(folder, f"{number:05d}.parquet")
    return pq.read_table(io.BytesIO(files.read(path))).to_pylist() if files.exists(path) else []


def read_fetched(folder: str, number: int) -> Iterator[StoredPicture]:
    """The pictures of a unit's tar file; none if there is no such file."""
    path = files.join(folder, f"{number:05d}.tar")
    return read_shard(path) if files.exists(path) else iter(())
