"""Reads the tars of `pairmill fetch`: images in img2dataset's layout, with their pairs."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Collection, Iterator
from typing import Annotated, Any, BinaryIO, NamedTuple, TypedDict, cast

import msgspec
import numpy as np
from apache_beam.io.filesystems import FileSystems

from models.errors import UserError
from models.pixels import IMAGE_SUFFIXES
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_format import pair_of
from pipeline.images.validate import ImageConfig, ImageRejected, decode
from pipeline.output import files
from pipeline.output.names import LEDGER_FILE, SETTINGS_FILE, WORK_FOLDER
from pipeline.records import Pair, Reason, Rejected, Stage, reject


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


MAX_MEMBER_BYTES = 1 << 30


class StoredImage(NamedTuple):
    """The members of one key in a tar file."""

    metadata: dict
    data: bytes
    suffix: str
    caption: str


def read_image_shard(path: str) -> Iterator[StoredImage]:
    """The images of a tar file, in order; members of one key stand together, as webdataset wants.

    Raises ValueError for an incomplete tar file, and for what no writer of such files makes: links, sparse and very
    long members, a key in two places, a .json that is no object.
    """
    with files.open_read(path) as file:
        _check_end(file, path)
        try:
            with tarfile.open(fileobj=file, mode="r|") as tar:
                for key, members in _samples(path, tar):
                    yield from _stored(path, key, members)
        except (tarfile.TarError, EOFError, OverflowError) as error:
            raise ValueError(f"{path} is not a whole tar file: {error}") from error


def _samples(path: str, tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The members of each key, by their endings."""
    key, members, keys = "", dict[str, bytes](), set[str]()
    for info in tar:
        if info.isdir():
            continue
        if not info.isreg() or info.issparse() or info.size > MAX_MEMBER_BYTES:
            raise ValueError(f"{path}: {info.name!r} is not a regular file of at most {MAX_MEMBER_BYTES:,} bytes")
        stem, _, ending = info.name.rpartition(".")
        if stem != key or not members:
            if members:
                yield key, members
            if stem in keys:
                raise ValueError(f"{path}: {stem!r} comes twice")
            key, members = stem, {}
            keys.add(stem)
        if ending.lower() in members:
            raise ValueError(f"{path}: {info.name!r} comes twice")
        members[ending.lower()] = cast(BinaryIO, tar.extractfile(info)).read()
    if members:
        yield key, members


def _check_end(file: BinaryIO, path: str) -> None:
    """Raises ValueError for a file cut between two members, which tarfile accepts: a complete one ends in zeros."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - tarfile.BLOCKSIZE))
    if length % tarfile.BLOCKSIZE or file.read() != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"{path} is not a whole tar file: it has no end")
    file.seek(0)


def _stored(path: str, key: str, members: dict[str, bytes]) -> Iterator[StoredImage]:
    endings = sorted(IMAGE_SUFFIXES & members.keys())
    if endings:
        try:
            metadata = msgspec.json.decode(members.get("json", b"{}"), type=dict[str, Any])
            caption = members.get("txt", b"").decode("utf-8", "replace") or msgspec.convert(
                metadata.get("caption") or "", str
            )
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {key}.json does not parse: {error}") from error
        yield StoredImage(metadata, members[endings[0]], endings[0], caption)


def is_of_fetch(path: str) -> bool:
    """Whether a file is a tar whose first image has its pair with it, though the name of a column may be damaged."""
    if not path.endswith(".tar"):
        return False
    try:
        return not _COLUMNS_OF_FETCH.isdisjoint(next(read_image_shard(path)).metadata)
    except (StopIteration, ValueError):  # empty or damaged
        return False


_COLUMNS_OF_FETCH = frozenset({"pair_key", "raw_caption", "stored_sha256"})  # which no other tool writes
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class _Required(TypedDict):
    """What the metadata of an image that `pairmill fetch` has stored must hold."""

    url: str
    sha256: _Sha256
    stored_sha256: _Sha256
    pair_key: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    source: str
    file: str
    row: int
    fallback_urls: list[str]
    raw_caption: str
    licence: str
    page_url: str
    split: Annotated[str, msgspec.Meta(pattern=r"\A(?:train|val)\Z")]
    source_width: int | None
    source_height: int | None


class _Row(_Required, total=False):
    """And what it may hold."""

    other_captions: list[str]


def _pairs(path: str) -> Iterator[tuple[StoredImage, Pair]]:
    """The images of a tar file with their pairs. Raises UserError for a file that `pairmill fetch` has not written."""
    try:
        for image in read_image_shard(path):
            msgspec.convert(image.metadata, _Row)
            yield image, pair_of(image.metadata, image.caption)
    except (ValueError, msgspec.ValidationError) as error:
        raise UserError(f"{path} is damaged: {error}; delete it and run the same `pairmill fetch` again") from None


def list_pairs(path: str) -> Iterator[Pair]:
    for _, pair in _pairs(path):
        yield pair


def read_images(
    path: str, config: ImageConfig, keys: Collection[str] | None = None
) -> Iterator[FetchedImage | Rejected]:
    """Decodes the images of a tar file, all of them or those of some keys; unusable ones become rejects of the encode
    stage."""
    for image, pair in _pairs(path):
        if keys is not None and pair.key not in keys:
            continue
        actual = hashlib.sha256(image.data).hexdigest()
        if image.metadata["stored_sha256"] != actual:
            yield reject(pair, Stage.ENCODE, Reason.HASH_MISMATCH, f"{path}: the stored image has sha256 {actual}")
            continue
        try:
            rgb_HWC = decode(image.data, config)
        except ImageRejected as rejection:
            yield reject(pair, Stage.ENCODE, rejection.reason, rejection.detail)
            continue
        yield FetchedImage(pair, image.data, np.ascontiguousarray(rgb_HWC), image.metadata["sha256"])


def read_fetched(folder: str, number: int) -> Iterator[StoredImage]:
    """The images of a unit's tar file; empty if there is no such file."""
    path = files.join(folder, f"{number:05d}.tar")
    return read_image_shard(path) if files.exists(path) else iter(())
