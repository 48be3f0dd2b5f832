"""Options of encode, and the settings of them that a manifest records. Imports torch: select and fetch must not."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.resources import parse_resource_hints

from beam_jobs.flags.common import Group, at_least, has_local_runner, threads_of
from beam_jobs.flags.engine import has_remote_workers
from beam_jobs.flags.files import shard_settings
from beam_jobs.flags.images import image_config
from models.device import add_device_option, device_of, kind_of
from models.errors import UserError
from models.tokenizers.image import PRECISIONS, ComputeOptions, check_compute, spec_forms
from models.tokenizers.text import TextTokenizer
from pipeline.dataset.near_duplicates import NearDuplicateConfig
from pipeline.tokenize_stage import CROP_RECIPE, EncodeConfig


def add_encode_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("encode")
    _add_image_tokenizer_options(group)
    _add_machine_options(group)
    _add_content_options(group)


def _add_image_tokenizer_options(group: Group) -> None:
    """The image tokenizer, and how it computes."""
    group.add_argument(
        "--image-tokenizer",
        default="bundled",
        metavar="SPEC",
        help=f"image tokenizer to use: {', '.join(['bundled', 'bundled-scenes', *spec_forms()])} (one's own class); "
        "with @128 after it, images are tokenized at 128 x 128 px",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=ComputeOptions.precision,
        help="number format in which the image tokenizer computes; bfloat16 is faster and changes a few codes in a "
        "hundred",
    )
    add_device_option(group, "the image tokenizer")
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the image tokenizer with torch.compile, which takes every worker half a minute and makes it up "
        "to a fifth faster; needs a C++ compiler",
    )
    group.add_argument(
        "--batch-size",
        type=at_least(1),
        default=EncodeConfig.batch_size,
        metavar="N",
        help="crops that a GPU encodes at once; a CPU encodes them one by one, which is faster there; the codes do not "
        "depend on N",
    )


def _add_machine_options(group: Group) -> None:
    """What an engine's machines that encode must have."""
    group.add_argument(
        "--encode-accelerator",
        default="",
        metavar="TYPE",
        help="accelerator that an engine gives the machines that encode, as Beam's resource hint of that name, such as "
        '"type:nvidia-tesla-t4;count:1;install-nvidia-driver"; build then fetches on machines without it',
    )
    group.add_argument(
        "--encode-min-ram",
        default="",
        metavar="SIZE",
        help="memory that an engine gives the machines that encode, such as 16GB; build then fetches on others",
    )


def _add_content_options(group: Group) -> None:
    """What the dataset holds of each pair, and of which."""
    group.add_argument(
        "--text-tokenizer",
        default="bundled",
        metavar="FILE",
        help="text tokenizer to use: a tokenizer.json, such as `pairmill train-bpe` writes, or bundled",
    )
    group.add_argument(
        "--draws",
        type=at_least(1),
        default=EncodeConfig.draws,
        metavar="K",
        help="random crops of each image whose codes are stored",
    )
    group.add_argument(
        "--centre-first",
        action="store_true",
        help="make the first crop of each image its centre square instead of a random one",
    )
    group.add_argument(
        "--near-duplicates",
        action="store_true",
        help="keep only the first of images that are copies of each other, even if resized, recompressed, cropped or "
        "changed in tone",
    )
    group.add_argument(
        "--exclude",
        default="",
        metavar="FILE",
        help="list of images, as `pairmill hash` writes it; reject these images and their near-duplicates",
    )


def encode_config(args: argparse.Namespace, options: PipelineOptions) -> EncodeConfig:
    """Raises UserError for a text tokenizer that is missing or malformed, and for a device that this machine lacks if
    its workers run here."""
    computing = ComputeOptions(args.precision, device_of(args.device), args.compile)
    if not has_remote_workers(options):
        check_compute(computing)
    return EncodeConfig(
        image_tokenizer=args.image_tokenizer,
        text_tokenizer=text_tokenizer_json(args),
        draws=args.draws,
        computing=computing,
        centre_first=args.centre_first,
        batch_size=args.batch_size,
        threads=threads_of(options),
        with_signatures=near_config(args).on,
    )


def text_tokenizer_json(args: argparse.Namespace) -> str:
    """The content of --text-tokenizer, as which it travels to workers; "" for the bundled one, which each of them has.
    Raises UserError for a file that is missing or malformed."""
    return "" if args.text_tokenizer == "bundled" else TextTokenizer.load(args.text_tokenizer).text


def encode_hints(args: argparse.Namespace, options: PipelineOptions) -> dict[str, str]:
    """Beam's resource hints for the step that encodes. Raises UserError for a malformed one, and for any of the local
    runner, whose steps all run here."""
    given = {"accelerator": args.encode_accelerator, "min_ram": args.encode_min_ram}
    hints = {name: value for name, value in given.items() if value}
    for name, value in hints.items():
        option = f"--encode-{name.replace('_', '-')} {value}"
        if has_local_runner(options):
            raise UserError(f"{option}: without --runner all steps run on this machine; leave the option out")
        try:
            parse_resource_hints({name: value})
        except (ValueError, UnicodeEncodeError) as error:
            raise UserError(f"{option}: {error} Give a size such as 16GB, and a type in plain letters") from None
    return hints


def gpus_of(args: argparse.Namespace, workers: int) -> int:
    """GPUs of this machine that so many workers use."""
    device = torch.device(device_of(args.device))
    if device.type == "cpu":
        return 0
    return min(workers, torch.cuda.device_count()) if device.index is None else 1


def near_config(args: argparse.Namespace) -> NearDuplicateConfig:
    return NearDuplicateConfig(args.near_duplicates, args.exclude)


def encode_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the manifest records of the encoding."""
    return {
        "draws": args.draws,
        "shards": shard_settings(args),
        "crop_recipe": CROP_RECIPE,
        "precision": args.precision,
        "device": kind_of(device_of(args.device)),
        "compiled": args.compile,
        "centre_first": args.centre_first,
        "near_duplicates": args.near_duplicates,
        "exclude": args.exclude,
    } | dataclasses.asdict(image_config(args))
