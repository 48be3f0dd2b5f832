"""Checks of a dataset: every byte, every sample, every count."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from models import files
from models.data import format
from models.data.format import INDEX_FOLDER, MANIFEST_FILE, File, Manifest, Shard, index_path, read_manifest
from models.errors import UserError
from models.progress import track
from models.tokenizers.info import TEXT_TOKENIZER_FILE
from models.tokenizers.text import TextTokenizer
from pipeline.output.ledger import load_ledger, rejects_by_reason
from pipeline.output.names import LEDGER_FILE, REJECTS_FOLDER
from pipeline.output.parquet import Malformed, read_columns

MAX_FAULTS_PER_SHARD = 10  # one damaged shard may have ten thousand


class Fault(NamedTuple):
    path: str  # of the file, relative to the dataset
    what: str  # the sample, if it can be named, and what is wrong

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class ShardReport(NamedTuple):
    keys: list[str]
    faults: list[Fault]


def verify(directory: str, workers: int) -> list[Fault]:
    """Every fault of a dataset. Raises UserError if the folder has no manifest.json."""
    try:
        manifest = read_manifest(directory)
        if files.read(files.join(directory, MANIFEST_FILE)) != manifest.to_json().encode():
            # The same JSON value can be spelt in several ways: compares the bytes.
            raise UserError(f"{directory}/{MANIFEST_FILE} is not as it was written, byte for byte")
    except UserError as error:
        if not files.exists(files.join(directory, MANIFEST_FILE)):
            raise
        return [Fault(MANIFEST_FILE, str(error))]
    with _pool(workers) as run:
        faults = list(unlisted_files(directory, manifest))
        found = run(partial(_file_faults, directory), manifest.files)
        faults += [fault for of_file in track(found, "verify", "files", len(manifest.files)) for fault in of_file]
        tokenizer_json = None
        if not any(fault.path == TEXT_TOKENIZER_FILE for fault in faults):
            try:
                tokenizer_json = _read_text_tokenizer(directory)
            except (OSError, ValueError) as error:
                faults.append(Fault(TEXT_TOKENIZER_FILE, str(error)))
        checked = run(partial(_check_shard, directory, manifest, tokenizer_json), manifest.shards)
        reports = list(track(checked, "verify", "shards", len(manifest.shards)))
        keys: Counter[str] = Counter()
        for report in reports:
            faults += report.faults
            keys.update(report.keys)
    if faults:
        return faults  # comparing index, ledger and shards would report the same damage again
    where = {key: shard.path for shard, report in zip(manifest.shards, reports, strict=True) for key in report.keys}
    faults += [Fault(where[key], f"key {key} comes {number} times") for key, number in keys.items() if number > 1]
    return faults + list(_count_faults(directory, manifest, reports))


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[Callable]:
    """A `map` that runs in so many processes."""
    if workers == 1:
        yield map
        return
    # Spawned processes: a forked one would share the tokenizer library's locks.
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def listed_paths(manifest: Manifest) -> set[str]:
    """The paths of all shards and files that the manifest names."""
    return {shard.path for shard in manifest.shards} | {file.path for file in manifest.files}


def unlisted_files(directory: str, manifest: Manifest) -> Iterator[Fault]:
    """A fault for each file of the folder that the manifest does not name; none where a folder cannot be listed."""
    known = {MANIFEST_FILE} | listed_paths(manifest)
    for path in files.list_files(directory) if files.can_list(directory) else ():
        if path not in known:
            yield Fault(path, "not in the manifest")


def _file_faults(directory: str, file: File | Shard) -> list[Fault]:
    """The fault of a file that is missing or damaged, or an empty list."""
    path = files.join(directory, file.path)
    try:
        if (size := files.size_of(path)) != file.bytes:
            return [Fault(file.path, f"{size:,} bytes, the manifest says {file.bytes:,}")]
        if files.sha256_of(path) != file.sha256:
            return [Fault(file.path, "damaged (its sha256 is not the manifest's)")]
    except FileNotFoundError:
        return [Fault(file.path, "missing")]
    except OSError as error:
        return [Fault(file.path, f"cannot be read: {error.strerror or error}")]
    return []


_tokenizers: dict[str, TextTokenizer] = {}  # of this process


def _read_text_tokenizer(directory: str) -> str:
    """The tokenizer's file. Raises ValueError if it is none."""
    text = files.read(files.join(directory, TEXT_TOKENIZER_FILE)).decode()
    _tokenizer(text)
    return text


def _tokenizer(text: str) -> TextTokenizer:
    if text not in _tokenizers:
        _tokenizers.clear()
        _tokenizers[text] = TextTokenizer(text)
    return _tokenizers[text]


def _check_shard(directory: str, manifest: Manifest, tokenizer_json: str | None, shard: Shard) -> ShardReport:
    """Hashes one shard, then reads it member by member."""
    changed = _file_faults(directory, shard)
    keys: list[str] = []
    faults: list[Fault] = []
    tokenizer = _tokenizer(tokenizer_json) if tokenizer_json is not None else None
    path = files.join(directory, shard.path)
    try:
        if not (changed and changed[0].what == "missing"):
            for sample in format.read_token_shard(path, manifest.image_tokenizer.code_type):
                keys.append(sample.key)
                faults += [
                    Fault(shard.path, f"sample {len(keys) - 1} ({sample.key}): {what}")
                    for what in sample_faults(sample, manifest, tokenizer)
                ]
    except ValueError as error:
        faults.append(Fault(shard.path, f"sample {len(keys)}: {error}"))
    if keys != sorted(keys):
        faults.append(Fault(shard.path, "the samples are not sorted by key"))
    if len(keys) != shard.pairs and not changed:
        faults.append(Fault(shard.path, f"{len(keys):,} samples, the manifest says {shard.pairs:,}"))
    return ShardReport(keys, (changed + faults)[:MAX_FAULTS_PER_SHARD])


