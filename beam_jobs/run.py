"""Runs a job: the runner, progress, and the counts of rows at its end."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, TestOptions
from apache_beam.runners.runner import PipelineResult, PipelineState

from beam_jobs import engine
from beam_jobs.flags.engine import check_job
from beam_jobs.interrupt import end_process, exit_on_interrupt
from beam_jobs.local_runner import FORK_SERVER, prepare_workers
from models import errors
from models.errors import UserError
from models.next_command import beside, print_output
from models.process_end import run_as_process
from pipeline.inspection.stats import ledger_tables
from pipeline.output import damaged_files, nothing_kept, run_record, state
from pipeline.output.counts import keep_counts_here
from pipeline.output.ledger import read_ledger
from pipeline.output.progress import ProgressReporter
from pipeline.output.state import Found, finish_output

# A worker's exception arrives as text inside the runner's, or as it is; Beam adds the step's name to its message:
# "models.errors.UserError: TEXT [while running 'STEP']".
_USER_ERROR = re.compile(
    re.escape(f"{UserError.__module__}.") + r"(?:UserError|WriteError): (.+?)(?: \[while running|\\n|\n|$)"
)


def prepare(
    args: argparse.Namespace,
    options: PipelineOptions,
    job: str,
    settings: dict[str, Any],
    completion_file: str,
    inputs: Iterable[str] = (),
) -> bool:
    """Leaves the output ready for this job, or completes what an earlier launcher began: its job runs on an engine, or
    is finished. Returns whether the job is to be run.

    Raises UserError for an output that is not this job's, and for --no-wait where the job needs its launcher.
    """
    remote = engine.is_remote(options)
    if args.no_wait and not engine.can_be_found(options):
        raise UserError("--no-wait: this job ends with its launcher; leave it out, or name another --runner")
    found = state.prepare_output(
        args.output,
        job,
        settings,
        completion_file,
        args.overwrite,
        inputs,
        (lambda recorded: _is_running(job, recorded, options, args.output)) if remote else None,
    )
    if found is Found.READY:
        if not remote:
            keep_counts_here(args.output)
        return True
    if found is Found.FINISHED or _follow(job, args, options):
        _end(job, args.output)
    return False


def _follow(job: str, args: argparse.Namespace, options: PipelineOptions) -> bool:
    """Follows to its end a job that an earlier command started, unless --no-wait is given. Returns whether it did."""
    launch = _Launch(job, args.output, options, run_record.recorded_engine(args.output))
    print(f"{job}: {engine.describe(launch.engine)} runs since an earlier command", flush=True)
    if args.no_wait:
        state.release_output(args.output)
        return False
    with ProgressReporter(args.output, job) as progress, launch:
        launch.result = engine.find(launch.engine, options)
        progress.follow(launch.result)
        launch.result.wait_until_finish()
    _print_summary(job, progress)
    return True


def _is_running(job: str, recorded: dict[str, str], options: PipelineOptions, output: str) -> bool:
    """Whether the engine still runs a job; tells how one ended that left its output unfinished."""
    found = engine.state_of(recorded, options, output)
    if ended := PipelineState.is_terminal(found):
        print(f"{job}: {engine.describe(recorded)} has ended ({found})", flush=True)
    return not ended


def run(
    options: PipelineOptions,
    output: str,
    job: str,
    build: Callable[[beam.Pipeline], None],
    wait: bool = True,
    is_sample: bool = False,
) -> int:
    """Builds the pipeline, runs it to its end with progress, and prints the counts of rows, where the output is and
    what to run next. Returns the exit status: 0 even if no row was kept, with a warning. Without `wait` it returns once
    the engine has the job. Of a sample, whose output is in a temporary folder, nothing is printed, and Ctrl-C removes
    that folder.

    Raises UserError for what the user can fix.
    """
    is_dry, submitted = options.view_as(TestOptions).dry_run, False
    is_template = bool(options.view_as(GoogleCloudOptions).template_location)
    with state.withdraws_on_error(output):
        pipeline = _graph(options, output, build)
    with ProgressReporter(output, job) as progress, _Launch(job, output, options, is_sample=is_sample) as launch:
        launch.result = pipeline.run()
        if submitted := not is_template and launch.record():
            print(f"{job}: {engine.describe(launch.engine)}", flush=True)
        if not is_dry and (wait or not submitted):
            progress.follow(launch.result)
            launch.result.wait_until_finish()
    if is_dry:
        print(f"{job}: the graph was built and checked; nothing ran")
    elif is_template:
        print(f"{job}: handed over to Dataflow, which runs it; {output} is complete when the job has ended")
    elif is_sample:
        finish_output(output)
    elif wait:
        _print_summary(job, progress)
        _end(job, output)
    else:
        print(f"{job}: the same command without --no-wait follows it")
    state.release_output(output)
    return 0


def run_part(options: PipelineOptions, output: str, job: str, build: Callable[[beam.Pipeline], None]) -> None:
    """Builds the pipeline of a part of a job and runs it to its end with progress; others write to the output, too.
    Raises UserError for what the user can fix."""
    pipeline = _graph(options, output, build)
    with ProgressReporter(output, job, shares_output=True) as progress, _Launch(job, output, options) as launch:
        launch.result = pipeline.run()
        launch.result.wait_until_finish()
    _print_summary(job, progress)


def _graph(options: PipelineOptions, output: str, build: Callable[[beam.Pipeline], None]) -> beam.Pipeline:
    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails comes as an exception, too
    prepare_workers(options)
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    check_job(pipeline, options, output)
    return pipeline


class _Launch:
    """Context manager: a job, from its submission to its end. A worker's UserError is one here, too; Ctrl-C asks an
    engine to cancel the job."""

    def __init__(
        self,
        job: str,
        output: str,
        options: PipelineOptions,
        recorded: dict[str, str] | None = None,
        is_sample: bool = False,
    ):
        self._is_sample = is_sample
        self.result: PipelineResult | None = None
        self.engine = recorded or {}
        self._output, self._options, self._is_remote = output, options, engine.is_remote(options)
        self._interrupts = exit_on_interrupt(job, self._stop)

    def __enter__(self) -> _Launch:
        state.watch_lease(self._output, lambda loss: end_process(loss, 2))
        self._interrupts.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self._interrupts.__exit__(None, None, None)
        if not isinstance(error, Exception):
            return
        state.release_output(self._output)
        if message := user_error_in("".join(traceback.format_exception_only(error))):
            raise UserError(message) from error

    def record(self) -> bool:
        """Keeps what identifies the engine's job, if there is an engine that goes on without this process."""
        if self.result and (found := engine.identify(self.result, self._options)):
            self.engine = found
            run_record.record_engine(self._output, found)
        return bool(self.engine)

    def _stop(self) -> str:
        """What Ctrl-C does before this process ends. Returns what the user may count on then."""
        if self._is_sample:
            shutil.rmtree(os.path.dirname(self._output), ignore_errors=True)
            return "nothing was estimated"
        if self.result and self.engine:
            outcome = engine.cancel(self.result, self.engine)
        elif self._is_remote:
            outcome = "if its engine has the job already, it runs on: look there, and cancel it"
        else:
            outcome = "the same command continues with what was not finished"
        state.release_output(self._output)
        return outcome


