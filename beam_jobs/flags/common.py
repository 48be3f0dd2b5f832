"""The options of the jobs, and, from the modules beside this one, what else the jobs share."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.flags.fetch import (
    fetch_config,
    fetch_settings,
    picture_config,
    select_config,
    select_settings,
    source_pieces,
    source_settings,
    store_config,
)
from beam_jobs.run import LOCAL_RUNNER, command, run
from models.errors import UserError
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.politeness import OPT_OUTS
from pipeline.filters import SelectConfig
from pipeline.images.validate import PictureConfig
from pipeline.output.parquet import ROWS_PER_FILE
from pipeline.output.state import is_finished, prepare_output, reopen_output
from pipeline.sources import wikimedia_urls, yfcc100m
from pipeline.sources.file_ranges import SOURCES
from pipeline.sources.wikipedia_dump import DumpSettings
from pipeline.text.language import DETECTORS

__all__ = [
    "LOCAL_RUNNER",
    "add_fetch_options",
    "add_picture_options",
    "add_rows_per_file",
    "add_select_options",
    "beam_options",
    "command",
    "fetch_config",
    "fetch_settings",
    "is_finished",
    "job_parser",
    "parse",
    "picture_config",
    "prepare_output",
    "reopen_output",
    "run",
    "select_config",
    "select_settings",
    "source_pieces",
    "source_settings",
    "store_config",
]
_ENCODING = {
    "add_encode_options",
    "add_size_options",
    "check_addition",
    "dataset_parts",
    "encode_config",
    "encode_settings",
    "identity",
    "near_config",
    "shard_settings",
    "shard_size",
}


def __getattr__(name: str) -> Any:
    """What is in `encoding.py`, imported only when it is asked for: it needs torch, which selecting and fetching can do
    without."""
    if name in _ENCODING:
        return getattr(importlib.import_module("beam_jobs.flags.encode"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    parser.add_argument("--output", required=True, metavar="DIR", help="a folder, or gs://..., s3://...")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in DIR")
    return parser


def add_select_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("select")
    group.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="NAME=PATTERN",
        help=f"repeatable; NAME is one of {', '.join(SOURCES)}; PATTERN a path, a glob or a URL",
    )
    group.add_argument("--language-detector", default=SelectConfig.language_detector, choices=sorted(DETECTORS))
    group.add_argument(
        "--language-threshold",
        type=float,
        metavar="P",
        help="of the detector's score, from 0 to 1: English from here up (by default 0.5)",
    )
    group.add_argument("--min-words", type=int, default=SelectConfig.min_words, help="of a caption")
    group.add_argument("--min-characters", type=int, default=SelectConfig.min_characters, help="of a caption")
    group.add_argument(
        "--licence",
        action="append",
        default=[],
        metavar="TEXT",
        help="repeatable: keep only rows that state it, for example 'Attribution License'",
    )
    group.add_argument(
        "--sharma",
        action="store_true",
        help="also drop captions of repeated words and of capitals alone, as Conceptual Captions did",
    )
    group.add_argument(
        "--cc12m-person",
        default=SelectConfig.cc12m_person,
        metavar="TEXT",
        help="what stands for CC12M's mark of a name",
    )
    group.add_argument(
        "--cc12m-hashes",
        metavar="FILE",
        help="CC12M's file of URL, SHA256 and MD5: a picture that is another now is a hash_mismatch",
    )
    group.add_argument(
        "--wit-pixels",
        action="append",
        default=[],
        metavar="PATTERN",
        help="repeatable: Kaggle's files of pixels (URL, base64 bytes, metadata URL): what they hold of "
        "wit's pictures is not fetched",
    )
    group.add_argument("--keep-cc3m-spacing", action="store_true", help="leave CC3M's tokens apart, as published")
    group.add_argument(
        "--wikipedia-width",
        type=int,
        default=DumpSettings.width,
        metavar="W",
        choices=(0, *wikimedia_urls.WIDTHS),
        help="px of a dump's thumbnails, one of the widths that are served; 0: originals",
    )
    group.add_argument(
        "--yfcc-caption",
        default=yfcc100m.CAPTIONS[0],
        choices=yfcc100m.CAPTIONS,
        help="what of a YFCC100M row is its caption",
    )
    group.add_argument(
        "--yfcc-subset",
        metavar="FILE",
        help="keep only the photos that a list names, such as OpenAI's yfcc100m_subset_data.tsv.bz2",
    )
    group.add_argument(
        "--yfcc-refuse-machine-tag",
        action="append",
        default=[],
        metavar="TEXT",
        help="repeatable: rows with a machine tag that begins so go, for example uploaded:by=instagram",
    )
    group.add_argument("--val-share", type=float, default=SelectConfig.val_share, help="of the pairs, by hash of key")


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures")
    group.add_argument("--min-ratio", type=float, default=PictureConfig.min_ratio, help="width / height")
    group.add_argument("--max-ratio", type=float, default=PictureConfig.max_ratio, help="width / height")
    group.add_argument("--min-side", type=int, default=PictureConfig.min_side, help="px of the shorter side")
    group.add_argument("--max-pixels", type=int, default=PictureConfig.max_pixels)


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fetch")
    group.add_argument(
        "--timeout",
        type=float,
        default=FetchConfig.timeout_s,
        metavar="S",
        help="seconds for one attempt at one picture",
    )
    group.add_argument(
        "--retries", type=int, default=FetchConfig.retries, metavar="N", help="after a failure that may pass"
    )
    group.add_argument("--max-bytes", type=int, default=FetchConfig.max_bytes, help="of one picture")
    group.add_argument("--connections", type=int, default=FetchConfig.connections, help="of one worker, in all")
    group.add_argument(
        "--per-host-connections", type=int, default=FetchConfig.per_host_connections, metavar="N", help="of one machine"
    )
    group.add_argument(
        "--per-host-rate", type=float, default=FetchConfig.per_host_rate, metavar="R", help="requests/s of one machine"
    )
    group.add_argument("--user-agent", default=FetchConfig.user_agent, metavar="TEXT", help="of your own")
    group.add_argument(
        "--contact", metavar="TEXT", help="a URL or an e-mail address, for the User-Agent: hosts block what hides"
    )
    group.add_argument(
        "--ignore-opt-out",
        action="append",
        nargs="?",
        const="all",
        default=[],
        choices=("all", *OPT_OUTS),
        help="fetch in spite of this header; without a name, of any",
    )
    group.add_argument(
        "--allow-address",
        action="append",
        default=[],
        metavar="CIDR",
        help="a network that is refused otherwise, such as 127.0.0.0/8",
    )
    group.add_argument(
        "--pairs-per-unit",
        type=int,
        default=1000,
        metavar="N",
        help="pairs fetched, and remembered after a kill, together",
    )


def add_rows_per_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows-per-file", type=int, default=ROWS_PER_FILE, metavar="N", help="of the Parquet files")


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
    FileSystems.set_options(options)  # a pipeline would, but the output is looked at before there is one
    return args, options


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
