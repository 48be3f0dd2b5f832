"""`pairmill JOB --estimate`: runs the job on a sample of its input, and prints what all of it will take."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.flags.engine import has_remote_workers
from beam_jobs.flags.select import select_config, source_pieces, source_settings
from models.errors import UserError
from pipeline.estimate import report
from pipeline.estimate.hosts import SlowestHost, slowest_host
from pipeline.estimate.outcomes import Outcome, Population, Totals, count, project, read_outcomes
from pipeline.estimate.projection import MACHINES, Stage, Start, Units, download_bytes, hours, storage_bytes
from pipeline.estimate.quantity import Array, exactly
from pipeline.estimate.report import Estimate
from pipeline.estimate.sample import Sample, select_seconds, take_sample
from pipeline.estimate.sample_folders import number_of_images, write_images, write_pairs
from pipeline.estimate.timeline import StepTime, Timeline
from pipeline.fetch.stored_shards import find_image_shards
from pipeline.output.counts import Step
from pipeline.output.names import REJECTS_FOLDER
from pipeline.records import Stage as JobStage
from pipeline.sources.file_ranges import FileRange
from pipeline.sources.hosts import HostLimits
from pipeline.sources.paths import base_name
from pipeline.sources.registry import SOURCES

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
PREFIX = "pairmill-estimate-"


class Job(NamedTuple):
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


def estimate_lists(
    args: argparse.Namespace,
    options: PipelineOptions,
    job: Job,
    run_job: Callable[[argparse.Namespace, list[FileRange]], int],
) -> int:
    """Estimates a job that reads lists. Returns the exit status; raises UserError as the job does, and for workers that
    are elsewhere."""
    check_local(options)
    started = time.monotonic()
    pieces = source_pieces(args.source, source_settings(args))
    listing_s = time.monotonic() - started
    settings = {name: SOURCES[name].settings_of_check(chosen) for name, chosen in source_settings(args).items()}
    sample = take_sample(pieces, settings, args.estimate)
    job = job._replace(select_s=select_seconds(sample, select_config(args), settings))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        run = run_sample(folder, args, lambda inner: run_job(inner, sample.file_ranges))
    print_estimate(args, job, run, _populations(sample), listing_s, time.monotonic() - started)
    return 0


def estimate_pairs(
    args: argparse.Namespace,
    options: PipelineOptions,
    job: Job,
    number_of_pairs: int,
    run_job: Callable[[argparse.Namespace], int],
) -> int:
    """Estimates a job that reads the `number_of_pairs` pairs of --pairs; else as `estimate_lists`."""
    check_local(options)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        pairs = os.path.join(folder, "input")
        sampled = write_pairs(args.pairs, pairs, args.estimate)
        run = run_sample(folder, args, run_job, pairs=pairs)
    population = Population(exactly(number_of_pairs), sampled)
    print_estimate(args, job, run, [population], 0.0, time.monotonic() - started)
    return 0


def estimate_images(
    args: argparse.Namespace, options: PipelineOptions, job: Job, run_job: Callable[[argparse.Namespace], int]
) -> int:
    """Estimates a job that reads the images of --images; else as `estimate_lists`."""
    check_local(options)
    started = time.monotonic()
    paths = find_image_shards(args.images)
    listing_s = time.monotonic() - started
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        images = os.path.join(folder, "input")
        stratum = write_images(paths, images, args.estimate)
        run = run_sample(folder, args, run_job, images=images)
    population = Population(number_of_images(paths, stratum), stratum.sampled)
    job = job._replace(shards=(len(stratum.blocks), len(paths)))
    print_estimate(args, job, run, [population], listing_s, time.monotonic() - started)
    return 0


def check_local(options: PipelineOptions) -> None:
    if has_remote_workers(options):
        raise UserError("--estimate: runs its sample on this machine; leave --runner out, and multiply by its machines")


def workers_of(options: PipelineOptions) -> int:
    """Worker processes of a job on this machine."""
    return options.get_all_options().get("direct_num_workers") or os.cpu_count() or 1


def run_sample(
    folder: str, args: argparse.Namespace, run_job: Callable[[argparse.Namespace], int], **inputs: str
) -> SampleRun:
    """Runs a job on other inputs in a temporary folder, and reads what it did there."""
    output = os.path.join(folder, "output")
    changed = {"output": output, "part": None, "overwrite": False, "no_wait": False} | inputs
    with Timeline(output) as timeline:
        run_job(argparse.Namespace(**vars(args) | changed))
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


def _populations(sample: Sample) -> list[Population]:
    return [
        Population(
            np.maximum(stratum.rows(), stratum.sampled),
            stratum.sampled,
            frozenset(
                (stratum.source, base_name(block.file_range.member or block.file_range.path))
                for block in stratum.blocks
            ),
        )
        for stratum in sample.strata
    ]


def print_estimate(
    args: argparse.Namespace,
    job: Job,
    run: SampleRun,
    populations: Sequence[Population],
    listing_s: float,
    sample_s: float,
) -> None:
    """Prints the estimate; `listing_s` seconds of the job came before its run on the sample, which took `sample_s` with
    all that belongs to it."""
    totals = project(run.outcomes, populations)
    sample = count(run.outcomes)
    download = download_bytes(run.steps.get(Step.FETCH) or run.steps.get(Step.FETCH_AND_ENCODE), totals.selected)
    host = _slowest_host(job, run.outcomes, populations, float(download[0] / max(1, totals.selected[0])))
    measured_s = sum(step.seconds for step in run.steps.values())
    start = Start(_import_seconds(job.module) + listing_s + run.seconds - measured_s, job.workers)
    stages = [_stage(job, step, time, totals, sample._asdict()) for step, time in run.steps.items()]
    storage = storage_bytes(
        run.sizes, (sample.kept, totals.kept), (sample.rows - sample.kept, totals.rows - totals.kept)
    )
    estimate = Estimate(
        job=job.name,
        sample_rows=sample.rows,
        sample_seconds=sample_s,
        rows=totals.rows,
        pairs=totals.kept,
        download_bytes=download,
        storage_bytes=storage,
        hours={machines: hours(stages, start, host, machines) for machines in MACHINES},
        cores=os.cpu_count() or 1,
        gpus=job.gpus,
        gpu_steps=frozenset(step.value[0] for step in MODEL_STEPS),
        slowest_host=host.name,
        host_hours=totals.selected * host.share * host.seconds_per_pair / 3600,
    )
    print(report.json_text(estimate) if args.json else report.as_tables(estimate))


def _stage(job: Job, step: Step, time: StepTime, totals: Totals, sample: dict[str, int]) -> Stage:
    what = STEPS[step]
    total: Array = getattr(totals, what)
    number = time.rows * total / max(1, sample[what])
    units = None
    if step in UNIT_STEPS and job.shards[0]:
        units = Units(job.shards[0], exactly(job.shards[1]), False)
    elif step in UNIT_STEPS and job.pairs_per_unit:
        in_sample, in_all = (np.maximum(1, np.ceil(each / job.pairs_per_unit)) for each in (exactly(time.rows), number))
        units = Units(int(in_sample[0]), in_all, job.waits)
    return Stage(
        name=step.value[0],
        time=time,
        number=number,
        units=units,
        extra_s=job.select_s if step is Step.SELECT else 0.0,
    )


def _slowest_host(
    job: Job, outcomes: Sequence[Outcome], populations: Sequence[Population], bytes_per_pair: float
) -> SlowestHost:
    if not job.limits:
        return SlowestHost()
    shares = {file: population.share for population in populations for file in population.files}
    urls: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.stage != JobStage.SELECT.value:
            urls[outcome.url] = urls.get(outcome.url, 0) + 1 / shares.get((outcome.source, outcome.file), 1)
    return slowest_host(urls, job.limits, bytes_per_pair)


def _import_seconds(module: str) -> float:
    """Seconds until a new process has imported a job."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.monotonic() - started
