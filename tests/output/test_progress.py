"""The counts of a job's processes, and what the launcher makes of them."""

from __future__ import annotations

import builtins
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import apache_beam as beam
import pytest

from beam_jobs.flags.common import beam_options
from models.errors import UserError
from models.progress import Progress, ProgressLine
from pipeline.output import progress
from pipeline.output.counts import (
    BLURRED,
    LEFT_OUT,
    FileCounts,
    Step,
    counts_folder,
    counts_of,
    forget_counts,
    keep_counts_here,
    sum_of_metrics,
)
from pipeline.output.progress import ProgressReporter, read_progress, write_plan
from pipeline.output.work_folder import CompletedUnits
from tests.support.narrowing import required
from tests.support.paths import ROOT, files_of


@pytest.fixture
def output(tmp_path) -> str:
    return str(tmp_path)


def test_before_the_workers_begin(output):
    assert read_progress(output, "build") == Progress(0, "", stage="start")


def test_the_counts_of_all_processes_are_added(output):
    write_plan(output, Step.FETCH, 10)
    counts_of(output).step(Step.FETCH, done=1)
    code = (
        "import sys; from pipeline.output.counts import *; c = counts_of(sys.argv[1]); "
        "c.step(Step.FETCH, done=2); c.fetched(None); c.fetched('http_404')"
    )
    subprocess.run([sys.executable, "-c", code, output], cwd=ROOT, check=True)
    found = read_progress(output, "fetch")
    assert found == Progress(3, "pairs", 10, "fetch", detail="50.0% fetched, http_404 1")


def test_threads_share_a_process_s_counts(output):
    assert counts_of(output) is counts_of(output)
    assert len(files_of(output)) == 1


def test_steps_of_a_build_come_in_order(output):
    """The numbers of a step never fall, and a step never comes back."""
    counts, seen = counts_of(output), []

    def look(**what) -> None:
        counts.step(**what)
        seen.append(read_progress(output, "build"))

    write_plan(output, Step.SELECT, 100)
    look(step=Step.SELECT, done=7, work=40)
    look(step=Step.SELECT, done=3, work=60)
    look(step=Step.FILES, done=10)
    write_plan(output, Step.FETCH_AND_ENCODE, 6)
    look(step=Step.FETCH_AND_ENCODE, done=2)
    look(step=Step.FETCH_AND_ENCODE, done=4)
    look(step=Step.GROUP, done=5)
    look(step=Step.SHARDS, done=2)
    look(step=Step.SHARDS, done=3)
    assert [(each.stage, each.done, each.total, each.share) for each in seen] == [
        ("select", 7, None, 0.4),
        ("select", 10, None, 1.0),
        ("one row a URL", 10, 10, None),
        ("fetch and encode", 2, 6, None),
        ("fetch and encode", 6, 6, None),
        ("group", 5, None, None),
        ("shards", 2, 5, None),
        ("finish", 0, None, None),
    ]


@pytest.mark.parametrize(("job", "step"), [("select", Step.FILES), ("fetch", Step.FETCH)])
def test_each_job_finishes_after_its_last_step(output, job, step):
    counts_of(output).step(Step.SELECT, done=2)
    write_plan(output, step, 2)
    counts_of(output).step(step, done=2)
    assert read_progress(output, job).stage == "finish"
    assert read_progress(output, "build").stage != "finish"


def test_finished_units_are_known_from_the_plan_then_found(output):
    write_plan(output, Step.FETCH, 100, finished=40)
    counts = counts_of(output)
    counts.step(Step.FETCH, done=5, before=10)
    found = read_progress(output, "fetch")
    assert (found.done, found.before) == (40, 35)  # the workers have not met them all
    counts.step(Step.FETCH, before=30)
    found = read_progress(output, "fetch")
    assert (found.done, found.before) == (45, 40)
    counts.step(Step.FETCH, done=90)  # repeated bundles
    assert read_progress(output, "build").done == 100


