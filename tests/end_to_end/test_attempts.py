"""A remote engine may run a bundle twice, one attempt after the other or both at once: the files are those of one."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.dataset import shards
from pipeline.dataset.finish import ManifestFields, finish_dataset
from pipeline.dataset.shard_boundaries import ShardRange
from pipeline.fetch import stage as fetch_stage
from pipeline.fetch.units import Unit
from pipeline.filters import SelectConfig
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_reader import list_pairs
from pipeline.images.shard_writer import StoreConfig
from pipeline.images.validate import ImageConfig
from pipeline.output import files, parquet, schemas, spill
from pipeline.output.grouping import row_hash
from pipeline.output.spill import HashRange
from pipeline.output.work_folder import CompletedUnits, resume_unit
from pipeline.records import Pair, Reason, Rejected, Stage, reject
from pipeline.select import stage as select_stage
from pipeline.sources.file_ranges import count_lines, file_ranges
from pipeline.sources.registry import DEFAULTS
from tests.support.datasets import tiny_text_tokenizer
from tests.support.fetching import QUICK, pair
from tests.support.images import jpeg
from tests.support.paths import ROOT, files_of
from tests.support.records import IMAGES, make_record

TEXT = tiny_text_tokenizer()
RECORDS = [make_record(number, TEXT) for number in range(40)]


# Each prepares an output, and returns its bundle: a function without arguments, whose result goes on.


def filter_range(output: str) -> Callable[[], Any]:
    [piece] = file_ranges("cc3m", str(ROOT / "sample" / "sources" / "cc3m.tsv"))
    counts = [count_lines(piece)]
    return lambda: select_stage.filter_range((0, piece), counts, SelectConfig(), DEFAULTS, output)


def write_selected(output: str) -> Callable[[], Any]:
    results = [filter_range(output)()]
    partition = select_stage.HashPartition(0, 1)
    return lambda: select_stage.write_partition(
        partition, select_stage.groups_of_partition(partition, results, output), output
    )


def write_spill(output: str, rows: list[tuple], schema: pa.Schema) -> spill.SpillFile:
    return spill.write_spill(output, spill.spill_path(), pa.Table.from_batches([spill.to_batch(rows, schema)]))


def write_rejects(output: str) -> Callable[[], Any]:
    """Of one row there are two rejects; the attempts get the spill files in different orders."""
    rows = [
        [Rejected(f"{number:032x}", "wit", "wit.tsv", number, "http://x/", "encode", reason, "") for number in range(9)]
        for reason in ("duplicate_pair", "duplicate_image")
    ]
    schema = schemas.REJECTS
    spills = [
        spill.write_spill(
            output,
            spill.spill_path(),
            spill.pa.Table.from_batches([spill.to_batch([(*row, row_hash(row)) for row in some], schema)]),
        )
        for some in rows
    ]
    orders = iter([spills, spills[::-1]])
    return lambda: parquet.write_group(HashRange(0, 1, 1), next(orders), output, "rejects", schema)


def write_shard(output: str) -> Callable[[], Any]:
    rows = [(*record, shards.split_hash(record)) for record in RECORDS]
    spilled = spill.write_spill(
        output, spill.spill_path(), spill.pa.Table.from_batches([spill.to_batch(rows, schemas.RECORDS)])
    )
    return lambda: shards.read_and_write(ShardRange("train", 0, 1, "", ""), [spilled], output, 1)


def finish(output: str) -> Callable[[], Any]:
    shard = shards.write_shard(output, 1, ("train", 0, 1), RECORDS)
    for number in range(50):
        files.write_file(output, f"train/{number:05d}-of-00050.tar", b"stale")
    parts = ManifestFields(IMAGES, TEXT.info, TEXT.text, 1, {}, {}, ())
    counts = [((source, what, ""), rows) for source, rows in shard.sources.items() for what in ("read", "kept")]
    return lambda: finish_dataset(output, parts, [shard], [], counts)


BUNDLES = [filter_range, write_selected, write_rejects, write_shard, finish]


@pytest.mark.parametrize("prepare", BUNDLES, ids=lambda prepare: prepare.__name__)
def test_attempts_write_the_same_bytes(prepare, tmp_path):
    once, twice = prepare(str(tmp_path / "once")), prepare(str(tmp_path / "twice"))
    at_once = prepare(str(tmp_path / "at once"))
    first = once()
    assert [twice(), twice()] == [first, first]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert [task.result() for task in [pool.submit(at_once) for _ in range(2)]] == [first, first]
    expected = lasting_files(tmp_path / "once")
    assert expected
    for other in ("twice", "at once"):
        assert lasting_files(tmp_path / other) == expected


def lasting_files(output: Path) -> dict[str, bytes]:
    """Without spill files, whose names are each attempt's own, and the counts of progress."""
    passing = ("_work/spill/", "_work/progress/")
    return {name: data for name, data in files_of(output).items() if not name.startswith(passing)}


