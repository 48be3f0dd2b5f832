"""Images in img2dataset's layout: `NNNNN.tar` (image, .txt, .json), `NNNNN.parquet`, `NNNNN_stats.json`.

Written by `pairmill fetch`, read by `pairmill encode`, which takes img2dataset's own output as well. Our .json and
Parquet hold img2dataset's fields first and then those of the pair.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tarfile
import tempfile
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from pipeline.images import shard_attempt
from pipeline.images.area_resize import area_resize
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_format import LATER_COLUMNS, METADATA, pair_columns, reject_columns
from pipeline.images.validate import exif_text, suffix
from pipeline.output import files
from pipeline.output.parquet import table_bytes
from pipeline.records import Pair, Rejected


@dataclasses.dataclass(frozen=True)
class StoreConfig:
    """How images are stored. resize 0: the bytes as fetched."""

    resize: int = 0  # px of the shorter side, never enlarged
    image_format: str = "jpg"  # jpg, webp or png; of resized images
    quality: int = 95


class ImageFile(NamedTuple):
    """One image's bytes as they go into the tar."""

    data: bytes
    suffix: str
    width: int
    height: int


class ImageMember(NamedTuple):
    """An image as a shard has it: its file and its columns of metadata."""

    pair: Pair
    file: ImageFile
    columns: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return len(self.file.data)


def to_member(image: FetchedImage, config: StoreConfig) -> ImageMember:
    """An image as a shard stores it. `image.rgb_HWC`, uint8 [H, W, 3], is read only if images are resized, and then has
    a shorter side of at least `config.resize` px, or all pixels of a smaller image."""
    file = to_image_file(image, config)
    original_width, original_height = image.size
    columns = {
        "status": "success",
        "width": file.width,
        "height": file.height,
        "original_width": original_width,
        "original_height": original_height,
        "exif": exif_text(image.exif),
        "sha256": image.sha256,
        "stored_sha256": hashlib.sha256(file.data).hexdigest() if config.resize else image.sha256,
        "suffix": file.suffix,
    }
    return ImageMember(image.pair, file, columns)


def to_image_file(image: FetchedImage, config: StoreConfig) -> ImageFile:
    """The bytes to store: as fetched, or encoded from uint8 [H, W, 3] with a shorter side of `config.resize` px."""
    width, height = image.size
    if not config.resize:
        return ImageFile(image.data, suffix(image.data), width, height)
    rgb_HWC, scale = image.rgb_HWC, config.resize / min(width, height)
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        rgb_HWC = area_resize(rgb_HWC, width, height)
    return ImageFile(_encoded(rgb_HWC, config), config.image_format, width, height)


def _encoded(rgb_HWC: np.ndarray, config: StoreConfig) -> bytes:
    """A JPEG, WebP or PNG file of uint8 [H, W, 3]."""
    if config.image_format == "jpg":
        return simplejpeg.encode_jpeg(rgb_HWC, config.quality, colorsubsampling="420")
    buffer = io.BytesIO()
    options = {"quality": config.quality} if config.image_format == "webp" else {}
    Image.fromarray(rgb_HWC).save(buffer, config.image_format, **options)
    return buffer.getvalue()


class ShardWriter:
    """Takes outcomes in any order and writes one unit's three files in the order of its pairs.

    Images wait in a temporary file on the local disk, which the `with` block closes: a unit of large ones need not
    fit into memory.
    """

    def __init__(self, folder: str, number: int, pairs: list[Pair]):
        self._folder, self._number, self._pairs = folder, number, pairs
        self._rows: dict[str, dict] = {}
        self._positions: dict[str, tuple[int, int]] = {}  # pair key -> offset and size in the spool
        with files.temporary_files():
            self._spool: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._spool.close()

    def add(self, outcome: ImageMember | Rejected) -> None:
        if isinstance(outcome, Rejected):
            self._rows[outcome.key] = reject_columns(outcome)
        else:
            self._keep(outcome.pair.key, outcome.file.data)
            self._rows[outcome.pair.key] = outcome.columns

    def add_stored(self, row: dict, data: bytes, file_suffix: str) -> None:
        """An image of an earlier run, with its metadata row."""
        self._keep(row["pair_key"], data)
        self._rows[row["pair_key"]] = {**row, "suffix": file_suffix}

    def _keep(self, key: str, data: bytes) -> None:
        with files.temporary_files():
            self._positions[key] = (self._spool.seek(0, os.SEEK_END), len(data))
            self._spool.write(data)

    def write(self) -> None:
        """Publishes the tar, the Parquet file, then the statistics, whose presence marks the unit as finished; or
        what another attempt at these pairs has written in the meantime."""
        with shard_attempt.new_attempt(self._folder, self._number, self._pairs) as base:
            rows = []
            with (
                files.atomic_writer(f"{base}.tar") as file,
                tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for position, pair in enumerate(self._pairs):
                    row = self._row(pair, position)
                    rows.append(row)
                    if pair.key in self._positions:
                        self._add_members(tar, row, self._rows[pair.key]["suffix"], self._positions[pair.key])
            files.write_atomically(f"{base}.parquet", table_bytes(rows, METADATA))

    def _row(self, pair: Pair, position: int) -> dict:
        blank = dict.fromkeys(METADATA.names)
        outcome = {name: value for name, value in self._rows[pair.key].items() if name in blank}
        return blank | outcome | pair_columns(pair) | {"key": f"{self._number:05d}{position:04d}"}

    def _add_members(
        self, tar: tarfile.TarFile, row: dict, file_suffix: str, position_and_size: tuple[int, int]
    ) -> None:
        with files.temporary_files():
            self._spool.seek(position_and_size[0])
            image = self._spool.read(position_and_size[1])
        stated = {name: value for name, value in row.items() if value or name not in LATER_COLUMNS}
        metadata = json.dumps(stated, ensure_ascii=False, sort_keys=True).encode()
        for ending, data in ((file_suffix, image), ("json", metadata), ("txt", row["caption"].encode())):
            info = tarfile.TarInfo(f"{row['key']}.{ending}")
            info.size, info.mode = len(data), 0o644  # the time stays 0: same images, same bytes
            tar.addfile(info, io.BytesIO(data))
