"""`pairmill JOB --estimate`: runs the job on a sample of its input, and prints what all of it will take."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.flags.engine import has_remote_workers
from beam_jobs.flags.select import select_config, source_ranges, source_settings
from models.errors import UserError
from pipeline.estimate import report
from pipeline.estimate.job_estimate import EstimatedJob, SampleRun, estimate_job, populations_of, read_run
from pipeline.estimate.outcomes import Population
from pipeline.estimate.quantity import exactly
from pipeline.estimate.sample import select_seconds, take_sample
from pipeline.estimate.sample_folders import number_of_images, write_images, write_pairs
from pipeline.estimate.timeline import Timeline
from pipeline.fetch.stored_shards import find_image_shards
from pipeline.sources.file_ranges import FileRange
from pipeline.sources.registry import SOURCES

PREFIX = "pairmill-estimate-"


def estimate_lists(
    args: argparse.Namespace,
    options: PipelineOptions,
    job: EstimatedJob,
    run_job: Callable[[argparse.Namespace, list[FileRange]], int],
) -> int:
    """Estimates a job that reads lists. Returns the exit status; raises UserError as the job does, and for workers that
    are elsewhere."""
    check_local(options)
    started = time.monotonic()
    ranges = source_ranges(args.source, source_settings(args))
    listing_s = time.monotonic() - started
    settings = {name: SOURCES[name].settings_of_check(chosen) for name, chosen in source_settings(args).items()}
    sample = take_sample(ranges, settings, args.estimate)
    job = job._replace(select_s=select_seconds(sample, select_config(args), settings))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        run = run_sample(folder, args, lambda inner: run_job(inner, sample.file_ranges))
    print_estimate(args, job, run, populations_of(sample), listing_s, time.monotonic() - started)
    return 0


def estimate_pairs(
    args: argparse.Namespace,
    options: PipelineOptions,
    job: EstimatedJob,
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
    args: argparse.Namespace, options: PipelineOptions, job: EstimatedJob, run_job: Callable[[argparse.Namespace], int]
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
    job = job._replace(shards=(len(stratum.ranges), len(paths)))
    print_estimate(args, job, run, [population], listing_s, time.monotonic() - started)
    return 0


def check_local(options: PipelineOptions) -> None:
    if has_remote_workers(options):
        raise UserError("--estimate: runs its sample on this machine; leave --runner out, and multiply by its machines")


def run_sample(
    folder: str, args: argparse.Namespace, run_job: Callable[[argparse.Namespace], int], **inputs: str
) -> SampleRun:
    """Runs a job on other inputs in a temporary folder, and reads what it did there."""
    output = os.path.join(folder, "output")
    changed = {"output": output, "part": None, "overwrite": False, "no_wait": False} | inputs
    with Timeline(output) as timeline:
        run_job(argparse.Namespace(**vars(args) | changed))
    return read_run(output, timeline)


def print_estimate(
    args: argparse.Namespace,
    job: EstimatedJob,
    run: SampleRun,
    populations: Sequence[Population],
    listing_s: float,
    sample_s: float,
) -> None:
    """Prints the estimate; `listing_s` seconds of the job came before its run on the sample, which took `sample_s` with
    all that belongs to it."""
    once_s = _import_seconds(job.module) + listing_s
    estimate = estimate_job(job, run, populations, once_s, sample_s)
    print(report.json_text(estimate) if args.json else report.as_tables(estimate))


def _import_seconds(module: str) -> float:
    """Seconds until a new process has imported a job."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.monotonic() - started
