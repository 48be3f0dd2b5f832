"""Options of select, and the settings that an output records of them."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from beam_jobs.flags.common import at_least, share
from models.errors import UserError
from pipeline.filters import SelectConfig
from pipeline.sources.check_files import check_files
from pipeline.sources.file_ranges import FileRange, file_ranges
from pipeline.sources.provenance import describe_files
from pipeline.sources.registry import SOURCES, SourceSettings
from pipeline.text import personal_data
from pipeline.text.language import DETECTORS


def add_select_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("select")
    group.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="NAME=PATTERN",
        help=f"lists to read: NAME is one of {', '.join(SOURCES)}; PATTERN is a path, a glob or a URL; repeatable",
    )
    group.add_argument(
        "--language-detector",
        default=SelectConfig.language_detector,
        choices=sorted(DETECTORS),
        help="detector that tells English captions from others",
    )
    group.add_argument(
        "--language-threshold",
        type=share(lambda number: 0 <= number <= 1, "give a number from 0 to 1"),
        metavar="P",
        help="lowest detector score, from 0 to 1, of a caption that counts as English (default: 0.5)",
    )
    group.add_argument(
        "--min-words",
        type=at_least(0),
        default=SelectConfig.min_words,
        metavar="N",
        help="reject captions of fewer than N words",
    )
    group.add_argument(
        "--min-characters",
        type=at_least(0),
        default=SelectConfig.min_characters,
        metavar="N",
        help="reject captions of fewer than N characters",
    )
    group.add_argument(
        "--licence",
        action="append",
        default=[],
        metavar="TEXT",
        help="keep only rows that state this licence, for example 'Attribution License'; repeatable",
    )
    group.add_argument(
        "--cut-tails",
        action="store_true",
        help="cut boilerplate off the end of captions, such as '. Photo by Jane Doe'",
    )
    group.add_argument(
        "--sharma",
        action="store_true",
        help="also reject captions of repeated words and captions in capitals, as Conceptual Captions did",
    )
    group.add_argument(
        "--personal-data",
        choices=(personal_data.REJECT, personal_data.MASK),
        help="reject captions with an e-mail address or a telephone number, or put <EMAIL> and <PHONE> in their place; "
        "either way no file of the output holds one",
    )
    for source in SOURCES.values():
        source.add_arguments(group)
    group.add_argument(
        "--val-share",
        type=share(lambda number: 0 <= number < 1, "give a share from 0 to below 1"),
        default=SelectConfig.val_share,
        metavar="SHARE",
        help="share of the pairs to hold out for validation, chosen by a hash of the key",
    )


def select_config(args: argparse.Namespace) -> SelectConfig:
    """Raises UserError if a package is missing that the options need."""
    if args.personal_data:
        personal_data.check_installed()
    return SelectConfig(
        min_words=args.min_words,
        min_characters=args.min_characters,
        min_side=args.min_side,
        min_ratio=args.min_ratio,
        max_ratio=args.max_ratio,
        language_detector=args.language_detector,
        language_threshold=args.language_threshold,
        val_share=args.val_share,
        licences=tuple(args.licence),
        cut_tails=args.cut_tails,
        personal_data=args.personal_data or "",
        sharma=args.sharma,
    )


def source_settings(args: argparse.Namespace) -> SourceSettings:
    """The settings of every source, used or not."""
    return {name: source.settings_from(args) for name, source in SOURCES.items()}


def input_files(args: argparse.Namespace) -> list[str]:
    """The lists as they were given: what workers read themselves."""
    return [text.partition("=")[2] for text in args.source]


def source_ranges(patterns: list[str], settings: SourceSettings) -> list[FileRange]:
    """The file ranges of the values of --source, NAME=PATTERN each.

    Raises UserError for an unknown name, for a pattern that matches no file and for a file of another kind.
    """
    found = []
    for text in patterns:
        name, equals, pattern = text.partition("=")
        if not equals or not pattern or name not in SOURCES:
            raise UserError(f"--source {text}: give NAME=PATTERN with one of the names {', '.join(SOURCES)}")
        found.extend(file_ranges(name, pattern))
    check_files(found, settings)
    return found


def select_settings(args: argparse.Namespace, ranges: list[FileRange]) -> dict[str, Any]:
    """What the output records of select: the files that are read, with their sha256, and all settings. A sample's
    output is not kept: its files are not read whole."""
    chosen = source_settings(args)
    side_files = [path for name, source in SOURCES.items() for path in source.side_files(chosen[name])]
    settings: dict[str, Any] = {
        "sources": args.source,
        "files": [] if args.estimate else describe_files(dict.fromkeys([*(each.path for each in ranges), *side_files])),
    }
    settings |= dataclasses.asdict(select_config(args))
    if args.personal_data:
        settings["phonenumbers"] = personal_data.version()
    else:
        del settings["personal_data"]
    for name, source in SOURCES.items():
        settings |= source.recorded(chosen[name])
    return settings
