"""Beam's local runner keeps every row: the streams between it and its workers are emptied between elements only.

By itself it empties them once a second, from another thread: `Unknown type tag`, buffers of 20 GB, or rows that are
gone without a word, in threads and in processes. `beam_jobs.local_runner` switches that off.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker.data_plane import ClosableOutputStream, SizeBasedBufferingClosableOutputStream

from beam_jobs.flags.common import LOCAL_RUNNER, beam_options
from models.errors import UserError
from pipeline.fetch.units import GroupIntoUnits, Unit
from pipeline.output.parquet import ReadParquet, WriteParquet
from pipeline.output.schemas import PAIRS, REJECTS
from pipeline.records import Pair, Rejected
from tests.conftest import files_of

ROWS_PER_FILE = 10_000


def write_pairs(folder, number: int) -> list[str]:
    """Made-up pairs, about 300 bytes each."""
    paths = []
    for first in range(0, number, ROWS_PER_FILE):
        rows = range(first, min(first + ROWS_PER_FILE, number))
        keys = [hashlib.sha256(b"%d" % row).hexdigest()[:32] for row in rows]
        constant = {
            "source": "cc3m",
            "file": "cc3m.tsv",
            "caption": "a word and another " * 5,
            "raw_caption": "",
            "licence": "",
            "page_url": "",
            "split": "train",
            "expected_sha256": "",
            "stored_at": "",
        }
        columns = {name: [value] * len(keys) for name, value in constant.items()}
        columns |= {
            "key": keys,
            "row": list(rows),
            "url": [f"http://127.0.0.1/{key}.jpg" for key in keys],
            "fallback_urls": [[]] * len(keys),
            "width": [None] * len(keys),
            "height": [None] * len(keys),
        }
        paths.append(str(folder / f"{first:09d}.parquet"))
        pq.write_table(pa.table(columns, schema=PAIRS), paths[-1])
    return paths


def run(paths: list[str], output, options: PipelineOptions) -> int:
    """The form of a job's graph: rows to units, by a count as a side input and markers for empty ones, and what they
    give to files. Returns how many rows are in the files."""

    def rejects(unit: Unit) -> list[Rejected]:  # in here, since workers can't import this module
        return [
            Rejected(pair.key, pair.source, pair.file, pair.row, pair.url, "fetch", "http_404", unit.name)
            for pair in unit.pairs
        ]

    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | ReadParquet(paths, Pair)
            | GroupIntoUnits(1000, str(output))
            | "Reject" >> beam.FlatMap(rejects).with_output_types(Rejected)
            | WriteParquet(str(output), "rejects", REJECTS, rows_per_file=20_000)
        )
    return sum(pq.read_metadata(path).num_rows for path in (output / "rejects").iterdir())


def test_streams_are_emptied_by_size_alone():
    assert worker_handlers.DATA_BUFFER_TIME_LIMIT_MS == 0
    stream = ClosableOutputStream.create(None, None, worker_handlers.DATA_BUFFER_TIME_LIMIT_MS)
    assert type(stream) is SizeBasedBufferingClosableOutputStream


@pytest.mark.parametrize(
    "asked",
    [
        ["--direct_running_mode=multi_threading"],
        ["--experiments=data_buffer_time_limit_ms=1000"],
        ["--runner=DirectRunner", "--direct_running_mode", "multi_threading"],
    ],
)
def test_what_corrupts_is_refused(asked):
    with pytest.raises(UserError, match="leave"):
        beam_options(asked)


def run_as_beam_would(paths: list[str], output: Path) -> None:
    """The old mode, with streams emptied every 5 ms, so that a few rows are enough. Ends with 1 if a row is lost, or
    with what a decoder says of bytes that are none of its own; such bytes may ask it for any amount of memory."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 5
    options = PipelineOptions(
        [f"--runner={LOCAL_RUNNER}", "--direct_running_mode=multi_threading", "--direct_num_workers=4"]
    )
    os._exit(run(paths, output, options) < 30_000)  # threads of a run that failed may go on for ever


def test_beam_by_itself_corrupts(tmp_path):
    """What all this is for; if it fails one day, Beam has mended it."""
    process = multiprocessing.get_context("spawn").Process(
        target=run_as_beam_would, args=(write_pairs(tmp_path, 30_000), tmp_path / "out"), daemon=True
    )
    process.start()
    process.join(60)
    process.kill()
    process.join()
    assert process.exitcode != 0  # a run that hangs has lost something, too


def burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """As many processes as there are cores compete with the block."""
    processes = [multiprocessing.get_context("fork").Process(target=burn, daemon=True) for _ in range(os.cpu_count())]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_no_row_is_lost(tmp_path):
    assert run(write_pairs(tmp_path, 20_000), tmp_path / "out", beam_options([])) == 20_000


@pytest.mark.parametrize("number", [50_000, 200_000, 500_000])
def test_no_row_is_lost_on_a_busy_machine(tmp_path, number, exhaustive):
    """Twenty runs, and the same files out of each."""
    if not exhaustive:
        pytest.skip("only with --exhaustive: it takes hours")
    paths, found = write_pairs(tmp_path, number), None
    with busy():
        for attempt in range(20):
            output = tmp_path / f"{attempt}"
            assert run(paths, output, beam_options([])) == number
            written = files_of(output)
            assert found in (None, written)
            found = written
            shutil.rmtree(output)