# --- attempts that differ: the network gives each what it will -------------------------------------------------------

PAIRS = sorted((pair(f"http://example.org/{number}.jpg") for number in range(12)), key=lambda pair: pair.key)
UNIT = Unit(3, 10, PAIRS)


class Network:
    """Fetches other images in each attempt. With `together`, so many attempts end their downloads at the same time."""

    def __init__(self, together: int = 1):
        self._barrier, self._lock, self._attempts = threading.Barrier(together), threading.Lock(), 0

    def __call__(self, pairs, config, image_config, convert, *_):
        with self._lock:
            attempt, self._attempts = self._attempts, self._attempts + 1
        self._barrier.wait(30)
        for position, each in enumerate(pairs):
            if position % 3 == attempt % 3:
                yield reject(each, Stage.FETCH, Reason.TIMEOUT, "")
            else:
                pixels = np.zeros((150, 200, 3), np.uint8)
                yield convert(FetchedImage(each, jpeg(seed=attempt), pixels, f"{attempt:064x}"))


def fetch(output: str) -> fetch_stage.UnitResult:
    return fetch_stage.fetch_unit(UNIT, output, 1, QUICK, ImageConfig(), StoreConfig())


def check_unit(output: Path, result: fetch_stage.UnitResult) -> None:
    """The three files are of the attempt whose result goes on."""
    assert {each.key for each in list_pairs(str(output / "00003.tar"))} == {each.key for each in result.kept}
    rows = parquet.pq.read_table(output / "00003.parquet").to_pylist()
    assert {row["pair_key"] for row in rows if row["status"] == "success"} == {each.key for each in result.kept}
    assert len({row["sha256"] for row in rows if row["status"] == "success"}) == 1
    assert f'"successes": {len(result.kept)},' in (output / "00003_stats.json").read_text()


@pytest.mark.parametrize("attempts", [2, 3])
def test_attempts_at_a_unit_publish_one(attempts, tmp_path, monkeypatch):
    for number in range(5):
        output = tmp_path / f"out {number}"
        monkeypatch.setattr(fetch_stage, "fetch_converted", Network(attempts))
        with concurrent.futures.ThreadPoolExecutor(attempts) as pool:
            results = [task.result() for task in [pool.submit(fetch, str(output)) for _ in range(attempts)]]
        assert results == [results[0]] * attempts
        check_unit(output, results[0])
        before = lasting_files(output)
        assert fetch(str(output)) == results[0] and lasting_files(output) == before
        assert len([name for name in before if "_work" in name]) == 1  # the decision


def test_an_attempt_that_ends_after_the_job_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_stage, "fetch_converted", Network())
    output = tmp_path / "out"

    def late(pairs, *_):
        """Meanwhile another attempt publishes, and the job ends."""
        monkeypatch.setattr(fetch_stage, "fetch_converted", Network())
        results.append(fetch(str(output)))
        files.delete(str(output / "_work"), files.list_files(str(output / "_work")))
        return iter([reject(each, Stage.FETCH, Reason.TIMEOUT, "") for each in pairs])

    results: list[fetch_stage.UnitResult] = []
    monkeypatch.setattr(fetch_stage, "fetch_converted", late)
    assert fetch(str(output)) == results[0]
    check_unit(output, results[0])
    assert not [name for name in lasting_files(output) if "_work" in name]


def test_attempts_at_an_encoded_unit_keep_a_whole_one(tmp_path):
    """Each attempt's rows go on whole; what is kept for a resumed run is whole as well."""
    store, barrier = CompletedUnits(str(tmp_path)), threading.Barrier(2)
    records = [record._replace(other_captions=[]) for record in RECORDS]  # a list, as a file has it
    pairs = [Pair._make(getattr(record, name, None) for name in Pair._fields) for record in records]

    def work(lost: int, pending: list[Pair]):
        barrier.wait(30)
        return (
            reject(each, Stage.ENCODE, Reason.NOT_AN_IMAGE, "") if position % 2 == lost else records[position]
            for position, each in enumerate(pending)
        )

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        tasks = [
            pool.submit(resume_unit, "00000-of-00001", pairs, store, functools.partial(work, lost)) for lost in (0, 1)
        ]
        results = [task.result() for task in tasks]
    assert store.load("00000-of-00001") in results and results[0] != results[1]
    assert all(len(records) + len(rejects) == len(pairs) for records, rejects in results)