def sample_faults(sample: format.Sample, manifest: Manifest, text_tokenizer: TextTokenizer | None) -> Iterator[str]:
    images, text = manifest.image_tokenizer, manifest.text_tokenizer
    if sample.codes.shape != (manifest.draws, images.shape.count):
        yield f"codes of shape {sample.codes.shape}, expected {(manifest.draws, images.shape.count)}"
    elif int(sample.codes.max()) >= images.vocabulary:
        yield f"code {int(sample.codes.max())} is not in a vocabulary of {images.vocabulary:,}"
    if len(sample.tokens) and int(sample.tokens.max()) >= text.vocabulary:
        yield f"token {int(sample.tokens.max())} is not in a vocabulary of {text.vocabulary:,}"
    elif text_tokenizer is not None and sample.tokens.tolist() != text_tokenizer.encode(sample.caption):
        yield "its tokens are not the tokenizer's answer for its caption"


def _count_faults(directory: str, manifest: Manifest, reports: list[ShardReport]) -> Iterator[Fault]:
    """Faults where index, rejects or ledger disagree with the shards."""
    sources: Counter[str] = Counter()
    for shard, report in zip(manifest.shards, reports, strict=True):
        try:
            rows = _read(directory, index_path(shard.path), ["key", "shard", "position", "source", "split"])
        except (OSError, Malformed) as error:
            yield Fault(index_path(shard.path), f"is not as pairmill writes it: {error}")
            continue
        yield from _index_faults(shard, report, rows)
        sources += Counter(rows["source"].to_pylist())
    indexed, written = sum(f.path.startswith(f"{INDEX_FOLDER}/") for f in manifest.files), len(manifest.shards)
    if indexed != written:
        yield Fault(MANIFEST_FILE, f"{indexed:,} files of index for {written:,} shards")
    try:
        ledger = load_ledger(directory)
    except UserError as error:
        yield Fault(LEDGER_FILE, str(error))
        return
    yield from _ledger_faults(ledger, sources)
    yield from _reject_faults(directory, manifest, ledger)


def _index_faults(shard: Shard, report: ShardReport, rows: pa.Table) -> Iterator[Fault]:
    actual = [(row["key"], row["shard"], row["position"], row["split"]) for row in rows.to_pylist()]
    expected = [(key, shard.path, i, shard.split) for i, key in enumerate(report.keys)]
    if actual != expected:
        wrong = next(
            (i for i, (one, other) in enumerate(zip(actual, expected, strict=False)) if one != other),
            min(len(actual), len(expected)),
        )
        yield Fault(
            index_path(shard.path),
            f"row {wrong} is not sample {wrong} of {shard.path} ({len(actual):,} rows for {len(expected):,} samples)",
        )
    here = Counter(rows["source"].to_pylist())
    if shard.sources and here != shard.sources:
        yield Fault(index_path(shard.path), f"its sources {dict(here)} are not the manifest's {shard.sources}")


def _ledger_faults(ledger: dict[str, Any], sources: Counter[str]) -> Iterator[Fault]:
    for source, counts in ledger["sources"].items():
        rejected = sum(number for reasons in counts["rejected"].values() for number in reasons.values())
        if counts["read"] != counts["kept"] + rejected:
            yield Fault(LEDGER_FILE, f"{source}: {counts['read']:,} read is not {counts['kept']:,} + {rejected:,}")
        if counts["kept"] != sources[source]:
            yield Fault(LEDGER_FILE, f"{source}: {counts['kept']:,} rows kept, the shards hold {sources[source]:,}")
    if missing := [source for source in sources if source not in ledger["sources"]]:
        yield Fault(LEDGER_FILE, f"source {missing[0]} is not in it")


def _reject_faults(directory: str, manifest: Manifest, ledger: dict[str, Any]) -> Iterator[Fault]:
    reasons: Counter[str] = Counter()
    for file in manifest.files:
        if file.path.startswith(f"{REJECTS_FOLDER}/"):
            try:
                reasons.update(_read(directory, file.path, ["reason"]).column(0).to_pylist())
            except (OSError, Malformed) as error:
                yield Fault(file.path, f"is not as pairmill writes it: {error}")
    counted: Counter[str] = Counter()
    for stage in rejects_by_reason(ledger).values():
        counted.update(stage)
    if reasons != counted:
        yield Fault(
            LEDGER_FILE,
            f"it counts {sum(counted.values()):,} rejected rows, the files in {REJECTS_FOLDER}/ hold "
            f"{sum(reasons.values()):,}: {dict((reasons - counted) + (counted - reasons))} differ",
        )


def _read(directory: str, name: str, columns: list[str]) -> pa.Table:
    return read_columns(files.join(directory, name), columns)
