"""From a job's run on a sample to its estimate: which rows a step's time grows with, units, and the sizes of files."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.estimate.job_estimate import EstimatedJob, SampleRun, _sizes, estimate_job
from pipeline.estimate.outcomes import Outcome, Population
from pipeline.estimate.quantity import exactly
from pipeline.estimate.timeline import step_time
from pipeline.output.counts import Step
from pipeline.sources.hosts import HostLimits


def steady(rows: int, seconds: float, bytes_per_row: float = 0.0):
    done = np.arange(rows + 1)
    return step_time(done * seconds / rows, done, done * bytes_per_row)


def outcome(row: int) -> Outcome:
    """Of 100 rows, 20 are rejected by select and 20 by fetch."""
    stage = {0: "select", 1: "fetch"}.get(row % 5, "")
    return Outcome("cc3m", "f", 0, str(row), stage=stage, url=f"http://h.example/{row}")


def test_steps_grow_with_their_rows_and_units():
    steps = {Step.SELECT: steady(100, 1.0), Step.FETCH: steady(80, 40.0, 1000.0), Step.SHARDS: steady(60, 6.0)}
    run = SampleRun([outcome(row) for row in range(100)], {"kept": 600, "rejected": 40, "fixed": 7}, steps, 50.0)
    job = EstimatedJob("build", "-", 1, limits=HostLimits(4, 20.0), pairs_per_unit=40, select_s=0.001)
    population = Population(exactly(1000), 100, frozenset({("cc3m", "f")}))
    estimate = estimate_job(job, run, [population], once_s=2.0, sample_s=60.0)
    assert (estimate.job, estimate.sample_rows, estimate.sample_seconds) == ("build", 100, 60.0)
    assert [quantity[0] for quantity in (estimate.rows, estimate.pairs)] == pytest.approx([1000, 600])
    assert estimate.download_bytes[0] == pytest.approx(800_000)
    assert estimate.storage_bytes[0] == pytest.approx(6000 + 400 + 7)
    seconds = {name: 3600 * hours[0] for name, hours in estimate.hours[1].items()}
    once, select, shards = 2.0 + 50 - 47, 1.0 + 900 * 0.001, 60.0
    assert seconds == pytest.approx({"start": once, "select": select, "fetch": 400.0, "shards": shards})
    assert 3600 * estimate.hours[4]["fetch"][0] == pytest.approx(100.0), "20 units for 4 workers"
    assert estimate.slowest_host == "h.example"
    assert 3600 * estimate.host_hours[0] == pytest.approx(800 / 20)


def test_files_grow_with_kept_rows_or_rejected_ones_or_not_at_all(tmp_path):
    for name in ("00000.tar", "index/0.parquet", "embeddings/0.npy", "rejects/0.parquet", "rejects/a.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert _sizes(str(tmp_path)) == {"kept": 15, "rejected": 5, "fixed": 5}
