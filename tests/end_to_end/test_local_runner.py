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
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker.data_plane import ClosableOutputStream, SizeBasedBufferingClosableOutputStream

from beam_jobs.flags.common import LOCAL_RUNNER, beam_options
from models.errors import UserError
from pipeline.fetch.units import GroupIntoUnits, Unit
from pipeline.output.parquet import ReadParquet, WriteParquet, table_bytes
from pipeline.output.schemas import PAIRS, REJECTS
from pipeline.records import Pair, Reason, Rejected, Stage, reject
from tests.support.narrowing import required
from tests.support.paths import files_of

ROWS_PER_GROUP = 1000
PAIR = Pair(
    key="",
    source="cc3m",
    file="cc3m.tsv",
    row=0,
    url="http://127.0.0.1/",
    fallback_urls=(),
    caption="a word and another " * 5,
    raw_caption="",
    width=None,
    height=None,
    licence="",
    page_url="",
    split="train",
)


def run(number: int, output: Path, options: PipelineOptions) -> int:
    """Made-up rows through the form of graph that lost some: a count as a side input, markers for empty groups in a
    Flatten, a GroupByKey. Writes the hash of each group's rows; returns how many there were."""

    def pairs(first: int, pair: Pair = PAIR) -> Iterator[Pair]:  # in here, since workers can't import this module
        for row in range(first, min(first + ROWS_PER_GROUP, number)):
            yield pair._replace(key=hashlib.sha256(b"%d" % row).hexdigest()[:32], row=row)

    def group_of(pair: Pair, total: int) -> tuple[int, Pair]:
        return int(pair.key[:16], 16) * total >> 64, pair

    def write(group: int, members: Iterable[Pair | None]) -> None:
        found = sorted(tuple(map(str, pair)) for pair in members if pair is not None)
        output.mkdir(exist_ok=True)
        (output / f"{group:06d}").write_text(f"{len(found)} {hashlib.sha256(repr(found).encode()).hexdigest()}")

    with beam.Pipeline(options=options) as pipeline:
        made = (
            pipeline
            | beam.Create(list(range(0, number, ROWS_PER_GROUP))).with_output_types(int)
            | beam.Reshuffle()
            | "Pairs" >> beam.FlatMap(pairs).with_output_types(Pair)
        )
        groups = (
            made | beam.combiners.Count.Globally() | "Groups" >> beam.Map(lambda count: max(1, count // ROWS_PER_GROUP))
        )
        of_group = made | "Group" >> beam.Map(group_of, beam.pvalue.AsSingleton(groups)).with_output_types(
            tuple[int, Any]
        )
        markers = groups | "Markers" >> beam.FlatMap(
            lambda total: [(group, None) for group in range(total)]
        ).with_output_types(tuple[int, Any])
        _ = (of_group, markers) | beam.Flatten() | beam.GroupByKey() | "Write" >> beam.MapTuple(write)
    return sum(int(path.read_text().split()[0]) for path in output.iterdir())


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


def run_as_beam_would(output: Path) -> None:
    """The old mode, with streams emptied every 5 ms, so that a few rows are enough. Ends with 1 if a row is lost, or
    with what a decoder says of bytes that are none of its own; such bytes may ask it for any amount of memory."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 5
    options = PipelineOptions(
        [f"--runner={LOCAL_RUNNER}", "--direct_running_mode=multi_threading", "--direct_num_workers=4"]
    )
    os._exit(run(30_000, output, options) < 30_000)  # threads of a run that failed may go on for ever


def test_beam_by_itself_corrupts(tmp_path, exhaustive):
    """What all this is for; if it fails one day, Beam has mended it."""
    if not exhaustive:
        pytest.skip("only with --exhaustive: of Beam alone, and a run that hangs takes a minute")
    process = multiprocessing.get_context("spawn").Process(
        target=run_as_beam_would, args=(tmp_path / "out",), daemon=True
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
    cores = required(os.cpu_count())
    processes = [multiprocessing.get_context("fork").Process(target=burn, daemon=True) for _ in range(cores)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_a_job_whose_worker_was_killed_ends(tmp_path):
    """Beam by itself waits for ever: a kernel that is short of memory kills a worker, not the job."""

    def die(number: int) -> None:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)  # the other worker does not hold up the end

    with (
        pytest.raises(UserError, match="worker process was killed"),
        beam.Pipeline(options=beam_options(["--direct_num_workers=2"])) as pipeline,
    ):
        _ = pipeline | beam.Create([1, 2]) | beam.Reshuffle() | beam.Map(die)


def test_no_row_is_lost(tmp_path):
    assert run(10_000, tmp_path / "out", beam_options([])) == 10_000


@pytest.mark.parametrize("number", [50_000, 200_000, 500_000])
def test_no_row_is_lost_on_a_busy_machine(tmp_path, number, exhaustive):
    """Twenty runs, and the same files out of each."""
    if not exhaustive:
        pytest.skip("only with --exhaustive: twenty runs on a busy machine take up to half an hour")
    found = None
    with busy():
        for attempt in range(20):
            output = tmp_path / f"{attempt}"
            assert run(number, output, beam_options([])) == number
            written = files_of(output)
            assert found in (None, written)
            found = written
            shutil.rmtree(output)


@pytest.mark.parametrize("number", [5_000, 50_000, 200_000, 500_000])
def test_no_pair_is_lost(tmp_path, number, exhaustive):
    """From pairs to units to files of rejects, as in fetch: on a busy machine twenty times, and the same files."""
    if number > 5_000 and not exhaustive:
        pytest.skip("only with --exhaustive: twenty runs on a busy machine take up to half an hour")

    def rejects(unit: Unit) -> list[Rejected]:
        return [reject(pair, Stage.FETCH, Reason.HTTP_404, unit.name) for pair in unit.pairs]

    paths, found = write_pairs(tmp_path, number), None
    with busy() if exhaustive else contextlib.nullcontext():
        for attempt in range(20 if exhaustive else 1):
            output = tmp_path / f"{attempt}"
            with beam.Pipeline(options=beam_options([])) as pipeline:
                _ = (
                    pipeline
                    | ReadParquet(paths, Pair)
                    | GroupIntoUnits(1000, str(output))
                    | "Reject" >> beam.FlatMap(rejects).with_output_types(Rejected)
                    | WriteParquet(str(output), "rejects", REJECTS, rows_per_file=20_000)
                )
            written = files_of(output / "rejects")
            assert found in (None, written)
            assert sum(pq.read_metadata(path).num_rows for path in (output / "rejects").iterdir()) == number
            found = written
            shutil.rmtree(output)


def write_pairs(folder: Path, number: int, rows_per_file: int = 10_000) -> list[str]:
    """Made-up pairs, about 300 bytes each."""
    paths = []
    for first in range(0, number, rows_per_file):
        keys = {row: hashlib.sha256(b"%d" % row).hexdigest()[:32] for row in range(first, first + rows_per_file)}
        rows = [PAIR._replace(key=key, row=row, url=f"http://x/{key}.jpg") for row, key in keys.items() if row < number]
        paths.append(str(folder / f"{first:09d}.parquet"))
        Path(paths[-1]).write_bytes(table_bytes(rows, PAIRS))
    return paths
