"""Finished datasets as input of a new one: their records, rejects and counts, without encoding again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError

from models.data.format import (
    INDEX_FOLDER,
    File,
    Manifest,
    Shard,
    index_path,
    pack_tokens,
    read_manifest,
    unpack_samples,
)
from models.errors import UserError
from models.hashing import in_share, stable_hash
from models.tokenizers.info import TEXT_TOKENIZER_FILE, UINT16, require_same_tokenizer
from pipeline.dataset.finish import ManifestFields
from pipeline.output import files, parquet, schemas
from pipeline.output.counts import Step, counts_of
from pipeline.output.grouping import key_hash
from pipeline.output.ledger import READ, Count, CountRows, parse_ledger, previous_counts
from pipeline.output.names import LEDGER_FILE, REJECTS_FOLDER
from pipeline.output.spill import HashRange, HashRanges, Spill, SpillFile, read_spilled, rows_as
from pipeline.records import (
    KEY_BYTES,
    KEY_DIGITS,
    REJECTED_TAG,
    EncodedPair,
    Reason,
    Rejected,
    Stage,
    kept_instead,
    reject,
)


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
    text_tokenizer_json = read_whole(datasets[0].directory, file_of(datasets[0], TEXT_TOKENIZER_FILE)).decode()
    return ManifestFields(
        image_tokenizer=first.image_tokenizer,
        text_tokenizer=first.text_tokenizer,
        text_tokenizer_json=text_tokenizer_json,
        draws=first.draws,
        settings=settings,
        versions=first.versions,
        sources=tuple(sorted(sources)),
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


def read_whole(directory: str, file: File | Shard) -> bytes:
    """The bytes of a dataset's file. Raises UserError unless they are those that the manifest names."""
    path = files.join(directory, *file.path.split("/"))
    try:
        data = files.read(path)
    except (OSError, BeamIOError) as error:
        raise UserError(f"{path} is not readable: {error}; {VERIFY_HINT}") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{path} is damaged: its sha256 is not the manifest's; {VERIFY_HINT}")
    return data


VERIFY_HINT = "`pairmill verify` lists all damage"


def file_of(dataset: ExistingDataset, path: str) -> File:
    """The entry of a manifest for a file. Raises UserError if there is none."""
    for file in dataset.manifest.files:
        if file.path == path:
            return file
    raise UserError(f"{dataset.directory}: the manifest does not name {path}; build the dataset again")


def counts_read(datasets: Iterable[ExistingDataset]) -> list[Count]:
    """The ledgers' counts of rows read."""
    return [count for dataset in datasets for count in previous_counts(_ledger_of(dataset)) if count[0][1] == READ]


def _ledger_of(dataset: ExistingDataset) -> dict[str, Any]:
    return parse_ledger(read_whole(dataset.directory, file_of(dataset, LEDGER_FILE)), LEDGER_FILE)


class ReadRejects(beam.PTransform):
    """The rejects of datasets."""

    def __init__(self, datasets: list[ExistingDataset]):
        self._files = [
            (dataset.directory, file)
            for dataset in datasets
            for file in dataset.manifest.files
            if file.path.startswith(f"{REJECTS_FOLDER}/")
        ]

    def expand(self, begin):
        return (
            begin
            | "Files" >> beam.Create(self._files).with_output_types(tuple)
            | "Spread" >> beam.Reshuffle()
            | "Rows" >> beam.FlatMapTuple(read_rejects).with_output_types(Rejected)
        )


def read_rejects(directory: str, file: File) -> Iterator[Rejected]:
    """The rows of a file of rejects. Raises UserError if it is damaged."""
    yield from parquet.rows_of(read_whole(directory, file), files.join(directory, file.path), Rejected)


RECORDS_PER_GROUP = 10_000  # about 30 MB
_NUMBERED = schemas.RECORDS.append(pa.field("dataset", pa.int32()))  # its place among the datasets


class ReadRecords(beam.PTransform):
    """The records of datasets. Those outside the subsets, and keys that an earlier dataset has, come as rejects.
    `counts_progress`: whether the progress line counts them; they may be only a part of a job."""

    def __init__(
        self, datasets: list[ExistingDataset], subsets: list[Subset], output: str, counts_progress: bool = False
    ):
        self._datasets, self._subsets, self._output = datasets, subsets, output
        self._counts_progress = counts_progress

    def expand(self, pipeline):
        shards = [
            (number, dataset.directory, shard, file_of(dataset, index_path(shard.path)))
            for number, dataset in enumerate(self._datasets)
            for shard in dataset.manifest.shards
        ]
        spills = (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "Spread" >> beam.Reshuffle()
            | "Read"
            >> beam.FlatMap(_numbered, self._output if self._counts_progress else None).with_output_types(tuple)
            | "Spill" >> Spill(self._output, _NUMBERED, _numbered_hash)
        )
        return (
            spills
            | "Same key" >> HashRanges(RECORDS_PER_GROUP)
            | "First"
            >> beam.ParDo(_KeepWanted(self._subsets, self._output), beam.pvalue.AsList(spills)).with_outputs(
                REJECTED_TAG, main="records"
            )
        )


