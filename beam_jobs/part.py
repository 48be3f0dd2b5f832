"""One part of a job, and the whole job by the process that ends last."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import run
from beam_jobs.flags.files import without_part
from models.errors import UserError
from pipeline.output import parts
from pipeline.output.counts import Step, keep_counts_here
from pipeline.output.parts import Part
from pipeline.output.progress import write_plan

Item = TypeVar("Item")


def prepare(
    args: argparse.Namespace,
    options: PipelineOptions,
    job: str,
    settings: dict[str, Any],
    completion_file: str,
    inputs: Iterable[str] = (),
) -> bool:
    """Leaves the output ready for a job, as `run.prepare`, or for a part of it. Returns whether it is to be run. Raises
    UserError as `run.prepare` and `parts.prepare_part`."""
    if not args.part:
        return run.prepare(args, options, job, settings, completion_file, inputs)
    if args.no_wait:
        raise UserError(f"--part {args.part} --no-wait: a part marks itself as done at its end; leave --no-wait out")
    if not parts.prepare_part(args.output, job, settings, completion_file, args.part, inputs):
        print(f"{job}: {args.output} is complete: nothing to do for part {args.part}")
        return False
    keep_counts_here(args.output)
    return True


def plan(args: argparse.Namespace, step: Step, items: list[Item]) -> list[Item]:
    """Records for the progress how many items the step has in all. Returns those that this run does: all, or with
    --part its share."""
    write_plan(args.output, step, len(items))
    return [items[number] for number in args.part.share(len(items))] if args.part else items


def run_whole_or_part(
    args: argparse.Namespace,
    options: PipelineOptions,
    job: str,
    build: Callable[[beam.Pipeline], None],
    main: Callable[[list[str] | None], int],
    arguments: list[str] | None,
) -> int:
    """Runs the pipeline of a job, or with --part of a part of it; the part that ends last then runs `main`, the whole
    command, without --part. Returns the exit status. Raises UserError for what the user can fix."""
    if args.part:
        return run_part(options, args.output, job, args.part, build, partial(main, without_part(arguments)))
    return run.run(options, args.output, job, build, wait=not args.no_wait, is_sample=bool(args.estimate))


def run_part(
    options: PipelineOptions,
    output: str,
    job: str,
    part: Part,
    build: Callable[[beam.Pipeline], None],
    gather: Callable[[], int],
) -> int:
    """Runs the pipeline of a part and marks it as done. If all are, `gather` runs the job without parts. Returns the
    exit status. Raises UserError for what the user can fix."""
    try:
        run.run_part(options, output, job, build)
        parts.mark_done(output, part)
        print(f"{job}: part {part} of {output} is done", flush=True)
        is_last = parts.claim_gathering(output, part.total)
    finally:
        parts.release(output)
    return gather() if is_last else 0
