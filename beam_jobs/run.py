"""Runs a job: the runner, progress, and the counts of rows at its end."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, TestOptions

from beam_jobs.flags.common import LOCAL_RUNNER
from beam_jobs.flags.engine import check_job
from beam_jobs.interrupt import exit_on_interrupt
from models import errors
from models.errors import UserError
from models.next_command import beside, print_output
from pipeline.inspection.stats import ledger_tables
from pipeline.output import nothing_kept
from pipeline.output.ledger import read_ledger
from pipeline.output.progress import ProgressReporter
from pipeline.output.state import finish_output

# A worker's exception arrives as text inside the runner's, or as it is; Beam adds the step's name to its message:
# "models.errors.UserError: TEXT [while running 'STEP']".
_USER_ERROR = re.compile(
    re.escape(f"{UserError.__module__}.{UserError.__qualname__}: ") + r"(.+?)(?: \[while running|\\n|\n|$)"
)


def run(options: PipelineOptions, output: str, job: str, build: Callable[[beam.Pipeline], None]) -> int:
    """Builds the pipeline, runs it to its end with progress, and prints the counts of rows, where the output is and
    what to run next. Returns the exit status: 0 even if no row was kept, with a warning.

    Raises UserError for what the user can fix.
    """
    run_pipeline(options, output, job, build)
    if options.view_as(TestOptions).dry_run:
        print(f"{job}: the graph was built and checked; nothing ran")
    elif options.view_as(GoogleCloudOptions).template_location:
        print(f"{job}: handed over to Dataflow, which runs it; {output} is complete when the job has ended")
    else:
        finish_output(output)
        _print_end(job, output)
    return 0


def run_pipeline(
    options: PipelineOptions,
    output: str,
    job: str,
    build: Callable[[beam.Pipeline], None],
    shares_output: bool = False,
) -> None:
    """Builds the pipeline and runs it to its end with progress. Raises UserError for what the user can fix."""
    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails comes as an exception, too
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    check_job(pipeline, options, output)
    try:
        with ProgressReporter(output, job, shares_output), exit_on_interrupt(job, _after_interrupt(options)):
            pipeline.run().wait_until_finish()
    except Exception as error:
        if message := user_error_in("".join(traceback.format_exception_only(error))):
            raise UserError(message) from error
        raise


def _print_end(job: str, output: str) -> None:
    ledger = read_ledger(output)
    print(ledger_tables(ledger))
    print_output(job, output, *([] if nothing_kept.warning(ledger, output, job) else next_commands(job, output)))
    warn_if_empty(output, job)


def warn_if_empty(output: str, job: str) -> None:
    """Warns on stderr if a finished output holds no row. The job is done nevertheless: its ledger accounts for each."""
    if line := nothing_kept.warning(read_ledger(output), output, job):
        print(f"pairmill {job}: warning: {line}", file=sys.stderr)


def next_commands(job: str, output: str) -> list[list[str]]:
    """What to run on the output of a job."""
    if job == "select":
        return [["fetch", "--pairs", output, "--output", beside(output, "images")]]
    if job == "fetch":
        return [["encode", "--images", output, "--output", beside(output, "dataset")]]
    return [["stats", output], ["train", "--dataset", output, "--output", beside(output, "model")]]


def _after_interrupt(options: PipelineOptions) -> str:
    """What a user who interrupted a job may count on."""
    if options.get_all_options()["runner"] == LOCAL_RUNNER:
        return "the same command continues with what was not finished"
    return "the job itself may run on: look at its engine, and cancel it there"


def user_error_in(text: str) -> str | None:
    """The message of the first UserError that the text of a runner's exception quotes, or None."""
    found = _USER_ERROR.search(text)
    return found[1] if found else None


def command(main: Callable[[], int]) -> int:
    """Runs a job as `python -m beam_jobs.NAME`. A UserError becomes one line and status 2."""
    return errors.report_errors(main)
