"""What the options of all jobs share: the parser, types that check bounds, and Beam's options."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import PipelineRunner, create_runner

from beam_jobs.job_server import check_job_server
from beam_jobs.local_runner import LocalRunner
from models.command_line import CommandParser
from models.errors import UserError, not_installed

Number = TypeVar("Number", int, float)
View = TypeVar("View", bound=PipelineOptions)
Group = argparse.ArgumentParser | argparse._ArgumentGroup  # what options are added to


class JobOptions(PipelineOptions):
    """Beam's options, of which each view is parsed once.

    While it builds and runs a job's graph, Beam asks for a thousand views, and by itself parses the command line for
    each: a quarter of a small job's processor time.

    A view holds no values of its own: those set on one of them are there in all, whenever they were made.
    """

    def view_as(self, cls: type[View]) -> View:
        views = vars(self).setdefault("_views", {})  # by class; Beam's __setattr__ knows its own attributes alone
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

    def __getstate__(self) -> dict[str, Any]:
        """Copies, and what is sent to workers, make views of their own."""
        return {name: value for name, value in super().__getstate__().items() if name != "_views"}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to a help text, unless it is empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, [], "") else super()._get_help_string(action)


def at_least(minimum: int) -> Callable[[str], int]:
    """The argparse type of whole numbers from `minimum` up."""
    return _whole_number(lambda number: number >= minimum, f"{minimum} or more")


def between(minimum: int, maximum: int) -> Callable[[str], int]:
    """The argparse type of whole numbers from `minimum` to `maximum`, both of which are allowed."""
    return _whole_number(lambda number: minimum <= number <= maximum, f"{minimum} to {maximum}")


def _whole_number(is_valid: Callable[[int], bool], bounds: str) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = _number(int, text, f"give a whole number, {bounds}")
        if not is_valid(number):
            raise argparse.ArgumentTypeError(f"{text}: give {bounds}")
        return number

    return whole_number


def number(text: str) -> float:
    """The argparse type of numbers. NaN, with which nothing compares, is none."""
    if math.isnan(value := _number(float, text, "give a number")):
        raise argparse.ArgumentTypeError(f"{text}: give a number")
    return value


def above(minimum: float) -> Callable[[str], float]:
    """The argparse type of numbers above `minimum`."""

    def number_above(text: str) -> float:
        number = _number(float, text, f"give a number over {minimum:g}")
        if not number > minimum:  # true of NaN as well
            raise argparse.ArgumentTypeError(f"{text}: give a number over {minimum:g}")
        return number

    return number_above


def share(is_valid: Callable[[float], bool], fix: str) -> Callable[[str], float]:
    """The argparse type of shares. `is_valid` says which numbers are, `fix` what to give instead of others."""

    def valid_share(text: str) -> float:
        number = _number(float, text, fix)
        if not is_valid(number):
            raise argparse.ArgumentTypeError(f"{text}: {fix}")
        return number

    return valid_share


def _number(kind: type[Number], text: str, fix: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: {fix}") from None


def job_parser(name: str, description: str) -> CommandParser:
    """The parser of `pairmill NAME`, with the options that all jobs have."""
    parser = CommandParser(
        name,
        description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        epilog="Options not listed go to Apache Beam: --runner, --temp_location, ... Exit status: 0 done, with a "
        "warning if no row was kept; 2 wrong usage or unusable input; 130 interrupted.",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=path,
        metavar="DIR",
        help="folder to write to: a local path, or gs://..., s3://...",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in --output")
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="end once the engine of --runner has the job; the same command without this option follows it to its end",
    )
    return parser


def path(text: str) -> str:
    """The argparse type of paths: an empty one would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a folder or a file")
    return text


def parse(parser: CommandParser, arguments: list[str] | None) -> tuple[argparse.Namespace, PipelineOptions]:
    """The job's own options, and Beam's. Raises UserError for a value out of range and for an option that neither
    the job nor Beam has."""
    args, remaining = parser.parse_known_args(arguments)
    options = beam_options(remaining, parser.prog)
    check_engine(options)
    FileSystems.set_options(options)  # a pipeline would do this too late: the output is checked before it is built
    return args, options


