"""Options of images: which are kept, and how `fetch` stores them."""

from __future__ import annotations

import argparse

from beam_jobs.flags.common import above, at_least, between
from pipeline.images.shard_writer import StoreConfig
from pipeline.images.validate import ImageConfig


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """The bounds that an image must keep to."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--min-ratio",
        type=above(0),
        default=ImageConfig.min_ratio,
        metavar="R",
        help="reject images whose width / height is below R",
    )
    group.add_argument(
        "--max-ratio",
        type=above(0),
        default=ImageConfig.max_ratio,
        metavar="R",
        help="reject images whose width / height is above R",
    )
    group.add_argument(
        "--min-side",
        type=at_least(1),
        default=ImageConfig.min_side,
        metavar="N",
        help="reject images whose shorter side has fewer than N px",
    )
    group.add_argument(
        "--max-pixels",
        type=at_least(1),
        default=ImageConfig.max_pixels,
        metavar="N",
        help="reject images whose width x height is more than N px, without decoding them",
    )


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """How `fetch` stores an image."""
    group = parser.add_argument_group("stored images")
    group.add_argument(
        "--resize",
        type=at_least(0),
        default=0,
        metavar="N",
        help="reduce the shorter side of larger images to N px; 0 stores every image as it was downloaded (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--image-format", choices=("jpg", "webp", "png"), default="jpg", help="file format of resized images"
    )
    group.add_argument(
        "--quality",
        type=between(1, 100),
        default=95,
        metavar="Q",
        help="JPEG or WebP quality of resized images, from 1 to 100",
    )


def image_config(args: argparse.Namespace) -> ImageConfig:
    return ImageConfig(args.min_ratio, args.max_ratio, args.min_side, args.max_pixels)


def store_config(args: argparse.Namespace) -> StoreConfig:
    return StoreConfig(args.resize, args.image_format, args.quality)