def _end(job: str, output: str) -> None:
    finish_output(output)
    _print_end(job, output)


def _print_summary(job: str, progress: ProgressReporter) -> None:
    for line in progress.summary():
        print(f"{job}: {line}")


def _print_end(job: str, output: str) -> None:
    ledger = read_ledger(output)
    print(ledger_tables(ledger))
    print_output(job, output, *([] if nothing_kept.warning(ledger, output, job) else next_commands(job, output)))
    warn_if_empty(output, job)


def warn_if_empty(output: str, job: str) -> None:
    """Warns on stderr if a finished output holds no row, and of lists that end too early. The job is done nevertheless:
    its ledger accounts for each row."""
    ledger = read_ledger(output)
    for line in filter(None, (*damaged_files.warnings(ledger, job), nothing_kept.warning(ledger, output, job))):
        print(f"pairmill {job}: warning: {line}", file=sys.stderr)


def next_commands(job: str, output: str) -> list[list[str]]:
    """What to run on the output of a job."""
    if job == "select":
        return [["fetch", "--pairs", output, "--output", beside(output, "images")]]
    if job == "fetch":
        return [["encode", "--images", output, "--output", beside(output, "dataset")]]
    if job in ("score", "cluster"):
        return [["filter", "DATASET", "--scores", output, "--where", "CONDITION", "--output", "FILTERED"]]
    return [["stats", output], ["train", "--dataset", output, "--output", beside(output, "model")]]


def user_error_in(text: str) -> str | None:
    """The message of the first UserError that the text of a runner's exception quotes, or None."""
    found = _USER_ERROR.search(text)
    return found[1] if found else None


def prepare_process() -> None:
    """Prepares a process that is a job's own, once its module is imported and before it starts a thread: forks the
    process that starts workers, which then has all that they import. Part of each job's module, for the command."""
    FORK_SERVER.fork()


def command(main: Callable[[], int]) -> NoReturn:
    """Runs a job as `python -m beam_jobs.NAME`, and ends the process. A UserError becomes one line and status 2."""
    run_as_process(lambda: errors.report_errors(main))
