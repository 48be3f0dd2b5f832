"""The options of the stage that encodes, and what becomes of them; apart from the others', because this needs torch."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.flags.common import add_rows_per_file
from beam_jobs.run import LOCAL_RUNNER
from models.errors import UserError
from models.tokenizers.image import DEVICES, PRECISIONS, Computing, load_image_tokenizer
from models.tokenizers.text import BUNDLED as BUNDLED_TEXT_TOKENIZER
from models.tokenizers.text import TextTokenizer
from pipeline.dataset.existing import Existing
from pipeline.dataset.near_duplicates import NearConfig
from pipeline.dataset.shard_boundaries import PAIRS_PER_SHARD, ShardSize
from pipeline.dataset.shards import DatasetParts
from pipeline.tokenize_stage import CROP_RECIPE, EncodeConfig
from pipeline.version import VERSION


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
        default=Computing.precision,
        help="of the image tokenizer; bfloat16 is faster and changes a few codes in a hundred",
    )
    group.add_argument("--device", choices=DEVICES, default=Computing.device, help="that computes the codes")
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


def add_size_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument(
        "--pairs-per-shard",
        type=int,
        metavar="N",
        help=f"at most; the shards of a split have equally many (default: {PAIRS_PER_SHARD})",
    )
    group.add_argument("--bytes-per-shard", type=int, metavar="N", help="instead: about so many bytes, equally many")
    add_rows_per_file(group)


def encode_config(args: argparse.Namespace, options: PipelineOptions) -> EncodeConfig:
    text = str(BUNDLED_TEXT_TOKENIZER) if args.text_tokenizer == "bundled" else args.text_tokenizer
    given = options.get_all_options()
    local = given.get("runner") == LOCAL_RUNNER
    threads = max(1, os.cpu_count() // given["direct_num_workers"]) if local else 1
    computing = Computing(args.precision, args.device, args.compile)
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


def shard_size(args: argparse.Namespace) -> ShardSize:
    """Raises UserError for both kinds at once."""
    if args.pairs_per_shard and args.bytes_per_shard:
        raise UserError("--pairs-per-shard and --bytes-per-shard: give one of them")
    return ShardSize(args.pairs_per_shard or PAIRS_PER_SHARD, args.bytes_per_shard or 0)


def near_config(args: argparse.Namespace) -> NearConfig:
    return NearConfig(args.near_duplicates, args.exclude)


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


def shard_settings(args: argparse.Namespace) -> dict[str, int]:
    size = shard_size(args)
    return {"bytes": size.bytes} if size.bytes else {"pairs": size.pairs}


def dataset_parts(encode: EncodeConfig, settings: dict[str, Any], sources: set[str]) -> DatasetParts:
    """Loads both tokenizers once, here, so that a wrong one is told before the job starts. Raises UserError."""
    images = load_image_tokenizer(encode.image_tokenizer, encode.computing)
    text = TextTokenizer.load(encode.text_tokenizer)
    names = ("torch", "tokenizers", "opencv-python-headless", "pillow", "ftfy")
    versions = {"pairmill": VERSION} | {name: importlib.metadata.version(name) for name in names}
    return DatasetParts(images.info, text.info, text.text, encode.draws, settings, versions, tuple(sorted(sources)))


def check_addition(old: list[Existing], parts: DatasetParts) -> None:
    """Raises UserError unless new pairs would be encoded as those of the dataset that they are to join."""
    for each in old:
        for what, mine in (("image tokenizer", parts.image_tokenizer), ("text tokenizer", parts.text_tokenizer)):
            theirs = getattr(each.manifest, what.replace(" ", "_"))
            if theirs.fingerprint != mine.fingerprint:
                raise UserError(
                    f"--add-to {each.directory}: it was made by another {what} ({theirs.fingerprint[:12]}, "
                    f"not {mine.fingerprint[:12]}); give that one"
                )
        if each.manifest.draws != parts.draws:
            raise UserError(
                f"--add-to {each.directory}: it has {each.manifest.draws} draws a picture; "
                f"give --draws {each.manifest.draws}"
            )


def identity(parts: DatasetParts) -> dict[str, Any]:
    """What two runs must agree on for one to resume the other."""
    return parts.settings | {
        "image_tokenizer": parts.image_tokenizer.fingerprint,
        "text_tokenizer": parts.text_tokenizer.fingerprint,
        "versions": parts.versions,
    }
