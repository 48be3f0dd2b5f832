"""Running a job: the runner, progress, the account of rows at its end."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, TestOptions

from beam_jobs.interrupt import one_line_on_interrupt
from beam_jobs.outputs import finish_output
from models.errors import UserError
from pipeline import cli
from pipeline.ledger import read_ledger
from pipeline.progress import ShowProgress
from pipeline.stats import ledger_tables
from pipeline.workers import worker_processes

# The name is spelled out: "DirectRunner" would first try to download and start a Go program.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@contextlib.contextmanager
def forked_workers(options: PipelineOptions) -> Iterator[None]:
    """Processes for `in_worker`, one for each core, if the pipeline's workers are threads of this one."""
    given = options.get_all_options()
    workers = given["direct_num_workers"]
    in_threads = given.get("runner") == LOCAL_RUNNER and given["direct_running_mode"] == "multi_threading"
    if not in_threads or workers < 2 or sys.platform != "linux":  # elsewhere what a fork inherits may not work
        yield
        return
    processes = min(workers, os.cpu_count())
    with worker_processes(processes, -(-workers // processes)):
        yield


def run(options: PipelineOptions, output: str, job: str, build: Callable[[beam.Pipeline], None]) -> int:
    """Builds the pipeline, runs it to its end with progress, and prints the account of rows; the exit status.

    Raises UserError for what the user can mend.
    """
    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)  # Beam's warnings speak of its insides
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    try:
        with ShowProgress(output, job), one_line_on_interrupt(job):
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


def command(main: Callable[[], int]) -> int:
    """Runs a job as `python -m beam_jobs.NAME`: a user's error is one line and status 2."""
    return cli.report_errors(main)
