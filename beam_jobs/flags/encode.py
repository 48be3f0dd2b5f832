"""The options of the stage that encodes, and what becomes of them; apart from the others', because this needs torch."""

from __future__ import annotations

import argparse
import os
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.flags.common import LOCAL_RUNNER
from beam_jobs.flags.files import shard_settings
from models.tokenizers.image import DEVICES, PRECISIONS, ComputeOptions
from models.tokenizers.text import BUNDLED_BPE as BUNDLED_TEXT_TOKENIZER
from pipeline.dataset.near_duplicates import NearDuplicateConfig
from pipeline.tokenize_stage import CROP_RECIPE, EncodeConfig


def add_encode_options(parser: argparse.ArgumentParser, required: bool) -> None:
    group = parser.add_argument_group("encode")
    group.add_argument(
        "--image-tokenizer",
        required=required,
        default=None if required else "bundled",
        metavar="SPEC",
        help="bundled, dvae:FILE, openai-dvae:FILE, taming:CONFIG,FILE, diffusers:FOLDER, "
        "dalle-pytorch:FILE; SPEC@128: for pictures of 128 px a side",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=ComputeOptions.precision,
        help="of the image tokenizer; bfloat16 is faster and changes a few codes in a hundred",
    )
    group.add_argument("--device", choices=DEVICES, default=ComputeOptions.device, help="that computes the codes")
    group.add_argument(
        "--compile",
        action="store_true",
        help="the image tokenizer, by torch.compile: half a minute at the start of every worker, then "
        "up to a fifth faster; needs a C++ compiler",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        default=EncodeConfig.batch_size,
        metavar="N",
        help="pictures that an accelerator computes at once (a processor takes one after the other, "
        "which is faster there); no influence on the codes",
    )
    group.add_argument(
        "--text-tokenizer",
        required=required,
        metavar="FILE",
        default=None if required else str(BUNDLED_TEXT_TOKENIZER),
        help="a tokenizer.json, or bundled",
    )
    group.add_argument("--draws", type=int, default=EncodeConfig.draws, metavar="K", help="crops stored for a picture")
    group.add_argument("--centre-first", action="store_true", help="the first draw is the centre square")
    group.add_argument(
        "--near-duplicates",
        action="store_true",
        help="of pictures that look alike (resized, recompressed, cropped, re-toned) keep the first",
    )
    group.add_argument(
        "--exclude",
        default="",
        metavar="FILE",
        help="keep out what looks like a picture of this list, which `pairmill hash` wrote",
    )


def encode_config(args: argparse.Namespace, options: PipelineOptions) -> EncodeConfig:
    text = str(BUNDLED_TEXT_TOKENIZER) if args.text_tokenizer == "bundled" else args.text_tokenizer
    given = options.get_all_options()
    local = given.get("runner") == LOCAL_RUNNER
    threads = max(1, os.cpu_count() // given["direct_num_workers"]) if local else 1
    computing = ComputeOptions(args.precision, args.device, args.compile)
    return EncodeConfig(
        args.image_tokenizer,
        text,
        args.draws,
        computing,
        args.centre_first,
        args.batch_size,
        threads,
        near_config(args).on,
    )


def near_config(args: argparse.Namespace) -> NearDuplicateConfig:
    return NearDuplicateConfig(args.near_duplicates, args.exclude)


def encode_settings(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "draws": args.draws,
        "shards": shard_settings(args),
        "crop_recipe": CROP_RECIPE,
        "precision": args.precision,
        "device": args.device,
        "compiled": args.compile,
        "centre_first": args.centre_first,
        "near_duplicates": args.near_duplicates,
        "exclude": args.exclude,
    }