def check_engine(options: PipelineOptions) -> None:
    """Raises UserError for a runner that does not exist and for options that it lacks, before anything is written."""
    runner = load_runner(options.view_as(StandardOptions).runner or LOCAL_RUNNER)
    validator = PipelineOptionsValidator(options, runner)
    missing = _dataflow_errors(options, runner, validator) if validator.is_service_runner() else []
    if errors := missing or validator.validate():
        raise UserError(f"--runner {options.view_as(StandardOptions).runner}: {' '.join(' '.join(errors).split())}")
    check_job_server(options)


def _dataflow_errors(options: PipelineOptions, runner: Any, validator: PipelineOptionsValidator) -> list[str]:
    """What Dataflow needs and the options lack. Beam's own check asks Google's storage before it looks for most of it:
    without a place for temporary files it would make a bucket. Raises UserError if packages for Dataflow are
    missing."""
    try:
        FileSystems.get_filesystem("gs://")
    except ValueError:
        raise not_installed("--runner DataflowRunner", "gcp") from None
    cloud = options.view_as(GoogleCloudOptions)
    cloud.region = cloud.region or runner.get_default_gcp_region()  # the environment's, or that of gcloud's settings
    errors = [f"--{name} is missing; name it." for name in ("project", "region") if not getattr(cloud, name)]
    places = [name for name in ("temp_location", "staging_location") if getattr(cloud, name)]
    if not places:
        errors.append("--temp_location is missing; give one such as gs://BUCKET/tmp.")
    elif all(faults := [validator.validate_gcs_path(cloud, name) for name in places]):
        errors += [fault for found in faults for fault in found]
    return errors


def load_runner(name: str) -> PipelineRunner:
    """The runner of this name, whose module may define options of its own. Raises UserError if there is none."""
    try:
        return create_runner(name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"--runner: {' '.join(str(error).split())}") from None


def beam_options(rest: list[str], command: str = "pairmill COMMAND") -> PipelineOptions:
    """Beam's options from what the job's parser did not know, with this machine's local runner as the default.

    Beam ignores unknown options, so a mistyped one would have no effect. Raises UserError for it, and for options with
    which Beam loses data.
    """
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    asked.add_argument("--runner", default=LOCAL_RUNNER)
    load_runner(asked.parse_known_args(rest)[0].runner)
    known = _BeamArgumentParser(add_help=False, allow_abbrev=False)
    for options_class in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):  # two of them may define the same option
            options_class._add_argparse_args(known)
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        try:
            _, unknown = known.parse_known_args(rest)
        except SystemExit:
            unknown = rest
    if unknown:
        raise UserError(
            f"{' '.join(unknown)}: not an option of pairmill, nor of Beam as given; `{command} --help` lists "
            "the options"
        )
    options = JobOptions(rest)
    given = options.get_all_options(drop_default=True)
    if given.get("direct_running_mode") == "multi_threading":
        raise UserError(
            "--direct_running_mode multi_threading: Beam loses and mixes up data in this mode; leave the "
            "option out for a process for each core"
        )
    if any(experiment.startswith("data_buffer_time_limit_ms") for experiment in given.get("experiments") or ()):
        raise UserError("--experiments data_buffer_time_limit_ms: Beam cuts and loses data with it; leave it out")
    if "runner" not in given:
        # Beam's 0 means all cores, its default 1: `given` does not tell whether that was asked for.
        asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        asked.add_argument("--direct_num_workers", type=int, default=0)
        workers = asked.parse_known_args(rest)[0].direct_num_workers
        workers = workers or os.cpu_count() or 1
        extra = [f"--runner={LOCAL_RUNNER}", f"--direct_num_workers={workers}"]
        if "direct_running_mode" not in given and workers > 1:
            extra.append("--direct_running_mode=multi_processing")
        options = JobOptions([*rest, *extra])
    return options


LOCAL_RUNNER = f"{LocalRunner.__module__}.{LocalRunner.__qualname__}"


def has_local_runner(options: PipelineOptions) -> bool:
    return options.view_as(StandardOptions).runner == LOCAL_RUNNER


def workers_of(options: PipelineOptions) -> int:
    """Worker processes of a job on this machine."""
    return options.get_all_options().get("direct_num_workers") or os.cpu_count() or 1


def threads_of(options: PipelineOptions) -> int:
    """CPU threads of a worker process: its share of this machine's cores, or 1 where an engine starts the workers."""
    return max(1, (os.cpu_count() or 1) // workers_of(options)) if has_local_runner(options) else 1
