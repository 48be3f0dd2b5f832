"""From the run of a job on a sample to what all of it will take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.estimate.hosts import SlowestHost, slowest_host
from pipeline.estimate.outcomes import Outcome, Population, Totals, count, project, read_outcomes
from pipeline.estimate.projection import MACHINES, MeasuredStep, Start, Units, download_bytes, hours, storage_bytes
from pipeline.estimate.quantity import Array, exactly
from pipeline.estimate.report import Estimate
from pipeline.estimate.sample import ListSample
from pipeline.estimate.timeline import StepTime, Timeline
from pipeline.output.counts import Step
from pipeline.output.names import REJECTS_FOLDER
from pipeline.records import Stage
from pipeline.sources.hosts import HostLimits
from pipeline.sources.paths import base_name

STEPS = {
    Step.SELECT: "rows",
    Step.FILES: "rows",
    Step.READ: "selected",
    Step.FETCH: "selected",
    Step.FETCH_AND_ENCODE: "selected",
    Step.ENCODE: "selected",
    Step.SCORE: "selected",
    Step.GROUP: "kept",
    Step.SHARDS: "kept",
}
"""The steps of all jobs, and the number of Totals that their time grows with."""
MODEL_STEPS = (Step.FETCH_AND_ENCODE, Step.ENCODE, Step.SCORE)
UNIT_STEPS = (Step.FETCH, *MODEL_STEPS)


class EstimatedJob(NamedTuple):
    """What an estimate has to know of a job."""

    name: str
    module: str
    workers: int
    gpus: int = 0
    limits: HostLimits | None = None  # of downloads; None: there are none
    pairs_per_unit: int = 0
    waits: bool = False  # a worker waits for the last download of a unit before it begins the next
    shards: tuple[int, int] = (0, 0)  # of images: in the sample, in all; a worker takes one at a time
    select_s: float = 0.0  # seconds a row on one core


class SampleRun(NamedTuple):
    """A job that ran on a sample."""

    outcomes: list[Outcome]
    sizes: dict[str, int]  # bytes of its output: "kept", "rejected" and "fixed"
    steps: dict[Step, StepTime]
    seconds: float


def read_run(output: str, timeline: Timeline) -> SampleRun:
    """What a job did on a sample, by its finished, local output and the counts that were recorded meanwhile."""
    steps = {step: time for step in STEPS if (time := timeline.step(step))}
    return SampleRun(read_outcomes(output), _sizes(output), steps, timeline.seconds)


def _sizes(output: str) -> dict[str, int]:
    """Bytes of an output's files, by what they grow with."""
    sizes = {"kept": 0, "rejected": 0, "fixed": 0}
    for folder, _, names in os.walk(output):
        for name in names:
            is_table = name.endswith((".tar", ".parquet", ".npy"))
            kind = "fixed" if not is_table else "rejected" if os.path.basename(folder) == REJECTS_FOLDER else "kept"
            sizes[kind] += os.path.getsize(os.path.join(folder, name))
    return sizes


def populations_of(sample: ListSample) -> list[Population]:
    """The files of each source and form, of which the sample is a part."""
    return [
        Population(
            np.maximum(stratum.rows(), stratum.sampled),
            stratum.sampled,
            frozenset(
                (stratum.source, base_name(each.file_range.member or each.file_range.path)) for each in stratum.ranges
            ),
        )
        for stratum in sample.strata
    ]


def estimate_job(
    job: EstimatedJob, run: SampleRun, populations: Sequence[Population], once_s: float, sample_s: float
) -> Estimate:
    """The estimate; `once_s` seconds of the job came before its run on the sample, which took `sample_s` with all that
    belongs to it."""
    totals = project(run.outcomes, populations)
    sample = count(run.outcomes)
    download = download_bytes(run.steps.get(Step.FETCH) or run.steps.get(Step.FETCH_AND_ENCODE), totals.selected)
    host = _slowest_host(job, run.outcomes, populations, float(download[0] / max(1, totals.selected[0])))
    measured_s = sum(step.seconds for step in run.steps.values())
    start = Start(once_s + run.seconds - measured_s, job.workers)
    steps = [_measured_step(job, step, time, totals, sample._asdict()) for step, time in run.steps.items()]
    storage = storage_bytes(
        run.sizes, (sample.kept, totals.kept), (sample.rows - sample.kept, totals.rows - totals.kept)
    )
    return Estimate(
        job=job.name,
        sample_rows=sample.rows,
        sample_seconds=sample_s,
        rows=totals.rows,
        pairs=totals.kept,
        download_bytes=download,
        storage_bytes=storage,
        hours={machines: hours(steps, start, host, machines) for machines in MACHINES},
        cores=os.cpu_count() or 1,
        gpus=job.gpus,
        gpu_steps=frozenset(step.value[0] for step in MODEL_STEPS),
        slowest_host=host.name,
        host_hours=totals.selected * host.share * host.seconds_per_pair / 3600,
    )


def _measured_step(
    job: EstimatedJob, step: Step, time: StepTime, totals: Totals, sample: dict[str, int]
) -> MeasuredStep:
    what = STEPS[step]
    total: Array = getattr(totals, what)
    number = time.rows * total / max(1, sample[what])
    units = None
    if step in UNIT_STEPS and job.shards[0]:
        units = Units(job.shards[0], exactly(job.shards[1]), False)
    elif step in UNIT_STEPS and job.pairs_per_unit:
        in_sample, in_all = (np.maximum(1, np.ceil(each / job.pairs_per_unit)) for each in (exactly(time.rows), number))
        units = Units(int(in_sample[0]), in_all, job.waits)
    return MeasuredStep(
        name=step.value[0],
        time=time,
        number=number,
        units=units,
        extra_s=job.select_s if step is Step.SELECT else 0.0,
    )


def _slowest_host(
    job: EstimatedJob, outcomes: Sequence[Outcome], populations: Sequence[Population], bytes_per_pair: float
) -> SlowestHost:
    if not job.limits:
        return SlowestHost()
    shares = {file: population.share for population in populations for file in population.files}
    urls: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.stage != Stage.SELECT.value:
            urls[outcome.url] = urls.get(outcome.url, 0) + 1 / shares.get((outcome.source, outcome.file), 1)
    return slowest_host(urls, job.limits, bytes_per_pair)
