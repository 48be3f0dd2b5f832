"""Removes damaged shards from a dataset. Their pairs become rejected rows, so that the ledger still counts every row.
Lost data is not reconstructed."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.data import format
from models.data.format import File, Manifest, Shard, index_path, read_manifest
from models.errors import UserError
from pipeline.dataset import cards
from pipeline.dataset.finish import FOLDERS, write_cards
from pipeline.inspection.faults import Fault, listed_paths
from pipeline.output import files as output_files
from pipeline.output.files import WrittenFile, to_json, write_file
from pipeline.output.ledger import KEPT, READ, Count, build_ledger, previous_counts, read_ledger
from pipeline.output.parquet import table_bytes
from pipeline.output.schemas import REJECTS
from pipeline.records import Reason, Rejected, Stage, shortened

REQUIRED_FILES = ("manifest.json", "text_tokenizer.json")  # no other file holds their content
REGENERATED_FILES = ("ledger.json", cards.README, cards.CROISSANT)


def repair(directory: str, faults: Iterable[Fault]) -> Iterator[str]:
    """Repairs a dataset and yields a line for each action. Raises UserError for a damaged file that is unique."""
    at_fault = {fault.path for fault in faults}
    for path in sorted(at_fault):
        if path in REQUIRED_FILES or (path.startswith("rejects/") and _is_listed(directory, path)):
            raise UserError(
                f"{directory}/{path} is damaged and cannot be made from other files; build the dataset again"
            )
    manifest = read_manifest(directory)
    listed = listed_paths(manifest)
    others = sorted(path for path in at_fault - listed if path.split("/")[0] in FOLDERS or path.endswith(".tmp"))
    damaged = [shard for shard in manifest.shards if shard.path in at_fault or index_path(shard.path) in at_fault]
    dropped = {path for shard in damaged for path in (shard.path, index_path(shard.path))}
    kept = dataclasses.replace(
        manifest,
        shards=tuple(shard for shard in manifest.shards if shard not in damaged),
        files=tuple(file for file in manifest.files if file.path not in dropped and file.path not in REGENERATED_FILES),
    )

    lost = [row for shard in damaged for row in _lost_rows(directory, shard, at_fault)]
    files = list(kept.files)
    if lost:
        number = sum(file.path.startswith("rejects/damaged-") for file in kept.files)
        files.append(File(*write_file(directory, f"rejects/damaged-{number:05d}.parquet", table_bytes(lost, REJECTS))))
        kept.settings["damaged_shards"] = kept.settings.get("damaged_shards", []) + [shard.path for shard in damaged]
    counts = _counts(directory, manifest, "ledger.json" in at_fault, damaged, kept.files)
    named = [
        write_file(directory, "ledger.json", to_json(counts)),
        *(WrittenFile(**vars(file)) for file in files if file.path == "text_tokenizer.json"),
    ]
    kept = dataclasses.replace(kept, files=tuple(files))
    written = write_cards(directory, kept, counts, _licences(directory, kept), named)
    files += [File(*named[0]), *(File(*file) for file in written)]
    kept = dataclasses.replace(kept, files=tuple(sorted(files, key=lambda file: file.path)))
    output_files.write_atomically(output_files.join(directory, "manifest.json"), kept.to_json().encode())
    for path in (*sorted(dropped), *others):  # which the manifest no longer names
        if os.path.exists(os.path.join(directory, path)):
            os.remove(os.path.join(directory, path))
    for shard in damaged:
        reported = ", ".join(f"{number:,} of {source}" for source, number in sorted(shard.sources.items()))
        yield f"dropped {shard.path} and its index: {shard.pairs:,} pairs lost" + f" ({reported})" * bool(reported)
    yield from (f"removed {path}" for path in others)
    yield from (f"wrote {path} anew" for path in REGENERATED_FILES if path in at_fault)


def _is_listed(directory: str, path: str) -> bool:
    return path in {file.path for file in read_manifest(directory).files}


def _lost_rows(directory: str, shard: Shard, at_fault: set[str]) -> list[Rejected]:
    """Rejects for a shard's pairs: from its index, else from keys and sources in its tar, else from their number."""

    def rejected(
        key: str = "", source: str = "", file: str = "", row: int = -1, url: str = "", caption: str = ""
    ) -> Rejected:
        stage, reason = Stage.ENCODE.value, Reason.DAMAGED_SHARD.value
        return Rejected(key, source, file, row, url, stage, reason, shard.path, shortened(caption))

    if index_path(shard.path) not in at_fault:
        columns = ["key", "source", "file", "row", "url", "caption"]
        rows = pq.read_table(os.path.join(directory, index_path(shard.path)), columns=columns, partitioning=None)
        return [rejected(**row) for row in rows.to_pylist()]
    if shard.path not in at_fault:
        return [rejected(key, source) for key, source in format.list_members(os.path.join(directory, shard.path))]
    return [rejected(source=source) for source, number in shard.sources.items() for _ in range(number)]


def _counts(
    directory: str, manifest: Manifest, is_lost: bool, damaged: list[Shard], files: tuple[File, ...]
) -> dict[str, Any]:
    """The ledger, with the lost pairs counted as rejected."""
    before: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for shard in manifest.shards:
        before.update(shard.sources)
    for shard in damaged:
        lost.update(shard.sources)
    counts: list[Count] = []
    if is_lost:
        counts += _counted_again(directory, files)
        read = Counter(before)
        for (source, _, _), number in counts:
            read[source] += number
        counts += [((source, READ, ""), number) for source, number in read.items()]
    else:
        counts += previous_counts(read_ledger(directory))
    counts += [((source, KEPT, ""), number - lost[source]) for source, number in before.items()]
    counts += [((source, Stage.ENCODE.value, Reason.DAMAGED_SHARD.value), number) for source, number in lost.items()]
    return build_ledger(counts, [])


def _counted_again(directory: str, files: tuple[File, ...]) -> Iterator[Count]:
    for file in files:
        if file.path.startswith("rejects/"):
            columns = ["source", "stage", "reason"]
            rows = pq.read_table(os.path.join(directory, file.path), columns=columns, partitioning=None)
            for row in rows.group_by(columns).aggregate([([], "count_all")]).to_pylist():
                yield (row["source"], row["stage"], row["reason"]), row["count_all"]


def _licences(directory: str, manifest: Manifest) -> Counter[str]:
    parts = [
        pq.read_table(os.path.join(directory, index_path(shard.path)), columns=["licence"], partitioning=None)
        for shard in manifest.shards
    ]
    column = pa.concat_tables(parts)["licence"] if parts else pa.chunked_array([], pa.string())
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()})
