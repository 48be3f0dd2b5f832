"""The options of the jobs, and, from the modules beside this one, what else the jobs share."""

from __future__ import annotations

import argparse
import contextlib
import os

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import create_runner

from beam_jobs.local_runner import LocalRunner
from models.errors import UserError


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


def job_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"pairmill {name}",
        description=description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        epilog="Options not listed go to Apache Beam: --runner, --temp_location, ...",
    )
    parser.add_argument("--output", required=True, type=path, metavar="DIR", help="a folder, or gs://..., s3://...")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in DIR")
    return parser


def path(text: str) -> str:
    """An argparse type: a path is not empty, which would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a folder or a file")
    return text


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> tuple[argparse.Namespace, PipelineOptions]:
    """Ours, and Beam's. Raises UserError for a number out of range and for an option that neither knows."""
    args, rest = parser.parse_known_args(arguments)
    for name, least in (
        ("min_words", 0),
        ("min_characters", 0),
        ("min_side", 1),
        ("max_pixels", 1),
        ("retries", 0),
        ("max_bytes", 1),
        ("connections", 1),
        ("per_host_connections", 1),
        ("pairs_per_unit", 1),
        ("draws", 1),
        ("batch_size", 1),
        ("attempts", 1),
        ("pairs_per_shard", 1),
        ("bytes_per_shard", 1),
        ("rows_per_file", 1),
        ("resize", 0),
    ):
        if getattr(args, name, None) is not None and getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give {least} or more")
    for name in ("timeout", "per_host_rate", "min_ratio", "max_ratio"):
        if hasattr(args, name) and not getattr(args, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give a number over 0")
    if getattr(args, "language_threshold", None) is not None and not 0 <= args.language_threshold <= 1:
        raise UserError(f"--language-threshold {args.language_threshold}: give a number from 0 to 1")
    if hasattr(args, "val_share") and not 0 <= args.val_share < 1:
        raise UserError(f"--val-share {args.val_share}: give a share from 0 to below 1")
    options = beam_options(rest)
    check_engine(options)
    FileSystems.set_options(options)  # a pipeline would, but the output is looked at before there is one
    return args, options


def check_engine(options: PipelineOptions) -> None:
    """Raises UserError for a runner that does not exist and for options that it lacks, before anything is written."""
    try:
        runner = create_runner(options.view_as(StandardOptions).runner)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"--runner: {' '.join(str(error).split())}") from None
    if errors := PipelineOptionsValidator(options, runner).validate():
        raise UserError(f"--runner {options.view_as(StandardOptions).runner}: {' '.join(' '.join(errors).split())}")


def beam_options(rest: list[str]) -> PipelineOptions:
    """Beam takes unknown options without a word; a mistyped one of ours must not pass as one of its."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):  # two of them may define the same option
            options._add_argparse_args(known)
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        try:
            _, unknown = known.parse_known_args(rest)
        except SystemExit:
            unknown = rest
    if unknown:
        raise UserError(f"{' '.join(unknown)}: not an option of pairmill, nor of Beam as given; see --help")
    options = PipelineOptions(rest)
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
        workers = workers or os.cpu_count()
        extra = [f"--runner={LOCAL_RUNNER}", f"--direct_num_workers={workers}"]
        if "direct_running_mode" not in given and workers > 1:
            extra.append("--direct_running_mode=multi_processing")
        options = PipelineOptions([*rest, *extra])
    return options


LOCAL_RUNNER = f"{LocalRunner.__module__}.{LocalRunner.__qualname__}"
