"""Finished datasets as input of a new one: their records, rejects and counts, without encoding again."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

import apache_beam as beam
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.data.format import INDEX_FOLDER, Manifest, Shard, index_path, pack_uint16, read_manifest, read_token_shard
from models.errors import UserError
from models.hashing import in_share, stable_hash
from models.tokenizers.info import TEXT_TOKENIZER_FILE, require_same_tokenizer
from pipeline.dataset.finish import ManifestFields
from pipeline.output import files, parquet
from pipeline.output.ledger import READ, Count, CountRows, previous_counts, read_ledger
from pipeline.output.names import REJECTS_FOLDER
from pipeline.records import REJECTED_TAG, EncodedPair, Reason, Rejected, Stage, reject


def check_addition(old: list[ExistingDataset], parts: ManifestFields) -> None:
    """Raises UserError unless new pairs are encoded like those of the datasets that they are added to."""
    for dataset in old:
        for what, expected in (("image tokenizer", parts.image_tokenizer), ("text tokenizer", parts.text_tokenizer)):
            actual = getattr(dataset.manifest, what.replace(" ", "_"))
            problem = f"--add-to {dataset.directory}: it was made with another {what}"
            require_same_tokenizer(expected.fingerprint, actual.fingerprint, problem, "give the one that made it")
        if dataset.manifest.draws != parts.draws:
            raise UserError(
                f"--add-to {dataset.directory}: it has {dataset.manifest.draws} crops for each image; "
                f"give --draws {dataset.manifest.draws}"
            )


def parts_of(
    datasets: list[ExistingDataset], subsets: list[Subset], shards: dict[str, int], sources: set[str]
) -> ManifestFields:
    """The manifest of a repacked dataset: the tokenizers of its datasets, and their settings under `made_from`."""
    first = datasets[0].manifest
    settings = {
        "shards": shards,
        "made_from": [
            {
                "manifest_sha256": hashlib.sha256(dataset.manifest.to_json().encode()).hexdigest(),
                "share": subset.share,
                "only_sources": list(subset.sources),
                "settings": dataset.manifest.settings,
            }
            for dataset, subset in zip(datasets, subsets, strict=True)
        ],
    }
    text_tokenizer_json = files.read(files.join(datasets[0].directory, TEXT_TOKENIZER_FILE)).decode()
    return ManifestFields(
        first.image_tokenizer,
        first.text_tokenizer,
        text_tokenizer_json,
        first.draws,
        settings,
        first.versions,
        tuple(sorted(sources)),
    )


class ExistingDataset(NamedTuple):
    """A finished dataset on a local file system."""

    directory: str
    manifest: Manifest


class Subset(NamedTuple):
    """Which pairs of a dataset to take."""

    share: float = 1.0  # of the pairs, by hash of the key: a larger share contains every smaller one
    sources: Sequence[str] = ()  # only these; empty: all

    def rejection(self, record: EncodedPair) -> Optional[str]:
        """Why the subset leaves a record out, or None."""
        if self.sources and record.source not in self.sources:
            return f"source {record.source}"
        return None if in_share(stable_hash("share", record.key), self.share) else f"share {self.share:g}"


def open_existing(directories: Sequence[str]) -> list[ExistingDataset]:
    """Reads the manifests of finished datasets. Raises UserError unless all have the same tokenizers and draws."""
    found = [ExistingDataset(directory, read_manifest(directory)) for directory in directories]
    for other in found[1:]:
        for what in ("image_tokenizer", "text_tokenizer"):
            expected, actual = (getattr(each.manifest, what).fingerprint for each in (found[0], other))
            problem = f"{other.directory} has tokens of another {what.replace('_', ' ')} than {found[0].directory}"
            require_same_tokenizer(actual, expected, problem, "encode one of them again")
        if other.manifest.draws != found[0].manifest.draws:
            raise UserError(
                f"{other.directory} has {other.manifest.draws} crops for each image, {found[0].directory} "
                f"{found[0].manifest.draws}; encode one of them again"
            )
    return found


def counts_read(datasets: Iterable[ExistingDataset]) -> list[Count]:
    """The ledgers' counts of rows read."""
    return [
        count
        for dataset in datasets
        for count in previous_counts(read_ledger(dataset.directory))
        if count[0][1] == READ
    ]


