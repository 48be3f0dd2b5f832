"""Options of images: size, ratio, and how they are stored."""

from __future__ import annotations

import argparse

from pipeline.images.shard_writer import StoreConfig
from pipeline.images.validate import ImageConfig


def add_image_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures")
    group.add_argument("--min-ratio", type=float, default=ImageConfig.min_ratio, help="width / height")
    group.add_argument("--max-ratio", type=float, default=ImageConfig.max_ratio, help="width / height")
    group.add_argument("--min-side", type=int, default=ImageConfig.min_side, help="px of the shorter side")
    group.add_argument("--max-pixels", type=int, default=ImageConfig.max_pixels)


def image_config(args: argparse.Namespace) -> ImageConfig:
    return ImageConfig(args.min_ratio, args.max_ratio, args.min_side, args.max_pixels)


def store_config(args: argparse.Namespace) -> StoreConfig:
    return StoreConfig(args.resize, args.image_format, args.quality)
