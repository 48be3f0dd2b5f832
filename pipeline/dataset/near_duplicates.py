"""Near-duplicates: keeps one image of each set of near-duplicates, and none that is one of an excluded image.

`image_signature` defines a near-duplicate, `hash_bands` finds the pairs that are compared. All that is large lies in
spill files, and images meet by their hashes: the outcome depends on the images alone, not on how Beam distributes
them, and memory on none of their numbers but that of the near-duplicates found."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Optional

import apache_beam as beam
import numpy as np
import pyarrow as pa

from models.hashing import stable_hash
from pipeline.dataset import hash_bands, image_signature
from pipeline.dataset.exclusion_list import ExclusionList, read_hashes
from pipeline.output import schemas
from pipeline.output.counts import LEFT_OUT, counts_of
from pipeline.output.spill import (
    HASH,
    HashRange,
    HashRanges,
    Spill,
    SpillFile,
    read_spilled,
    rows_as,
    spill_path,
    with_hash,
    write_spill,
)
from pipeline.records import REJECTED_TAG, EncodedPair, Reason, Rejected, Stage, kept_instead, reject
from pipeline.sources.precedence import source_rank

EXCLUDED_RANK = -1  # comes before every source
IMAGES_PER_GROUP = 10_000  # about 30 MB of signatures
ENTRIES_PER_GROUP = 1_000_000  # about 40 MB
IMAGES_AT_ONCE = 2000
ROWS_PER_SPILL = 10_000  # of rows with a signature


@dataclass(frozen=True)
class NearDuplicateConfig:
    near_duplicates: bool = False  # whether to keep only the first of near-duplicates
    exclude: str = ""  # path of a file of hashes, see `read_hashes`

    @property
    def on(self) -> bool:
        return self.near_duplicates or bool(self.exclude)


class ImageNode(NamedTuple):
    """An image. Sorted, the one that is kept comes first."""

    rank: int  # of its source
    file: str  # for an excluded image: its name in the list
    row: int
    key: str


class SignedImage(NamedTuple):
    """An image with its signature."""

    rank: int
    file: str
    row: int
    key: str
    signature: bytes  # of image_signature

    @property
    def node(self) -> ImageNode:
        return ImageNode._make(self[:4])


class Loser(NamedTuple):
    """A record to drop, and the image that is kept instead."""

    key: str
    kept_rank: int
    kept_name: str  # key, or of an excluded image its name


IMAGES = schemas.schema_of(SignedImage)
LOSERS = schemas.schema_of(Loser)
CANDIDATES = pa.schema([("other", pa.uint64())])
"""Candidates: the hash of one image is the hash by which they are spilled, `other` that of the other."""
EDGES = pa.schema([pa.field(f"{end}_{field.name}", field.type) for end in ("one", "other") for field in [*IMAGES][:4]])
"""Near-duplicates: two ImageNodes."""


class DropNearDuplicates(beam.PTransform):
    """Records -> those to keep, without signatures; the others come as rejects under their tag."""

    def __init__(self, config: NearDuplicateConfig, output: str):
        self._config, self._output = config, output
        if config.exclude:
            read_hashes(config.exclude)  # before the job starts, so that an error in the file ends it at once

    def expand(self, records):
        output = self._output
        stored = records | "Records" >> Spill(output, schemas.RECORDS, image_hash)
        listed = (
            records.pipeline
            | "List" >> beam.Create([self._config.exclude])
            | "Excluded" >> beam.FlatMap(excluded_images).with_output_types(SignedImage)
        )
        signed = records | "Signed" >> beam.FlatMap(signed_images).with_output_types(SignedImage)
        images = (signed, listed) | "Images" >> Spill(output, IMAGES, image_hash)
        ranges = images | "Ranges" >> HashRanges(IMAGES_PER_GROUP)
        entries = ranges | "Entries" >> _Step(spill_entries, output, images)
        pairs = (
            entries
            | "Bands" >> HashRanges(ENTRIES_PER_GROUP)
            | "Candidates" >> _Step(functools.partial(spill_candidates, self._config.near_duplicates), output, entries)
        )
        halves = ranges | "First of each" >> _Step(spill_halves, output, images, pairs)
        edges = ranges | "Compare" >> _Step(spill_edges, output, images, halves)
        losers = (
            records.pipeline
            | "Once" >> beam.Create([HashRange(0, 1, 1)])
            | "Sets" >> _Step(spill_losers, output, edges)
        )
        return (
            stored
            | "Parts" >> HashRanges(IMAGES_PER_GROUP)
            | "Drop"
            >> beam.ParDo(
                _Drop(output, self._config.exclude), beam.pvalue.AsList(stored), beam.pvalue.AsList(losers)
            ).with_outputs(REJECTED_TAG, main="records")
        )


class _Step(beam.PTransform):
    """HashRanges -> the SpillFiles that a function(output, range, spill files...) writes."""

    def __init__(self, function, output: str, *inputs: beam.PCollection):
        self._function, self._output, self._inputs = function, output, inputs

    def expand(self, ranges):
        return ranges | "Write" >> beam.FlatMap(
            _call, self._function, self._output, *map(beam.pvalue.AsList, self._inputs)
        ).with_output_types(SpillFile)


def _call(hashes: HashRange, function, output: str, *inputs: list[SpillFile]) -> Iterator[SpillFile]:
    for table in function(output, hashes, *inputs):
        if len(table):
            yield write_spill(output, spill_path(), table)


def signed_images(record: EncodedPair) -> list[SignedImage]:
    """Empty for a record without a signature, such as one of a dataset that is extended: it is kept."""
    if not record.signature:
        return []
    rank, signature = source_rank(record.source), record.signature
    return [SignedImage(rank=rank, file=record.file, row=record.row, key=record.key, signature=signature)]


def excluded_images(path: str) -> list[SignedImage]:
    """The images of a list that have a signature; none if there is no list."""
    return [
        SignedImage(
            rank=EXCLUDED_RANK,
            file=image.name,
            row=image.line,
            key=f"{image.sha256[:32]}{image.line:x}",
            signature=image.signature,
        )
        for image in _exclusion_list(path).images
    ]


@functools.lru_cache(maxsize=1)  # of each process: it may have 100 MB
def _exclusion_list(path: str) -> ExclusionList:
    return read_hashes(path) if path else ExclusionList({}, [])


def image_hash(image: SignedImage | EncodedPair) -> int:
    """What stands for the image in spill files."""
    return stable_hash(image.key)


def spill_entries(output: str, hashes: HashRange, images: list[SpillFile]) -> Iterator[pa.Table]:
    """The ENTRIES of the images of a range."""
    table = read_spilled(output, images, IMAGES, *hashes.bounds)
    parts = []
    for batch in table.combine_chunks().to_batches(max_chunksize=IMAGES_AT_ONCE):
        flags = np.where(batch["rank"].to_numpy() == EXCLUDED_RANK, hash_bands.EXCLUDED, 0).astype(np.uint8)
        entries = hash_bands.band_entries(batch["signature"].to_pylist(), batch[HASH].to_numpy(), flags)
        parts.append(entries.append_column(HASH, pa.array(hash_bands.group_hash(entries["band"].to_numpy()))))
    if parts:
        yield pa.concat_tables(parts)


def spill_candidates(all_pairs: bool, output: str, hashes: HashRange, entries: list[SpillFile]) -> Iterator[pa.Table]:
    """The candidates among the entries of a range, of which each group is whole."""
    table = read_spilled(output, entries, hash_bands.ENTRIES, *hashes.bounds)
    pairs, left_out = hash_bands.candidates_of(table, all_pairs)
    counts_of(output).add({LEFT_OUT: left_out})
    yield pa.table([pairs[:, 1], pairs[:, 0]], schema=with_hash(CANDIDATES))


def spill_halves(output: str, hashes: HashRange, images: list[SpillFile], pairs: list[SpillFile]) -> Iterator[pa.Table]:
    """The images of a range that are the first of a candidate, spilled by the hash of the other."""
    table = read_spilled(output, images, IMAGES, *hashes.bounds)
    candidates = read_spilled(output, pairs, CANDIDATES, *hashes.bounds)
    both = np.stack([candidates[HASH].to_numpy(), candidates["other"].to_numpy()], 1)
    one, number = _matches(table[HASH].to_numpy(), np.unique(both, axis=0)[:, 0])
    other = np.unique(both, axis=0)[number, 1]
    for start in range(0, len(one), ROWS_PER_SPILL):
        part = slice(start, start + ROWS_PER_SPILL)
        rows = table.take(one[part]).drop_columns([HASH])
        yield rows.append_column(HASH, pa.array(other[part], pa.uint64()))


def _matches(hashes: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(i, j): all positions for which hashes[i] == wanted[j]. Several images may have one hash."""
    order = np.argsort(hashes, kind="stable")
    first, stop = (np.searchsorted(hashes[order], wanted, side) for side in ("left", "right"))
    number = np.repeat(np.arange(len(wanted)), stop - first)
    offsets = np.arange(len(number)) - np.repeat(np.cumsum(stop - first) - (stop - first), stop - first)
    return order[first[number] + offsets], number