def test_finished_units_are_counted_in_one_look(output):
    store = CompletedUnits(output)
    for name in ("00000-of-00004", "00003-of-00004", "00003-of-00009"):
        store.save(name, [], [])
    assert progress.count_finished(output, 4) == 2
    for number in (0, 1, 2, 3, 4):
        (ROOT / output / f"{number:05d}_stats.json").write_text("{}")
    assert progress.count_finished(output + "/", 4, attempt=2) == 2 + 1
    assert progress.count_finished("s3://bucket/out", 4) == 0


def test_where_the_time_of_encoding_goes(output):
    write_plan(output, Step.ENCODE, 4)
    counts_of(output).step(Step.ENCODE, done=50, work=1)
    counts_of(output).add({"pictures_s": 1.0, "model_s": 8.0, "write_s": 1.0})
    found = read_progress(output, "encode")
    assert (found.share, found.detail) == (0.25, "5.0 images/s a worker: pictures 10%, model 80%, write 10%")


def test_what_a_run_has_cost(output):
    with ProgressReporter(output, "build") as reporter:
        pass
    assert reporter.summary() == []
    with ProgressReporter(output, "build") as reporter:
        spent = {"downloaded_bytes": 1.25e9, "download_s": 2000.0, "decode_s": 30.0, "model_s": 4.5}
        counts_of(output).add(spent | {LEFT_OUT: 3, BLURRED: 1_200})
    assert reporter.summary() == [
        "this run, all workers together: 1.2 GB downloaded, 2,000.0 s in requests, 30.0 s decoding, 4.5 s in the image "
        "tokenizer",
        "this run, images with blurred faces: 1,200",
        "of crowded groups of near-duplicates 3 entries were left uncompared",
    ]


def test_rejects_of_select_are_told_by_reason(output):
    write_plan(output, Step.SELECT, 100)
    counts_of(output).step(Step.SELECT, done=9, work=40)
    counts_of(output).add({"select not_english": 5, "select bad_url": 1, "http_404": 2})
    assert read_progress(output, "build").detail == "not_english 5, bad_url 1"


def test_the_cost_does_not_depend_on_the_units(output, monkeypatch):
    """Neither for the launcher nor for a worker: counted in file operations and names listed."""
    write_plan(output, Step.FETCH_AND_ENCODE, 10)
    for _ in range(3):
        FileCounts(required(counts_folder(output))).step(Step.FETCH_AND_ENCODE, done=1)
    counts_of(output)
    few = operations(output, monkeypatch)
    store = CompletedUnits(output)
    for number in range(500):
        store.save(f"{number:05d}-of-00500", [], [])
        (ROOT / output / f"{number:05d}_stats.json").write_text("{}")
    assert operations(output, monkeypatch) == few
    assert few == {"open": 4, "listed": 5}  # a file a process; those and the plan


def operations(output: str, monkeypatch) -> dict[str, int]:
    """File operations of one look at the progress and of one worker that counts."""
    found = {"open": 0, "listed": 0}
    real_open, real_scandir, real_listdir = builtins.open, os.scandir, os.listdir

    def counting_open(*arguments, **options):
        found["open"] += 1
        return real_open(*arguments, **options)

    class Listing:
        def __init__(self, path):
            self._entries = real_scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._entries.close()

        def __iter__(self):
            return self

        def __next__(self):
            entry = next(self._entries)
            found["listed"] += 1
            return entry

        def close(self):
            self._entries.close()

    def counting_listdir(path="."):
        names = real_listdir(path)
        found["listed"] += len(names)
        return names

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", counting_open)
        patch.setattr(os, "scandir", Listing)
        patch.setattr(os, "listdir", counting_listdir)
        read_progress(output, "build")
        counts_of(output).step(Step.FETCH_AND_ENCODE, done=0)
    return found


def test_a_killed_run_s_counts_are_removed(output):
    counts_of(output).step(Step.FETCH, done=5)
    write_plan(output, Step.FETCH, 10)
    with ProgressReporter(output, "fetch"):
        assert read_progress(output, "fetch").stage == "start"
        counts_of(output).step(Step.FETCH, done=1)  # in a new file, though this process had one
        assert read_progress(output, "fetch").done == 1


