"""Options of select, and the settings that an output remembers of them."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from beam_jobs.flags.common import at_least, share
from models.errors import UserError
from pipeline.filters import SelectConfig
from pipeline.sources import wikimedia_urls, yfcc100m
from pipeline.sources.cc12m import Cc12mSettings
from pipeline.sources.file_ranges import FileRange, file_ranges
from pipeline.sources.provenance import describe_files
from pipeline.sources.registry import SOURCES, SourceSettings
from pipeline.sources.wikipedia_dump import DumpSettings
from pipeline.sources.wit import WitSettings
from pipeline.sources.yfcc100m import YfccSettings
from pipeline.text.language import DETECTORS


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
        type=share(lambda number: 0 <= number <= 1, "give a number from 0 to 1"),
        metavar="P",
        help="of the detector's score, from 0 to 1: English from here up (by default 0.5)",
    )
    group.add_argument("--min-words", type=at_least(0), default=SelectConfig.min_words, help="of a caption")
    group.add_argument("--min-characters", type=at_least(0), default=SelectConfig.min_characters, help="of a caption")
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
    group.add_argument(
        "--val-share",
        type=share(lambda number: 0 <= number < 1, "give a share from 0 to below 1"),
        default=SelectConfig.val_share,
        help="of the pairs, by hash of key",
    )


def select_config(args: argparse.Namespace) -> SelectConfig:
    return SelectConfig(
        min_words=args.min_words,
        min_characters=args.min_characters,
        min_side=args.min_side,
        min_ratio=args.min_ratio,
        max_ratio=args.max_ratio,
        language_detector=args.language_detector,
        language_threshold=args.language_threshold,
        val_share=args.val_share,
        cc12m_person=args.cc12m_person,
        licences=tuple(args.licence),
        sharma=args.sharma,
        undo_cc3m_spacing=not args.keep_cc3m_spacing,
    )


def source_settings(args: argparse.Namespace) -> SourceSettings:
    return SourceSettings(
        YfccSettings(args.yfcc_caption, args.yfcc_subset or "", tuple(args.yfcc_refuse_machine_tag)),
        DumpSettings(args.wikipedia_width),
        Cc12mSettings(args.cc12m_hashes or ""),
        WitSettings(tuple(args.wit_pixels)),
    )


def source_pieces(patterns: list[str]) -> list[FileRange]:
    """--source NAME=PATTERN ... -> what there is to read. Raises UserError for an unknown name and for no files."""
    found = []
    for text in patterns:
        name, equals, pattern = text.partition("=")
        if not equals or not pattern or name not in SOURCES:
            raise UserError(f"--source {text}: give NAME=PATTERN with one of the names {', '.join(SOURCES)}")
        found.extend(file_ranges(name, pattern))
    return found


def select_settings(args: argparse.Namespace, pieces: list[FileRange]) -> dict[str, Any]:
    own = dataclasses.asdict(source_settings(args))
    lists = [args.cc12m_hashes] if args.cc12m_hashes else []
    files = describe_files(dict.fromkeys([*(piece.path for piece in pieces), *lists]))
    return {"sources": args.source, "files": files} | dataclasses.asdict(select_config(args)) | own