def spill_edges(output: str, hashes: HashRange, images: list[SpillFile], halves: list[SpillFile]) -> Iterator[pa.Table]:
    """The candidates whose second image is of this range and that are near-duplicates."""
    table = read_spilled(output, images, IMAGES, *hashes.bounds)
    others = read_spilled(output, halves, IMAGES, *hashes.bounds)
    found = confirmed_pairs(table, others)
    columns = list(zip(*(one + other for one, other in found), strict=True)) or [()] * len(EDGES)
    edges = pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, EDGES, strict=True)], schema=EDGES
    )
    yield edges.append_column(HASH, pa.array(np.zeros(len(edges), np.uint64)))


def confirmed_pairs(images: pa.Table, others: pa.Table) -> list[tuple[ImageNode, ImageNode]]:
    """The near-duplicates among pairs of images and of others, where an other has its image's hash."""
    signed, found = list(rows_as(SignedImage, images)), []
    for one, other in zip(*_matches(images[HASH].to_numpy(), others[HASH].to_numpy()), strict=True):
        [second] = rows_as(SignedImage, others.slice(other, 1))
        pair = (signed[one], second)
        if image_signature.is_near_duplicate(*(image_signature.unpack_signature(each.signature) for each in pair)):
            found.append((pair[0].node, pair[1].node))
    return found


