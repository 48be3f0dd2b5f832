"""Samples of what earlier stages wrote, as folders that a job reads: pairs for fetch, images for encode and score."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.errors import UserError
from pipeline.estimate.quantity import SEED, Array, exactly
from pipeline.estimate.sample import POSITIONS, SampledRange, Stratum
from pipeline.fetch import stored_shards
from pipeline.images import shard_reader
from pipeline.output import files, parquet
from pipeline.output.finish import read_settings, write_settings
from pipeline.output.ledger import KEPT, READ, read_ledger, write_ledger
from pipeline.output.names import PAIRS_FOLDER
from pipeline.records import Rejected
from pipeline.sources.file_ranges import FileRange
from pipeline.sources.paths import base_name, exists, open_raw
from pipeline.sources.readers import open_seekable
from pipeline.sources.tar_names import split_name

IMAGES = "images"


def write_pairs(pairs: str, folder: str, rows: int) -> int:
    """Writes a selection of about `rows` of a selection's pairs, in a seeded choice, and returns their number."""
    tables = list(_slices(parquet.files_in(pairs, PAIRS_FOLDER), rows))
    sample = pa.concat_tables(tables)
    path = files.join(folder, PAIRS_FOLDER, "00000.parquet")
    files.write_atomically(path, parquet.file_bytes(sample))
    write_settings(folder, read_settings(pairs))
    sources = {each["values"]: each["counts"] for each in sample["source"].value_counts().to_pylist()}
    _write_ledger(folder, sources)
    return len(sample)


def _write_ledger(folder: str, sources: dict[str, int]) -> None:
    """The ledger of a stage that has kept all rows."""
    rows = {source: {READ: number, KEPT: number, "rejected": {}} for source, number in sources.items()}
    write_ledger(folder, {"sources": rows})


def _slices(paths: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Rows that stand together, from POSITIONS positions in Parquet files; all rows if they are no more than `rows`."""
    groups = [(path, number, size) for path in paths for number, size in enumerate(_group_sizes(path))]
    ends = np.cumsum([size for _, _, size in groups])
    if ends[-1] <= rows:
        yield from (_read_group(path, number) for path, number, _ in groups)
        return
    rng, stretch, length = np.random.default_rng(SEED), int(ends[-1]) // POSITIONS, -(-rows // POSITIONS)
    for stretch_number in range(POSITIONS):
        position = stretch_number * stretch + int(rng.integers(0, max(1, stretch - length)))
        index = int(np.searchsorted(ends, position, "right"))
        path, number, size = groups[index]
        yield _read_group(path, number).slice(position - int(ends[index]) + size, length)


def _group_sizes(path: str) -> list[int]:
    with files.open_read(path) as file:
        metadata = pq.ParquetFile(file).metadata
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def _read_group(path: str, number: int) -> pa.Table:
    with files.open_read(path) as file:
        return pq.ParquetFile(file).read_row_group(number)


def write_images(paths: Sequence[str], folder: str, rows: int) -> Stratum:
    """Writes about `rows` images into `folder`: the first of some of these shards, in a seeded choice, as shards.

    Raises UserError for remote shards that are no tars.
    """
    rng = np.random.default_rng(SEED)
    chosen = sorted(int(number) for number in rng.choice(len(paths), min(POSITIONS, len(paths)), replace=False))
    limit = -(-rows // len(chosen))
    os.makedirs(folder, exist_ok=True)
    ranges = [_write_shard(paths[number], folder, limit) for number in chosen]
    if before := shard_reader.fetch_output_of(list(paths)):
        write_settings(folder, read_settings(before))
        sources = [pair.source for path in _tars(folder) for pair in shard_reader.list_pairs(path)]
        _write_ledger(folder, {source: sources.count(source) for source in sorted(set(sources))})
    return Stratum(IMAGES, float(sum(map(_size, paths))), tuple(ranges))


def number_of_images(paths: Sequence[str], sample: Stratum) -> Array:
    """How many images shards hold: by the ledger of their fetch, or for another tool's by their bytes."""
    if before := shard_reader.fetch_output_of(list(paths)):
        return exactly(sum(rows[KEPT] for rows in read_ledger(before)["sources"].values()))
    return np.maximum(sample.rows(), sample.sampled)


def _tars(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(TAR)]


TAR, TABLE = ".tar", ".parquet"


def _write_shard(path: str, folder: str, limit: int) -> SampledRange:
    """Copies the first `limit` images of a shard, or links to it if it is no plain tar."""
    name = base_name(path)
    if not path.endswith(TAR):
        _link(path, os.path.join(folder, name))
        rows = sum(not isinstance(row, Rejected) for row in stored_shards.list_rows(path))
        return SampledRange(FileRange(IMAGES, path), _size(path), rows, rows)
    keys, extent = _copy_images(path, os.path.join(folder, name), limit)
    _copy_rows(path.removesuffix(TAR) + TABLE, os.path.join(folder, name.removesuffix(TAR) + TABLE), keys)
    return SampledRange(FileRange(IMAGES, path), extent, len(keys), len(keys))


def _copy_images(path: str, copy: str, limit: int) -> tuple[list[str], int]:
    """Copies members of a tar up to `limit` keys. Returns these, and the bytes that they take of it."""
    keys: dict[str, None] = {}
    with open_raw(path) as file, tarfile.open(fileobj=file, mode="r|") as tar, tarfile.open(copy, "w") as out:
        for member in tar:
            key, _ = split_name(member.name)
            if key not in keys and len(keys) == limit:
                return list(keys), member.offset
            keys[key] = None
            out.addfile(member, tar.extractfile(member) if member.isreg() else None)
    return list(keys), _size(path)


def _copy_rows(table: str, copy: str, keys: Sequence[str]) -> None:
    """Copies the rows of a shard's table, if it has one, that belong to these keys."""
    if exists(table):
        with open_seekable(table) as file:
            rows = pq.read_table(file)
        pq.write_table(rows.filter(pc.is_in(rows["key"], pa.array(keys, pa.string()))), copy)


def _link(path: str, link: str) -> None:
    """Makes a shard, and the folder of its images if it has one, appear at another place."""
    if "://" in path:
        raise UserError(
            f"{path}: --estimate samples remote images in .tar files only; copy some shards to this machine"
        )
    os.symlink(os.path.abspath(path), link)
    for beside in (path.removesuffix(TABLE), f"{path.split('.tar')[0]}{TABLE}"):
        if beside != path and os.path.exists(beside):
            os.symlink(os.path.abspath(beside), os.path.join(os.path.dirname(link), os.path.basename(beside)))


def _size(path: str) -> int:
    with open_raw(path) as file:
        return file.seek(0, os.SEEK_END)
