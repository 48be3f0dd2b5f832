"""Arguments to what the stages are given, and to the settings that an output remembers."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
from typing import Any

from models.errors import UserError
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.politeness import OPT_OUTS, shared_folder
from pipeline.filters import SelectConfig
from pipeline.images.shard_writer import StoreConfig
from pipeline.images.validate import PictureConfig
from pipeline.sources.cc12m import Cc12mSettings
from pipeline.sources.file_ranges import SOURCES, Piece, SourceSettings, pieces
from pipeline.sources.provenance import provenance
from pipeline.sources.wikipedia_dump import DumpSettings
from pipeline.sources.wit import WitSettings
from pipeline.sources.yfcc100m import YfccSettings


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
        timeout_s=args.timeout,
        retries=args.retries,
        max_bytes=args.max_bytes,
        connections=args.connections,
        per_host_connections=args.per_host_connections,
        per_host_rate=args.per_host_rate,
        user_agent=user_agent,
        obey=tuple(name for name in OPT_OUTS if name not in ignored),
        allow_addresses=tuple(args.allow_address),
        shared_folder=shared_folder(),
    )


def store_config(args: argparse.Namespace) -> StoreConfig:
    return StoreConfig(args.resize, args.image_format, args.quality)


def source_settings(args: argparse.Namespace) -> SourceSettings:
    return SourceSettings(
        YfccSettings(args.yfcc_caption, args.yfcc_subset or "", tuple(args.yfcc_refuse_machine_tag)),
        DumpSettings(args.wikipedia_width),
        Cc12mSettings(args.cc12m_hashes or ""),
        WitSettings(tuple(args.wit_pixels)),
    )


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
