"""One part of a job, and the whole job by the process that ends last."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.run import run_pipeline
from pipeline.output import parts, state
from pipeline.output.parts import Part


def prepare(
    args: argparse.Namespace, job: str, settings: dict[str, Any], completion_file: str, inputs: Sequence[str] = ()
) -> bool:
    """Leaves the output ready for a job or a part of it. Returns False if the part has nothing to do, since the output
    is complete. Raises UserError as `state.prepare_output` and `parts.prepare_part`."""
    if not args.part:
        state.prepare_output(args.output, job, settings, completion_file, args.overwrite, inputs)
    elif not parts.prepare_part(args.output, job, settings, completion_file, args.part, inputs):
        print(f"{job}: {args.output} is complete: nothing to do for part {args.part}")
        return False
    return True


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
        run_pipeline(options, output, job, build, shares_output=True)
        parts.mark_done(output, part)
        print(f"{job}: part {part} of {output} is done", flush=True)
        is_last = parts.claim_gathering(output, part.total)
    finally:
        parts.release(output)
    return gather() if is_last else 0