def reject_files(datasets: Iterable[ExistingDataset]) -> list[str]:
    return [
        files.join(dataset.directory, *file.path.split("/"))
        for dataset in datasets
        for file in dataset.manifest.files
        if file.path.startswith(f"{REJECTS_FOLDER}/")
    ]


class ReadRecords(beam.PTransform):
    """The records of datasets. Those outside the subsets, and keys that an earlier dataset has, come as rejects."""

    def __init__(self, datasets: list[ExistingDataset], subsets: list[Subset]):
        self._datasets, self._subsets = datasets, subsets

    def expand(self, pipeline):
        shards = [
            (number, dataset.directory, shard)
            for number, dataset in enumerate(self._datasets)
            for shard in dataset.manifest.shards
        ]
        return (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_numbered).with_output_types(tuple[str, tuple[int, EncodedPair]])
            | "Same key" >> beam.GroupByKey()
            | "First" >> beam.ParDo(_KeepWanted(self._subsets)).with_outputs(REJECTED_TAG, main="records")
        )


def _numbered(element: tuple[int, str, Shard]) -> Iterator[tuple[str, tuple[int, EncodedPair]]]:
    number, directory, shard = element
    for record in read_records(directory, shard):
        yield record.key, (number, record)


class _KeepWanted(beam.DoFn):
    def __init__(self, subsets: list[Subset]):
        self._subsets = subsets

    def process(self, group: tuple[str, Iterable[tuple[int, EncodedPair]]]):
        first = None
        for number, record in sorted(group[1], key=lambda numbered: (numbered[0], numbered[1].row)):
            if reason := self._subsets[number].rejection(record):
                rejected = reject(record, Stage.ENCODE, Reason.SAMPLED_OUT, reason)
            elif first:
                rejected = reject(record, Stage.ENCODE, Reason.DUPLICATE_PAIR, f"kept {first.key}")
            else:
                first = record
                yield record
                continue
            yield beam.pvalue.TaggedOutput(REJECTED_TAG, rejected)


def read_records(directory: str, shard: Shard) -> Iterator[EncodedPair]:
    """The records of one shard. Raises UserError if the shard is damaged or has other keys than its index."""
    rows = pq.read_table(files.join(directory, *index_path(shard.path).split("/")), partitioning=None).to_pylist()
    try:
        samples = list(read_token_shard(files.join(directory, *shard.path.split("/"))))
    except ValueError as error:
        raise UserError(f"{directory}/{shard.path} is damaged: {error}; `pairmill verify` lists all damage") from None
    if [row["key"] for row in rows] != [sample.key for sample in samples]:
        raise UserError(f"{directory}/{shard.path} and its index hold other pairs; `pairmill verify` lists all damage")
    for row, sample in zip(rows, samples, strict=True):
        boxes = [number for box in row["crop_boxes"] for number in box]
        fields = {name: row[name] for name in EncodedPair._fields if name in row}
        yield EncodedPair(**fields, codes=pack_uint16(sample.codes), tokens=pack_uint16(sample.tokens), boxes=boxes)


class KnownKeys:
    """The keys of a dataset's rows, kept or rejected, 16 bytes each; with the rejects of fetch if `unfetched`."""

    def __init__(self, dataset: ExistingDataset, unfetched: bool):
        settled = None if unfetched else pc.field("stage") != Stage.FETCH.value
        keys = itertools.chain(self._read(dataset, INDEX_FOLDER), self._read(dataset, REJECTS_FOLDER, settled))
        self._keys = np.sort(np.array([bytes.fromhex(key) for key in keys], "S16"))

    @staticmethod
    def _read(dataset: ExistingDataset, folder: str, row_filter: Optional[pc.Expression] = None) -> Iterator[str]:
        for file in dataset.manifest.files:
            if file.path.startswith(f"{folder}/"):
                path = files.join(dataset.directory, *file.path.split("/"))
                yield from pq.read_table(path, columns=["key"], filters=row_filter, partitioning=None)[
                    "key"
                ].to_pylist()

    def __contains__(self, key: str) -> bool:
        target = bytes.fromhex(key).rstrip(b"\0")  # as numpy hands out what it stores in 16 bytes
        position = int(np.searchsorted(self._keys, np.bytes_(target)))
        return position < len(self._keys) and bool(self._keys[position] == target)


