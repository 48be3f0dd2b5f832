"""Running a job: the runner, progress, the account of rows at its end."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, TestOptions

from beam_jobs.flags.common import LOCAL_RUNNER
from beam_jobs.interrupt import exit_on_interrupt
from models import errors
from models.errors import UserError
from pipeline.inspection.stats import ledger_tables
from pipeline.output.ledger import read_ledger
from pipeline.output.progress import ProgressReporter
from pipeline.output.state import finish_output


def run(options: PipelineOptions, output: str, job: str, build: Callable[[beam.Pipeline], None]) -> int:
    """Builds the pipeline, runs it to its end with progress, and prints the account of rows; the exit status.

    Raises UserError for what the user can mend.
    """
    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails comes as an exception, too
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    try:
        with ProgressReporter(output, job), exit_on_interrupt(job, _after_interrupt(options)):
            pipeline.run().wait_until_finish()
    except Exception as error:
        # A worker's exception arrives as text inside the runner's.
        if said := re.search(r"models\.errors\.UserError: (.+?)(?: \[while running|\\n|\n|$)", str(error)):
            raise UserError(said[1]) from error
        raise
    if options.view_as(TestOptions).dry_run:
        print(f"{job}: the graph was built and checked; nothing ran")
    else:
        finish_output(output)
        print(ledger_tables(read_ledger(output)))
    return 0


def _after_interrupt(options: PipelineOptions) -> str:
    """What a user who interrupted a job may count on."""
    if options.get_all_options()["runner"] == LOCAL_RUNNER:
        return "the same command continues with what was not finished"
    return "the job itself may run on: look at its engine, and cancel it there"


def command(main: Callable[[], int]) -> int:
    """Runs a job as `python -m beam_jobs.NAME`: a user's error is one line and status 2."""
    return errors.report_errors(main)
