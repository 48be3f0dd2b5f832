"""Removes damaged shards from a dataset. Their pairs become rejected rows, so that the ledger still counts every row.
Lost data is not reconstructed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models import files as models_files
from models.data import format
from models.data.format import MANIFEST_FILE, File, Manifest, Shard, index_path, read_manifest
from models.errors import UserError
from models.files import TEMPORARY_SUFFIX
from models.progress import track
from models.tokenizers.info import TEXT_TOKENIZER_FILE
from pipeline.dataset import cards
from pipeline.dataset.finish import FOLDERS
from pipeline.inspection.faults import Fault, listed_paths
from pipeline.output import files as output_files
from pipeline.output.files import to_json, write_file
from pipeline.output.ledger import KEPT, READ, Count, build_ledger, previous_counts, read_ledger
from pipeline.output.names import CROISSANT_FILE, LEDGER_FILE, README_FILE, REJECTS_FOLDER
from pipeline.output.parquet import read_columns, table_bytes
from pipeline.output.schemas import REJECTS
from pipeline.records import Reason, Rejected, Stage, shortened

REQUIRED_FILES = (MANIFEST_FILE, TEXT_TOKENIZER_FILE)  # no other file holds their content
REGENERATED_FILES = (LEDGER_FILE, README_FILE, CROISSANT_FILE)


def repair(directory: str, faults: Iterable[Fault]) -> Iterator[str]:
    """Repairs a dataset and yields a line for each action. Raises UserError for a damaged file that is unique.

    What is written has a name of its own until the manifest is, by which the repair is done: whenever it is killed, the
    dataset is the old one or the new one, and `complete` does what is left.
    """
    at_fault = {fault.path for fault in faults}
    _check_unique_files(directory, at_fault)
    manifest = read_manifest(directory)
    damaged = [shard for shard in manifest.shards if shard.path in at_fault or index_path(shard.path) in at_fault]
    dropped = {path for shard in damaged for path in (shard.path, index_path(shard.path))}
    kept = _without(manifest, damaged, dropped)
    files = list(kept.files)
    if lost := [row for shard in damaged for row in _lost_rows(directory, shard, at_fault)]:
        files.append(_write_lost(directory, kept, lost))
        kept.settings["damaged_shards"] = kept.settings.get("damaged_shards", []) + [shard.path for shard in damaged]
    counts = _counts(directory, manifest, LEDGER_FILE in at_fault, damaged, kept.files)
    kept = dataclasses.replace(kept, files=tuple(files))
    files += _stage_regenerated(directory, kept, counts)
    kept = dataclasses.replace(kept, files=tuple(sorted(files, key=lambda file: file.path)))
    output_files.write_atomically(output_files.join(directory, MANIFEST_FILE), kept.to_json().encode())
    complete(directory, kept)
    others = _superfluous(kept, at_fault - listed_paths(manifest))
    output_files.delete(directory, sorted({*dropped, *others} & set(output_files.list_files(directory))))
    for shard in damaged:
        reported = ", ".join(f"{number:,} of {source}" for source, number in sorted(shard.sources.items()))
        yield f"dropped {shard.path} and its index: {shard.pairs:,} pairs lost" + f" ({reported})" * bool(reported)
    yield from (f"removed {path}" for path in others)
    yield from (f"wrote {path} anew" for path in REGENERATED_FILES if path in at_fault)


def complete(directory: str, manifest: Manifest) -> bool:
    """Gives the files that a repair has written their lasting names, now that the manifest names them. Returns whether
    there was one: a repair may have been killed before that."""
    found = False
    for file in manifest.files:
        staged = models_files.join(directory, _staged_name(file))
        if file.path in REGENERATED_FILES and models_files.exists(staged):
            output_files.publish(staged, models_files.join(directory, file.path))
            found = True
    return found


def _staged_name(file: File) -> str:
    return f".{file.path}.{file.sha256[:16]}{TEMPORARY_SUFFIX}"


def _check_unique_files(directory: str, at_fault: set[str]) -> None:
    """Raises UserError for a damaged file that is unique."""
    for path in sorted(at_fault):
        if path in REQUIRED_FILES or (path.startswith(f"{REJECTS_FOLDER}/") and _is_listed(directory, path)):
            raise UserError(
                f"{directory}/{path} is damaged and cannot be made from other files; build the dataset again"
            )


def _without(manifest: Manifest, damaged: list[Shard], dropped: set[str]) -> Manifest:
    """A manifest without the damaged shards, and without the files that are made anew."""
    return dataclasses.replace(
        manifest,
        shards=tuple(shard for shard in manifest.shards if shard not in damaged),
        files=tuple(file for file in manifest.files if file.path not in dropped and file.path not in REGENERATED_FILES),
    )


def _write_lost(directory: str, kept: Manifest, lost: list[Rejected]) -> File:
    """Writes the rejects of lost pairs, under a name that follows from them: those of a repair that was killed, and
    which no manifest names, are never taken for others."""
    data = table_bytes(lost, REJECTS)
    number = sum(file.path.startswith(f"{REJECTS_FOLDER}/damaged-") for file in kept.files)
    digest = hashlib.sha256(data).hexdigest()[:8]
    name = f"{REJECTS_FOLDER}/damaged-{number:05d}-{digest}.parquet"
    write_file(directory, name, data)
    return _entry(name, data)


def _stage_regenerated(directory: str, kept: Manifest, counts: dict[str, Any]) -> list[File]:
    """Writes ledger and cards of a dataset under their temporary names."""
    licences, ledger = _licences(directory, kept), to_json(counts)
    described = [
        _entry(LEDGER_FILE, ledger),
        *(file for file in kept.files if file.path == TEXT_TOKENIZER_FILE),
    ]
    contents = {
        LEDGER_FILE: ledger,
        README_FILE: cards.data_card(kept, counts, licences),
        CROISSANT_FILE: cards.croissant(kept, licences, described),
    }
    entries = [_entry(path, data) for path, data in contents.items()]
    for entry, data in zip(entries, contents.values(), strict=True):
        write_file(directory, _staged_name(entry), data)
    return entries


def _entry(path: str, data: bytes) -> File:
    return File(path, len(data), hashlib.sha256(data).hexdigest())


def _superfluous(kept: Manifest, unlisted: set[str]) -> list[str]:
    """The files at fault that no manifest names, of those that pairmill writes."""
    return sorted(
        path
        for path in unlisted - listed_paths(kept)
        if path.split("/")[0] in FOLDERS or path.endswith(TEMPORARY_SUFFIX)
    )


def _is_listed(directory: str, path: str) -> bool:
    return path in {file.path for file in read_manifest(directory).files}


def _lost_rows(directory: str, shard: Shard, at_fault: set[str]) -> list[Rejected]:
    """Rejects for a shard's pairs: from its index, else from keys and sources in its tar, else from their number."""

    def rejected(
        key: str = "", source: str = "", file: str = "", row: int = -1, url: str = "", caption: str = ""
    ) -> Rejected:
        return Rejected(
            key=key,
            source=source,
            file=file,
            row=row,
            url=url,
            stage=Stage.ENCODE.value,
            reason=Reason.DAMAGED_SHARD.value,
            detail=shard.path,
            raw_caption=shortened(caption),
        )

    if index_path(shard.path) not in at_fault:
        columns = ["key", "source", "file", "row", "url", "caption"]
        rows = read_columns(models_files.join(directory, index_path(shard.path)), columns)
        return [rejected(**row) for row in rows.to_pylist()]
    if shard.path not in at_fault:
        return [rejected(key, source) for key, source in format.list_members(models_files.join(directory, shard.path))]
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
        if file.path.startswith(f"{REJECTS_FOLDER}/"):
            columns = ["source", "stage", "reason"]
            rows = read_columns(models_files.join(directory, file.path), columns)
            for row in rows.group_by(columns).aggregate([([], "count_all")]).to_pylist():
                yield (row["source"], row["stage"], row["reason"]), row["count_all"]


def _licences(directory: str, manifest: Manifest) -> Counter[str]:
    parts = [
        read_columns(models_files.join(directory, index_path(shard.path)), ["licence"])
        for shard in track(manifest.shards, "repair", "shards", len(manifest.shards))
    ]
    column = pa.concat_tables(parts)["licence"] if parts else pa.chunked_array([], pa.string())
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()})