def _numbered(element: tuple[int, str, Shard, File], counted_in: str | None) -> Iterator[tuple]:
    number, directory, shard, index = element
    for record in read_records(directory, shard, index):
        yield (*record, number)
    if counted_in:
        counts_of(counted_in).step(Step.READ, done=shard.pairs)


def _numbered_hash(row: tuple) -> int:
    return key_hash(EncodedPair._make(row[:-1]))


class _KeepWanted(beam.DoFn):
    def __init__(self, subsets: list[Subset], output: str):
        self._subsets, self._output = subsets, output

    def process(self, hashes: HashRange, spills: list[SpillFile]):
        table = read_spilled(self._output, spills, _NUMBERED, *hashes.bounds)
        table = table.sort_by([("key", "ascending"), ("dataset", "ascending"), ("row", "ascending")])
        first = None
        for number, record in zip(table["dataset"].to_pylist(), rows_as(EncodedPair, table), strict=True):
            if reason := self._subsets[number].rejection(record):
                rejected = reject(record, Stage.ENCODE, Reason.SAMPLED_OUT, reason)
            elif first and first.key == record.key:
                rejected = reject(record, Stage.ENCODE, Reason.DUPLICATE_PAIR, kept_instead(first.key))
            else:
                first = record
                yield record
                continue
            yield beam.pvalue.TaggedOutput(REJECTED_TAG, rejected)


def read_records(directory: str, shard: Shard, index: File) -> Iterator[EncodedPair]:
    """The records of one shard. Raises UserError if the shard or its index is damaged, or has other keys."""
    rows = _index_rows(directory, index)
    try:
        # Codes pass as they are, uint16 or uint32.
        samples = list(unpack_samples(io.BytesIO(read_whole(directory, shard)), UINT16))
    except ValueError as error:
        raise UserError(f"{directory}/{shard.path} is damaged: {error}; {VERIFY_HINT}") from None
    if [row["key"] for row in rows] != [sample.key for sample in samples]:
        raise UserError(f"{directory}/{shard.path} and its index hold other pairs; {VERIFY_HINT}")
    for row, sample in zip(rows, samples, strict=True):
        boxes = [number for box in row["crop_boxes"] for number in box]
        fields = {name: row[name] for name in EncodedPair._fields if name in row}
        yield EncodedPair(**fields, codes=sample.codes.tobytes(), tokens=pack_tokens(sample.tokens), boxes=boxes)


def _index_rows(directory: str, index: File) -> list[dict[str, Any]]:
    data = read_whole(directory, index)
    try:
        return parquet.table_of(data, schemas.INDEX.names).to_pylist()
    except parquet.Malformed as error:
        raise UserError(f"{directory}/{index.path} is not as pairmill writes it: {error}; {VERIFY_HINT}") from None


_PACKED_KEY = f"S{KEY_BYTES}"
"""The type of keys as bytes in NumPy, which leaves out zeros at the end of those that it hands out."""


class KnownKeys:
    """The keys of a dataset's rows, kept or rejected, 16 bytes each; with the rejects of fetch if `unfetched`."""

    def __init__(self, dataset: ExistingDataset, unfetched: bool):
        settled = None if unfetched else pc.field("stage") != Stage.FETCH.value
        keys = [*self._read(dataset, INDEX_FOLDER), *self._read(dataset, REJECTS_FOLDER, settled)]
        self._keys = np.sort(np.concatenate([np.empty(0, _PACKED_KEY), *keys]))

    @staticmethod
    def _read(
        dataset: ExistingDataset, folder: str, row_filter: Optional[pc.Expression] = None
    ) -> Iterator[np.ndarray]:
        for file in dataset.manifest.files:
            if file.path.startswith(f"{folder}/"):
                data = io.BytesIO(read_whole(dataset.directory, file))
                yield packed_keys(pq.read_table(data, columns=["key"], filters=row_filter, partitioning=None)["key"])

    def __contains__(self, key: str) -> bool:
        target = bytes.fromhex(key).rstrip(b"\0")  # as numpy hands out what it stores in 16 bytes
        position = int(np.searchsorted(self._keys, np.bytes_(target)))
        return position < len(self._keys) and bool(self._keys[position] == target)