def new_rejects(path: str, datasets: list[ExistingDataset]) -> Iterator[Rejected]:
    """The rows of a file of rejects whose keys are in none of the datasets."""
    known = [KnownKeys(dataset, unfetched=True) for dataset in datasets]
    for row in parquet.read_rows(path, Rejected):
        if not any(row.key in keys for keys in known):
            yield row


class RemainingRejects(beam.PTransform):
    """(rejects of a dataset, keys of images that are new to it) -> the rejects that remain. A reject of fetching whose
    image is now encoded comes under the tag REPLACED."""

    REPLACED = "replaced"

    def expand(self, rows_and_keys):
        rejects, keys = rows_and_keys
        return (
            (
                rejects | "Key of reject" >> beam.Map(lambda row: (row.key, row)),
                keys | "Key of image" >> beam.Map(lambda key: (key, None)),
            )
            | "Same key" >> beam.CoGroupByKey()
            | "Which" >> beam.FlatMap(_still_rejected).with_outputs(self.REPLACED, main="rejects")
        )


class JoinedRows(NamedTuple):
    """PCollections of a new dataset: its records, its rejects, and the ledger's counts of rows read."""

    records: beam.PCollection
    rejects: beam.PCollection
    counts: beam.PCollection


class JoinExisting(beam.PTransform):
    """(encoded records, rejects of encoding, rejects of fetching) -> JoinedRows with those of the datasets to extend.

    A row counts as read once: one that a dataset rejected because it could not be fetched, and that is encoded now,
    is taken off that dataset's count. Without datasets, the counts are those of `fetch_ledger`, if there is one.
    """

    def __init__(self, datasets: list[ExistingDataset], fetch_ledger: Optional[dict[str, Any]]):
        self._datasets, self._fetch_ledger = datasets, fetch_ledger

    def expand(self, inputs) -> JoinedRows:
        records, encode_rejects, fetch_rejects = inputs
        rejects = (encode_rejects, fetch_rejects) | "Rejected" >> beam.Flatten()
        if self._fetch_ledger is not None and not self._datasets:
            counts = [count for count in previous_counts(self._fetch_ledger) if count[0][1] == READ]
            return JoinedRows(records, rejects, records.pipeline | "Counts of fetch" >> beam.Create(counts))
        new_counts = (
            records | "Count records" >> CountRows(READ),
            rejects | "Count rejects" >> CountRows(READ),
        )
        if not self._datasets:
            return JoinedRows(records, rejects, new_counts | "Rows read" >> beam.Flatten())
        existing = records.pipeline | "Old records" >> ReadRecords(self._datasets, [Subset()])
        old_rejects = records.pipeline | "Old rejects" >> parquet.ReadParquet(reject_files(self._datasets), Rejected)
        new_keys = (
            (records, encode_rejects)
            | "Encoded now" >> beam.Flatten()
            | "Their keys" >> beam.Map(lambda row: row.key).with_output_types(str)
        )
        remaining = (old_rejects, new_keys) | "Remaining rejects" >> RemainingRejects()
        replaced_counts = (
            remaining[RemainingRejects.REPLACED]
            | "Count replaced" >> CountRows(READ)
            | "Take off" >> beam.MapTuple(lambda entry, number: (entry, -number))
        )
        old_counts = records.pipeline | "Old counts" >> beam.Create(counts_read(self._datasets))
        return JoinedRows(
            (records, existing.records) | "Old and new" >> beam.Flatten(),
            (rejects, remaining.rejects) | "All rejected" >> beam.Flatten(),
            (*new_counts, replaced_counts, old_counts) | "Rows read" >> beam.Flatten(),
        )


def _still_rejected(group: tuple[str, tuple[Iterable[Rejected], Iterable[None]]]) -> Iterator[Any]:
    rejects, images = group[1]
    there = bool(list(images))
    for row in rejects:
        replaced = there and row.stage == Stage.FETCH
        yield beam.pvalue.TaggedOutput(RemainingRejects.REPLACED, row) if replaced else row