def spill_losers(output: str, hashes: HashRange, edges: list[SpillFile]) -> Iterator[pa.Table]:
    """The records to drop. All edges are in memory at once: about 1 kB for each."""
    rows = read_spilled(output, edges, EDGES, *hashes.bounds).drop_columns([HASH]).to_pylist()
    nodes = [tuple(row.values()) for row in rows]
    losers = [
        (key, kept.rank, kept.file if kept.rank == EXCLUDED_RANK else kept.key, stable_hash(key))
        for key, kept in duplicates_to_drop([(ImageNode._make(row[:4]), ImageNode._make(row[4:])) for row in nodes])
    ]
    columns = list(zip(*losers, strict=True)) or [()] * (len(LOSERS) + 1)
    yield pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, with_hash(LOSERS), strict=True)],
        schema=with_hash(LOSERS),
    )


def duplicates_to_drop(edges: Iterable[tuple[ImageNode, ImageNode]]) -> Iterator[tuple[str, ImageNode]]:
    """(key, the image that is kept instead) for every image to drop: of those that pairs join, the first is kept."""
    first: dict[ImageNode, ImageNode] = {}

    def root(node: ImageNode) -> ImageNode:
        while (above := first.setdefault(node, node)) != node:
            first[node] = first[above]
            node = above
        return node

    for one, other in edges:
        a, b = sorted((root(ImageNode._make(one)), root(ImageNode._make(other))))
        first[b] = a
    for node in sorted(first):
        if root(node) != node:
            yield node.key, root(node)


class _Drop(beam.DoFn):
    def __init__(self, output: str, exclude: str):
        self._output, self._exclude = output, exclude

    def process(self, hashes: HashRange, stored: list[SpillFile], losers: list[SpillFile]):
        dropped = {
            loser.key: loser for loser in rows_as(Loser, read_spilled(self._output, losers, LOSERS, *hashes.bounds))
        }
        table = read_spilled(self._output, stored, schemas.RECORDS, *hashes.bounds)
        for record in rows_as(EncodedPair, table):
            rejected = self._rejection(record, dropped.get(record.key))
            yield beam.pvalue.TaggedOutput(REJECTED_TAG, rejected) if rejected else record._replace(signature=b"")

    def _rejection(self, record: EncodedPair, instead: Optional[Loser]) -> Optional[Rejected]:
        if name := _exclusion_list(self._exclude).names.get(record.sha256):
            return reject(record, Stage.ENCODE, Reason.EXCLUDED, f"the same bytes as {name}")
        if instead is None:
            return None
        if instead.kept_rank == EXCLUDED_RANK:
            return reject(record, Stage.ENCODE, Reason.EXCLUDED, f"looks like {instead.kept_name}")
        return reject(record, Stage.ENCODE, Reason.DUPLICATE_IMAGE, kept_instead(instead.kept_name))
