"""`pairmill verify DIR`: is every byte of a dataset as it was written, and does every part agree with the others?"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from models import dataset
from models.dataset import Manifest, Shard, read_manifest
from models.errors import UserError
from models.text_tokenizer import TextTokenizer
from pipeline.stats import read_json, rejects_by_reason

MOST_FAULTS_A_SHARD = 10  # a damaged shard is told in a few lines, not in ten thousand


class ShardReport(NamedTuple):
    keys: list[str]
    faults: list[str]


def verify(directory: str, workers: int) -> list[str]:
    """Every fault, as a line that names the file and the sample. Raises UserError for an unreadable manifest."""
    manifest = read_manifest(directory)
    faults = list(_file_faults(directory, manifest))
    if faults:
        return faults  # what reads the index and the ledger would only stumble over the same damage
    tokenizer_json = Path(directory, "text_tokenizer.json").read_text(encoding="utf-8")
    keys: Counter[str] = Counter()
    # Fresh processes: a copy of this one would share the tokenizer library's locks.
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _load_tokenizer,
                                                (tokenizer_json,)) as pool:
        for report in pool.map(_check_shard, [directory] * len(manifest.shards), [manifest] * len(manifest.shards),
                               manifest.shards):
            faults += report.faults
            keys.update(report.keys)
    faults += [f"key {key} comes {number} times" for key, number in keys.items() if number > 1]
    return faults + list(_count_faults(directory, manifest, keys))


def _file_faults(directory: str, manifest: Manifest) -> Iterator[str]:
    """Missing, damaged and superfluous files."""
    known = {"manifest.json"}
    for file in (*manifest.shards, *manifest.files):
        known.add(file.path)
        path = os.path.join(directory, file.path)
        if not os.path.isfile(path):
            yield f"{file.path}: missing"
        elif os.path.getsize(path) != file.bytes:
            yield f"{file.path}: {os.path.getsize(path):,} bytes, the manifest says {file.bytes:,}"
        elif dataset.sha256_of(path) != file.sha256:
            yield f"{file.path}: damaged (its sha256 is not the manifest's){_damaged_sample(path)}"
    for root, _, names in os.walk(directory):
        for name in names:
            path = os.path.relpath(os.path.join(root, name), directory).replace(os.sep, "/")
            if path not in known:
                yield f"{path}: not in the manifest"


def _damaged_sample(path: str) -> str:
    """Where the damage shows, if a reader would notice it."""
    if not path.endswith(".tar"):
        return ""
    whole = 0
    try:
        for _ in dataset.read_shard(path):
            whole += 1
    except ValueError as error:
        return f", sample {whole}: {error}"
    return ""


_tokenizer: TextTokenizer


def _load_tokenizer(text: str) -> None:
    global _tokenizer
    _tokenizer = TextTokenizer(text)


def _check_shard(directory: str, manifest: Manifest, shard: Shard) -> ShardReport:
    """Reads one shard member by member."""
    keys, faults = [], []
    try:
        for sample in dataset.read_shard(os.path.join(directory, shard.path)):
            keys.append(sample.key)
            faults += [f"{shard.path}: sample {sample.key}: {fault}" for fault in sample_faults(sample, manifest)]
    except ValueError as error:
        faults.append(f"{shard.path}: sample {len(keys)}: {error}")
    if keys != sorted(keys):
        faults.append(f"{shard.path}: the samples are not sorted by key")
    if len(keys) != shard.pairs:
        faults.append(f"{shard.path}: {len(keys):,} samples, the manifest says {shard.pairs:,}")
    return ShardReport(keys, faults[:MOST_FAULTS_A_SHARD])


def sample_faults(sample: dataset.Sample, manifest: Manifest) -> Iterator[str]:
    images, text = manifest.image_tokenizer, manifest.text_tokenizer
    if sample.codes.shape != (manifest.draws, images.grid**2):
        yield f"codes of shape {sample.codes.shape}, expected {(manifest.draws, images.grid**2)}"
    elif int(sample.codes.max()) >= images.vocabulary:
        yield f"code {int(sample.codes.max())} is not in a vocabulary of {images.vocabulary:,}"
    if len(sample.tokens) and int(sample.tokens.max()) >= text.vocabulary:
        yield f"token {int(sample.tokens.max())} is not in a vocabulary of {text.vocabulary:,}"
    elif sample.tokens.tolist() != _tokenizer.encode(sample.caption):
        yield "its tokens are not the tokenizer's answer for its caption"


def _count_faults(directory: str, manifest: Manifest, keys: Counter[str]) -> Iterator[str]:
    """Do index, rejects and ledger tell the same story as the shards?"""
    ledger = read_json(os.path.join(directory, "ledger.json"))
    kept = sum(account["kept"] for account in ledger["sources"].values())
    if kept != sum(keys.values()):
        yield f"ledger.json: {kept:,} rows kept, the shards hold {sum(keys.values()):,}"
    for source, account in ledger["sources"].items():
        rejected = sum(number for reasons in account["rejected"].values() for number in reasons.values())
        if account["read"] != account["kept"] + rejected:
            yield f"ledger.json: {source}: {account['read']:,} read is not {account['kept']:,} + {rejected:,}"
    indexed = Counter(_column(directory, manifest, "index/", "key"))
    if indexed != keys:
        odd = next(iter((indexed - keys) + (keys - indexed)))
        yield f"index: {sum(indexed.values()):,} rows for {sum(keys.values()):,} samples; key {odd} differs"
    reasons = Counter(_column(directory, manifest, "rejects/", "reason"))
    counted = Counter()
    for stage in rejects_by_reason(ledger).values():
        counted.update(stage)
    if reasons != counted:
        yield f"rejects: {sum(reasons.values()):,} rows, the ledger counts {sum(counted.values()):,}"


def _column(directory: str, manifest: Manifest, folder: str, column: str) -> Iterator[str]:
    for file in manifest.files:
        if file.path.startswith(folder):
            path = os.path.join(directory, file.path)
            yield from pq.read_table(path, columns=[column], partitioning=None).column(0).to_pylist()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill verify", description=__doc__.split("\n")[0])
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: cores)")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: give 1 or more")
    faults = verify(args.directory, args.workers)
    for fault in faults:
        print(fault)
    manifest = read_manifest(args.directory)
    pairs = sum(shard.pairs for shard in manifest.shards)
    if faults:
        print(f"verify: {args.directory}: {len(faults):,} fault{'s' * (len(faults) != 1)}; build it again")
        return 1
    print(f"verify: {args.directory}: {pairs:,} pairs in {len(manifest.shards):,} shards, all as written")
    return 0
