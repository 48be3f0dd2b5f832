"""Options of encode for codes that were computed elsewhere."""

from __future__ import annotations

import argparse
import sys

from beam_jobs.flags.common import Group, at_least, path
from models.command_line import CommandParser
from models.errors import UserError
from models.tokenizers.info import CodeShape, parse_shape

OF_IMAGES = (
    *("min_ratio", "max_ratio", "min_side", "max_pixels", "centre_first", "near_duplicates", "exclude"),
    *("precision", "device", "compile", "batch_size", "encode_accelerator", "encode_min_ram", "estimate"),
    *("min_clip", "min_score", "max_score", "score_model", "score_head", "scores", "keep_top"),
)
"""Options of encode that need images."""


def add_input_option(group: Group) -> None:
    group.add_argument(
        "--codes",
        type=path,
        metavar="PATTERN",
        help="instead of images, codes that were computed elsewhere: Parquet with columns codes (a list of integers "
        "for each image) and caption, or .npy (integers, a row for each image) with a table of captions beside it; a "
        "file, a glob or a folder; --image-tokenizer says which tokenizer computed them, as codes:NAME if it is none "
        "that can be loaded",
    )


def add_codes_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("codes from elsewhere (--codes)")
    group.add_argument(
        "--captions",
        type=path,
        metavar="PATTERN",
        help="tables of captions, one for each .npy, with a row for each of its rows in the same order: Parquet, CSV, "
        "TSV, JSON lines, or .txt with a caption a line (default: the file of the same name beside each .npy)",
    )
    group.add_argument(
        "--code-shape",
        type=_shape,
        metavar="SHAPE",
        help="layout of the codes of a crop: 16x16 (rows and columns), 256 (a sequence) or 1x1+2x2+4x4 (scales) "
        "(default: that of --image-tokenizer, else as the lists are nested, a flat list being a sequence)",
    )
    group.add_argument(
        "--code-vocabulary",
        type=at_least(1),
        metavar="N",
        help="number of different codes (default: that of --image-tokenizer, else one more than the largest code)",
    )


def _shape(text: str) -> CodeShape:
    try:
        return parse_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_codes(args: argparse.Namespace, parser: CommandParser) -> None:
    """Raises UserError for options of images with --codes, and for options of codes without."""
    if args.codes:
        for name in OF_IMAGES:
            if getattr(args, name) != parser.get_default(name):
                raise UserError(f"--{name.replace('_', '-')}: is of images; leave it out with --codes")
        return
    for name in ("captions", "code_shape", "code_vocabulary"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: is of --codes; leave it out with --images")


def is_given(option: str, arguments: list[str] | None) -> bool:
    """Whether a command names an option, be it with the value of its default."""
    given = sys.argv[1:] if arguments is None else arguments
    return any(text == option or text.startswith(f"{option}=") for text in given)