@pytest.fixture
def remote() -> Iterator[str]:
    yield "gs://bucket/out"
    forget_counts("gs://bucket/out")


def test_nothing_is_written_to_a_remote_output(monkeypatch, remote):
    monkeypatch.setattr(progress.files, "write_atomically", None)
    write_plan(remote, Step.FETCH, 10)
    counts_of(remote).step(Step.FETCH, done=1)
    with ProgressReporter(remote, "fetch"):
        pass


def test_processes_of_this_machine_count_for_a_remote_output_in_a_folder_of_the_launcher(remote):
    keep_counts_here(remote)
    folder = required(counts_folder(remote))
    with ProgressReporter(remote, "fetch"):
        write_plan(remote, Step.FETCH, 10)
        code = "import sys; from pipeline.output.counts import *; counts_of(sys.argv[1]).step(Step.FETCH, done=2)"
        subprocess.run([sys.executable, "-c", code, remote], cwd=ROOT, check=True)
        assert read_progress(remote, "fetch") == Progress(2, "pairs", 10, "fetch")
    assert counts_folder(remote) is None and not os.path.exists(folder)


def test_workers_elsewhere_count_by_the_engine_s_metrics(remote):
    """Whichever thread counts, and parts of seconds, too."""

    def work(number: int) -> None:
        from pipeline.output.counts import Step, counts_of

        thread = threading.Thread(target=counts_of(remote).fetched, args=("http_404" if number else None,))
        thread.start()
        thread.join()
        counts_of(remote).add({"model_s": 0.75, "write_s": 0.25, "downloaded_bytes": 1_500_000})
        counts_of(remote).step(Step.FETCH_AND_ENCODE, done=1)

    write_plan(remote, Step.FETCH_AND_ENCODE, 8)
    pipeline = beam.Pipeline(options=beam_options(["--direct_num_workers=1"]))
    _ = pipeline | beam.Create(range(4)) | beam.Map(work)
    result = pipeline.run()
    result.wait_until_finish()
    found = read_progress(remote, "build", sum_of_metrics(remote, result))
    detail = "25.0% fetched, http_404 3, 6.0 MB; 1.0 images/s a worker: pictures 0%, model 75%, write 25%"
    assert found == Progress(4, "pairs", 8, "fetch and encode", detail=detail)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(output):
    os.chmod(output, 0o500)
    with pytest.raises(UserError, match="can't write"):
        counts_of(output)


def test_a_process_that_shares_the_output_keeps_the_counts_of_others(tmp_path):
    counts = FileCounts(required(counts_folder(str(tmp_path))))
    with progress.ProgressReporter(str(tmp_path), "build", shares_output=True):
        pass
    assert len(list((tmp_path / "_work" / "progress").glob("*.counts"))) == 1
    with progress.ProgressReporter(str(tmp_path), "build"):
        pass
    assert not list((tmp_path / "_work" / "progress").glob("*.counts"))
    counts.close()


def test_a_job_on_a_remote_engine_shows_its_line(remote, capsys, monkeypatch):
    """And what near-duplicates left out can be told at its end."""

    def work(number: int) -> None:
        from pipeline.output.counts import LEFT_OUT, Step, counts_of

        counts_of(remote).step(Step.FETCH, done=1)
        counts_of(remote).add({LEFT_OUT: 2})

    monkeypatch.setattr(progress, "ProgressLine", functools.partial(ProgressLine, min_shown_s=0.0))
    with ProgressReporter(remote, "fetch") as reporter:
        write_plan(remote, Step.FETCH, 8)
        pipeline = beam.Pipeline(
            options=beam_options(["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"])
        )
        _ = pipeline | beam.Create(range(4)) | beam.Map(work)
        result = pipeline.run()
        reporter.follow(result)
        result.wait_until_finish()
    assert "fetch: 4/8 pairs (50%)" in capsys.readouterr().err
    assert reporter.summary() == ["of crowded groups of near-duplicates 8 entries were left uncompared"]