_DIGITS = np.full(256, 16, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def packed_keys(keys: pa.ChunkedArray) -> np.ndarray:
    """Keys of 32 hex digits as bytes [16] each. Raises ValueError for any other."""
    text = pc.cast(pc.cast(keys.combine_chunks(), pa.binary()), pa.binary(KEY_DIGITS))
    data = np.frombuffer(text.buffers()[1] or b"", np.uint8, KEY_DIGITS * len(text), KEY_DIGITS * text.offset)
    digits = _DIGITS[data.reshape(-1, KEY_DIGITS)]
    if (digits > 15).any():
        raise ValueError("a key that is not 32 hex digits")
    return (digits[:, ::2] << 4 | digits[:, 1::2]).view(_PACKED_KEY).ravel()


_known: dict[tuple[str, bool], tuple[str, KnownKeys]] = {}  # of this process, with the manifest they were read by


def known_keys(dataset: ExistingDataset, unfetched: bool) -> KnownKeys:
    """The keys of a dataset, read once by each process."""
    place, manifest = (dataset.directory, unfetched), dataset.manifest.to_json()
    if _known.get(place, ("",))[0] != manifest:
        _known[place] = manifest, KnownKeys(dataset, unfetched)
    return _known[place][1]


def new_rejects(path: str, datasets: list[ExistingDataset]) -> Iterator[Rejected]:
    """The rows of a file of rejects whose keys are in none of the datasets."""
    known = [known_keys(dataset, unfetched=True) for dataset in datasets]
    for row in parquet.read_rows(path, Rejected):
        if not any(row.key in keys for keys in known):
            yield row


class RemainingRejects(beam.PTransform):
    """(rejects of a dataset, keys of images that are new to it, as tuples of one) -> the rejects that remain. A reject
    of fetching whose image is now encoded comes under the tag REPLACED."""

    REPLACED = "replaced"

    def __init__(self, output: str):
        self._output = output

    def expand(self, rows_and_keys):
        rejects, keys = rows_and_keys
        reject_spills = rejects | "Spill rejects" >> Spill(self._output, schemas.REJECTS, key_hash)
        key_spills = keys | "Spill keys" >> Spill(self._output, _KEYS, lambda row: int(row[0][:16], 16))
        return (
            reject_spills
            | "Same key" >> HashRanges(REJECTS_PER_GROUP)
            | "Which"
            >> beam.ParDo(
                _StillRejected(self._output), beam.pvalue.AsList(reject_spills), beam.pvalue.AsList(key_spills)
            ).with_outputs(self.REPLACED, main="rejects")
        )


REJECTS_PER_GROUP = 50_000
_KEYS = pa.schema([("key", pa.string())])


class _StillRejected(beam.DoFn):
    def __init__(self, output: str):
        self._output = output

    def process(self, hashes: HashRange, reject_spills: list[SpillFile], key_spills: list[SpillFile]):
        keys = read_spilled(self._output, key_spills, _KEYS, *hashes.bounds)["key"].to_pylist()
        encoded = set(keys)
        for row in rows_as(Rejected, read_spilled(self._output, reject_spills, schemas.REJECTS, *hashes.bounds)):
            replaced = row.stage == Stage.FETCH and row.key in encoded
            yield beam.pvalue.TaggedOutput(RemainingRejects.REPLACED, row) if replaced else row


class JoinedRows(NamedTuple):
    """PCollections of a new dataset: its records and its rejects, in parts, and the ledger's counts of rows read."""

    records: tuple[beam.PCollection, ...]
    rejects: tuple[beam.PCollection, ...]
    counts: beam.PCollection


class JoinExisting(beam.PTransform):
    """(encoded records, rejects of encoding, rejects of fetching) -> JoinedRows with those of the datasets to extend.

    A row counts as read once: one that a dataset rejected because it could not be fetched, and that is encoded now,
    is taken off that dataset's count. Without datasets, the counts are those of `fetch_ledger`, if there is one.
    """

    def __init__(self, datasets: list[ExistingDataset], fetch_ledger: Optional[dict[str, Any]], output: str):
        self._datasets, self._fetch_ledger, self._output = datasets, fetch_ledger, output

    def expand(self, inputs) -> JoinedRows:
        records, encode_rejects, fetch_rejects = inputs
        rejects = (encode_rejects, fetch_rejects)
        if self._fetch_ledger is not None and not self._datasets:
            counts = [count for count in previous_counts(self._fetch_ledger) if count[0][1] == READ]
            return JoinedRows((records,), rejects, records.pipeline | "Counts of fetch" >> beam.Create(counts))
        new_counts = (
            records | "Count records" >> CountRows(READ),
            encode_rejects | "Count rejects of encoding" >> CountRows(READ),
            fetch_rejects | "Count rejects of fetching" >> CountRows(READ),
        )
        if not self._datasets:
            return JoinedRows((records,), rejects, new_counts | "Rows read" >> beam.Flatten())
        existing = records.pipeline | "Old records" >> ReadRecords(self._datasets, [Subset()], self._output)
        old_rejects = records.pipeline | "Old rejects" >> ReadRejects(self._datasets)
        new_keys = tuple(
            rows | f"Keys of {what}" >> beam.Map(lambda row: (row.key,)).with_output_types(tuple[str])
            for what, rows in (("records", records), ("rejects", encode_rejects))
        )
        remaining = (old_rejects, new_keys) | "Remaining rejects" >> RemainingRejects(self._output)
        replaced_counts = (
            remaining[RemainingRejects.REPLACED]
            | "Count replaced" >> CountRows(READ)
            | "Take off" >> beam.MapTuple(lambda entry, number: (entry, -number))
        )
        old_counts = records.pipeline | "Old counts" >> beam.Create(counts_read(self._datasets))
        return JoinedRows(
            (records, existing.records),
            (*rejects, remaining.rejects),
            (*new_counts, replaced_counts, old_counts) | "Rows read" >> beam.Flatten(),
        )
