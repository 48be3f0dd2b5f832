"""Arguments to what the stages are given, and to the settings that an output remembers."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import ipaddress
import os
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.running import LOCAL_RUNNER
from models.errors import UserError
from models.image_tokenizers import Computing, load_image_tokenizer
from models.text_tokenizer import BUNDLED as BUNDLED_TEXT_TOKENIZER
from models.text_tokenizer import TextTokenizer
from pipeline.existing import Existing
from pipeline.fetch import FetchConfig
from pipeline.filters import SelectConfig
from pipeline.image_shards import StoreConfig
from pipeline.manners import OPT_OUTS, shared_folder
from pipeline.near_duplicates import NearConfig
from pipeline.pictures import PictureConfig
from pipeline.provenance import provenance
from pipeline.shards import DatasetParts
from pipeline.sources import SOURCES, Piece, SourceSettings, pieces
from pipeline.sources.cc12m import Cc12mSettings
from pipeline.sources.wikipedia_dump import DumpSettings
from pipeline.sources.wit import WitSettings
from pipeline.sources.yfcc100m import YfccSettings
from pipeline.tokenize_stage import CROP_RECIPE, EncodeConfig
from pipeline.version import VERSION


def select_config(args: argparse.Namespace) -> SelectConfig:
    return SelectConfig(
        min_words=args.min_words, min_characters=args.min_characters, min_side=args.min_side,
        min_ratio=args.min_ratio, max_ratio=args.max_ratio, language_detector=args.language_detector,
        val_share=args.val_share, cc12m_person=args.cc12m_person, licences=tuple(args.licence), sharma=args.sharma,
        undo_cc3m_spacing=not args.keep_cc3m_spacing)


def picture_config(args: argparse.Namespace) -> PictureConfig:
    return PictureConfig(args.min_ratio, args.max_ratio, args.min_side, args.max_pixels)


def fetch_config(args: argparse.Namespace) -> FetchConfig:
    """Raises UserError for an --allow-address that is no network."""
    for network in args.allow_address:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UserError(f"--allow-address {network}: {error}; give a network such as 127.0.0.0/8") from None
    ignored = OPT_OUTS if "all" in args.ignore_opt_out else args.ignore_opt_out
    user_agent = f"{args.user_agent} ({args.contact})" if args.contact else args.user_agent
    return FetchConfig(
        timeout_s=args.timeout, retries=args.retries, max_bytes=args.max_bytes, connections=args.connections,
        per_host_connections=args.per_host_connections, per_host_rate=args.per_host_rate, user_agent=user_agent,
        obey=tuple(name for name in OPT_OUTS if name not in ignored), allow_addresses=tuple(args.allow_address),
        shared_folder=shared_folder())


def store_config(args: argparse.Namespace) -> StoreConfig:
    return StoreConfig(args.resize, args.image_format, args.quality)


def encode_config(args: argparse.Namespace, options: PipelineOptions) -> EncodeConfig:
    text = str(BUNDLED_TEXT_TOKENIZER) if args.text_tokenizer == "bundled" else args.text_tokenizer
    given = options.get_all_options()
    local = given.get("runner") == LOCAL_RUNNER
    threads = max(1, os.cpu_count() // given["direct_num_workers"]) if local else 1
    computing = Computing(args.precision, args.device, args.compile)
    return EncodeConfig(args.image_tokenizer, text, args.draws, computing, args.centre_first, args.batch_size, threads,
                        near_config(args).on)


def near_config(args: argparse.Namespace) -> NearConfig:
    return NearConfig(args.near_duplicates, args.exclude)


def source_settings(args: argparse.Namespace) -> SourceSettings:
    return SourceSettings(
        YfccSettings(args.yfcc_caption, args.yfcc_subset or "", tuple(args.yfcc_refuse_machine_tag)),
        DumpSettings(args.wikipedia_width), Cc12mSettings(args.cc12m_hashes or ""),
        WitSettings(tuple(args.wit_pixels)))


def source_pieces(patterns: list[str]) -> list[Piece]:
    """--source NAME=PATTERN ... -> what there is to read. Raises UserError for an unknown name and for no files."""
    found = []
    for text in patterns:
        name, equals, pattern = text.partition("=")
        if not equals or not pattern or name not in SOURCES:
            raise UserError(f"--source {text}: give NAME=PATTERN with one of the names {', '.join(SOURCES)}")
        found.extend(pieces(name, pattern))
    return found


# --- settings, as they go into the manifest: what decides the result, not how it is computed ------------------------


def select_settings(args: argparse.Namespace, pieces: list[Piece]) -> dict[str, Any]:
    own = dataclasses.asdict(source_settings(args))
    lists = [args.cc12m_hashes] if args.cc12m_hashes else []
    files = provenance(dict.fromkeys([*(piece.path for piece in pieces), *lists]))
    return {"sources": args.source, "files": files} | dataclasses.asdict(select_config(args)) | own


def fetch_settings(args: argparse.Namespace) -> dict[str, Any]:
    fetch, pictures = dataclasses.asdict(fetch_config(args)), dataclasses.asdict(picture_config(args))
    names = ("timeout_s", "retries", "max_bytes", "user_agent", "obey", "allow_addresses")
    store = dataclasses.asdict(store_config(args)) if getattr(args, "resize", 0) else {"resize": 0}
    return {name: fetch[name] for name in names} | pictures | store


def encode_settings(args: argparse.Namespace) -> dict[str, Any]:
    return {"draws": args.draws, "pairs_per_shard": args.pairs_per_shard, "crop_recipe": CROP_RECIPE,
            "precision": args.precision, "device": args.device, "compiled": args.compile,
            "centre_first": args.centre_first, "near_duplicates": args.near_duplicates,
            "exclude": args.exclude}


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
                raise UserError(f"--add-to {each.directory}: it was made by another {what} ({theirs.fingerprint[:12]}, "
                                f"not {mine.fingerprint[:12]}); give that one")
        if each.manifest.draws != parts.draws:
            raise UserError(f"--add-to {each.directory}: it has {each.manifest.draws} draws a picture; "
                            f"give --draws {each.manifest.draws}")


def identity(parts: DatasetParts) -> dict[str, Any]:
    """What two runs must agree on for one to resume the other."""
    return parts.settings | {"image_tokenizer": parts.image_tokenizer.fingerprint,
                             "text_tokenizer": parts.text_tokenizer.fingerprint, "versions": parts.versions}
