"""Reads the tars of `pairmill fetch`: images in img2dataset's layout, with their pairs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from apache_beam.io.filesystems import FileSystems

from models.errors import UserError
from models.pixels import IMAGE_SUFFIXES
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_format import pair_of
from pipeline.images.validate import ImageConfig, ImageRejected, decode
from pipeline.output import files
from pipeline.output.names import LEDGER_FILE, SETTINGS_FILE, WORK_FOLDER
from pipeline.records import Pair, Rejected, Stage, reject


def fetch_output_of(paths: list[str]) -> str | None:
    """The folder of a finished `pairmill fetch` whose tar files these are; None for those of another tool.

    Raises UserError for some of a folder's files only, or an unfinished fetch: rows would be missing from the ledger.
    """
    folders = sorted({FileSystems.split(path)[0] for path in paths})
    ours = [
        folder
        for folder in folders
        if files.exists(files.join(folder, SETTINGS_FILE))
        or files.exists(files.join(folder, WORK_FOLDER, SETTINGS_FILE))
    ]
    if not ours:
        return None
    if len(folders) > 1:
        raise UserError(f"--images: {folders[0]} and {folders[1]}: encode one output of `pairmill fetch` at a time")
    [folder] = folders
    if not files.exists(files.join(folder, LEDGER_FILE)):
        raise UserError(f"--images: {folder} holds an unfinished fetch; run the same `pairmill fetch` again first")
    present = {name for name in files.list_files(folder) if re.fullmatch(r"\d+\.tar", name)}
    if missing := sorted(present - {FileSystems.split(path)[1] for path in paths}):
        raise UserError(f"--images: leaves out {missing[0]} of {folder}; give '{files.join(folder, '*.tar')}'")
    return folder


class StoredImage(NamedTuple):
    """The members of one key in a tar file."""

    metadata: dict
    data: bytes
    suffix: str
    caption: str


def read_image_shard(path: str) -> Iterator[StoredImage]:
    """The images of a tar file, in order; members of one key stand together, as webdataset wants.

    Raises ValueError for an incomplete tar file and for a .json that does not parse.
    """
    with files.open_read(path) as file:
        _check_end(file, path)
        try:
            with tarfile.open(fileobj=file, mode="r|") as tar:
                key: str | None = None
                members: dict[str, bytes] = {}
                for info in tar:
                    if not info.isfile():
                        continue
                    stem, _, ending = info.name.rpartition(".")
                    if stem != key:
                        yield from _stored(path, key, members)
                        key, members = stem, {}
                    members[ending.lower()] = cast(BinaryIO, tar.extractfile(info)).read()
                yield from _stored(path, key, members)
        except tarfile.TarError as error:
            raise ValueError(f"{path} is not a whole tar file: {error}") from error


def _check_end(file: BinaryIO, path: str) -> None:
    """Raises ValueError for a file cut between two members, which tarfile accepts: a complete one ends in zeros."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - tarfile.BLOCKSIZE))
    if length % tarfile.BLOCKSIZE or file.read() != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"{path} is not a whole tar file: it has no end")
    file.seek(0)


def _stored(path: str, key: str | None, members: dict[str, bytes]) -> Iterator[StoredImage]:
    endings = sorted(IMAGE_SUFFIXES & members.keys())
    if endings:
        try:
            metadata = json.loads(members.get("json", b"{}"))
        except ValueError as error:
            raise ValueError(f"{path}: {key}.json does not parse: {error}") from error
        caption = members.get("txt", b"").decode("utf-8", "replace") or metadata.get("caption") or ""
        yield StoredImage(metadata, members[endings[0]], endings[0], caption)


def is_of_fetch(path: str) -> bool:
    """Whether a file is a tar whose first image has its pair with it."""
    if not path.endswith(".tar"):
        return False
    try:
        return "pair_key" in next(read_image_shard(path)).metadata
    except (StopIteration, ValueError):  # empty or damaged
        return False


def list_pairs(path: str) -> Iterator[Pair]:
    for image in read_image_shard(path):
        yield pair_of(image.metadata, image.caption)


def read_images(path: str, config: ImageConfig) -> Iterator[FetchedImage | Rejected]:
    """Decodes the images of a tar file; unusable ones become rejects of the encode stage."""
    for image in read_image_shard(path):
        pair = pair_of(image.metadata, image.caption)
        try:
            rgb_HWC = decode(image.data, config)
        except ImageRejected as rejection:
            yield reject(pair, Stage.ENCODE, rejection.reason, rejection.detail)
            continue
        sha256 = image.metadata.get("sha256") or hashlib.sha256(image.data).hexdigest()
        yield FetchedImage(pair, image.data, np.ascontiguousarray(rgb_HWC), sha256)


def read_fetched(folder: str, number: int) -> Iterator[StoredImage]:
    """The images of a unit's tar file; empty if there is no such file."""
    path = files.join(folder, f"{number:05d}.tar")
    return read_image_shard(path) if files.exists(path) else iter(())
