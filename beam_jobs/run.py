"""Runs a job: the runner, progress, and the counts of rows at its end."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, TestOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from beam_jobs.interrupt import exit_on_interrupt
from models import errors
from models.errors import UserError
from pipeline.inspection.stats import ledger_tables
from pipeline.output.ledger import read_ledger
from pipeline.output.progress import ProgressReporter
from pipeline.output.state import finish_output

# A worker's exception arrives as text inside the runner's, or as it is; Beam adds the step's name to its message:
# "models.errors.UserError: TEXT [while running 'STEP']".
_USER_ERROR = re.compile(
    re.escape(f"{UserError.__module__}.{UserError.__qualname__}: ") + r"(.+?)(?: \[while running|\\n|\n|$)"
)

# Beam's local runner empties the buffers of its streams every second, from a thread of its own: in the middle of an
# element, and what is written while it does so is lost (TimeBasedBufferingClosableOutputStream; so in 2.45 to 2.77).
# With 0 they are emptied by size, between elements, as everywhere else in Beam.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0


def run(options: PipelineOptions, output: str, job: str, build: Callable[[beam.Pipeline], None]) -> int:
    """Builds the pipeline, runs it to its end with progress, and prints the counts of rows. Returns the exit status.

    Raises UserError for what the user can fix.
    """
    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)  # Beam warns about its internals
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    try:
        with ProgressReporter(output, job), exit_on_interrupt(job):
            pipeline.run().wait_until_finish()
    except Exception as error:
        if message := user_error_in("".join(traceback.format_exception_only(error))):
            raise UserError(message) from error
        raise
    if options.view_as(TestOptions).dry_run:
        print(f"{job}: the graph was built and checked; nothing ran")
    else:
        finish_output(output)
        print(ledger_tables(read_ledger(output)))
    return 0


def user_error_in(text: str) -> str | None:
    """The message of the first UserError that the text of a runner's exception quotes, or None."""
    found = _USER_ERROR.search(text)
    return found[1] if found else None


def command(main: Callable[[], int]) -> int:
    """Runs a job as `python -m beam_jobs.NAME`. A UserError becomes one line and status 2."""
    return errors.report_errors(main)
