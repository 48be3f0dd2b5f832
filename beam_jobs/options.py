"""What the jobs share: their options, the state of an output, the runner."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import importlib.metadata
import ipaddress
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, TestOptions

from beam_jobs.interrupt import one_line_on_interrupt
from models.errors import UserError
from models.image_tokenizers import DEVICES, PRECISIONS, Computing, load_image_tokenizer
from models.text_tokenizer import BUNDLED as BUNDLED_TEXT_TOKENIZER
from models.text_tokenizer import TextTokenizer
from pipeline import cli, storage
from pipeline.existing import Existing
from pipeline.fetch import FetchConfig
from pipeline.filters import SelectConfig
from pipeline.finish import read_settings
from pipeline.image_shards import StoreConfig
from pipeline.language import DETECTORS
from pipeline.ledger import read_ledger, to_json
from pipeline.manners import OPT_OUTS, shared_folder
from pipeline.near_duplicates import NearConfig
from pipeline.parquet import ROWS_PER_FILE
from pipeline.pictures import PictureConfig
from pipeline.progress import ShowProgress
from pipeline.provenance import provenance
from pipeline.shards import PAIRS_PER_SHARD, DatasetParts
from pipeline.sources import SOURCES, Piece, SourceSettings, pieces, wikipedia_dump, yfcc100m
from pipeline.sources.cc12m import Cc12mSettings
from pipeline.sources.wikipedia_dump import DumpSettings
from pipeline.sources.wit import WitSettings
from pipeline.sources.yfcc100m import YfccSettings
from pipeline.stats import ledger_tables
from pipeline.tokenize_stage import CROP_RECIPE, EncodeConfig
from pipeline.units import WORK_FOLDER
from pipeline.version import VERSION

# The name is spelled out: "DirectRunner" would first try to download and start a Go program.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
OUR_FILES = re.compile(
    r"(manifest|ledger|settings|attempts|text_tokenizer|croissant)\.json|README\.md"
    r"|(train|val|index|rejects|pairs|_work)/.*|\d{5,}(\.tar|\.parquet|_stats\.json)|(.*/)?\.[^/]*\.tmp")


# --- arguments -------------------------------------------------------------------------------------------------------


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


def job_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"pairmill {name}", description=description, formatter_class=_HelpFormatter,
        allow_abbrev=False, epilog="Options not listed go to Apache Beam: --runner, --temp_location, ...")
    parser.add_argument("--output", required=True, metavar="DIR", help="a folder, or gs://..., s3://...")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in DIR")
    return parser


def add_select_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("select")
    group.add_argument("--source", action="append", required=True, metavar="NAME=PATTERN",
                       help=f"repeatable; NAME is one of {', '.join(SOURCES)}; PATTERN a path, a glob or a URL")
    group.add_argument("--language-detector", default=SelectConfig.language_detector, choices=sorted(DETECTORS))
    group.add_argument("--min-words", type=int, default=SelectConfig.min_words, help="of a caption")
    group.add_argument("--min-characters", type=int, default=SelectConfig.min_characters, help="of a caption")
    group.add_argument("--licence", action="append", default=[], metavar="TEXT",
                       help="repeatable: keep only rows that state it, for example 'Attribution License'")
    group.add_argument("--sharma", action="store_true",
                       help="also drop captions of repeated words and of capitals alone, as Conceptual Captions did")
    group.add_argument("--cc12m-person", default=SelectConfig.cc12m_person, metavar="TEXT",
                       help="what stands for CC12M's mark of a name")
    group.add_argument("--cc12m-hashes", metavar="FILE",
                       help="CC12M's file of URL, SHA256 and MD5: a picture that is another now is a hash_mismatch")
    group.add_argument("--wit-pixels", action="append", default=[], metavar="PATTERN",
                       help="repeatable: Kaggle's files of pixels (URL, base64 bytes, metadata URL): what they hold of "
                            "wit's pictures is not fetched")
    group.add_argument("--keep-cc3m-spacing", action="store_true", help="leave CC3M's tokens apart, as published")
    group.add_argument("--wikipedia-width", type=int, default=DumpSettings.width, metavar="W",
                       choices=(0, *wikipedia_dump.WIDTHS),
                       help="px of a dump's thumbnails, one of the widths that are served; 0: originals")
    group.add_argument("--yfcc-caption", default=yfcc100m.CAPTIONS[0], choices=yfcc100m.CAPTIONS,
                       help="what of a YFCC100M row is its caption")
    group.add_argument("--yfcc-subset", metavar="FILE", help="keep only the photos that a list names, such as OpenAI's "
                       "yfcc100m_subset_data.tsv.bz2")
    group.add_argument("--yfcc-refuse-machine-tag", action="append", default=[], metavar="TEXT",
                       help="repeatable: rows with a machine tag that begins so go, for example uploaded:by=instagram")
    group.add_argument("--val-share", type=float, default=SelectConfig.val_share, help="of the pairs, by hash of key")


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures")
    group.add_argument("--min-ratio", type=float, default=PictureConfig.min_ratio, help="width / height")
    group.add_argument("--max-ratio", type=float, default=PictureConfig.max_ratio, help="width / height")
    group.add_argument("--min-side", type=int, default=PictureConfig.min_side, help="px of the shorter side")
    group.add_argument("--max-pixels", type=int, default=PictureConfig.max_pixels)


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fetch")
    group.add_argument("--timeout", type=float, default=FetchConfig.timeout_s, metavar="S",
                       help="seconds for one attempt at one picture")
    group.add_argument("--retries", type=int, default=FetchConfig.retries, metavar="N",
                       help="after a failure that may pass")
    group.add_argument("--max-bytes", type=int, default=FetchConfig.max_bytes, help="of one picture")
    group.add_argument("--connections", type=int, default=FetchConfig.connections, help="of one worker, in all")
    group.add_argument("--per-host-connections", type=int, default=FetchConfig.per_host_connections, metavar="N",
                       help="of one machine")
    group.add_argument("--per-host-rate", type=float, default=FetchConfig.per_host_rate, metavar="R",
                       help="requests/s of one machine")
    group.add_argument("--user-agent", default=FetchConfig.user_agent, metavar="TEXT",
                       help="of your own")
    group.add_argument("--contact", metavar="TEXT",
                       help="a URL or an e-mail address, for the User-Agent: hosts block what hides")
    group.add_argument("--ignore-opt-out", action="append", nargs="?", const="all", default=[],
                       choices=("all", *OPT_OUTS), help="fetch in spite of this header; without a name, of any")
    group.add_argument("--allow-address", action="append", default=[], metavar="CIDR",
                       help="a network that is refused otherwise, such as 127.0.0.0/8")
    group.add_argument("--pairs-per-unit", type=int, default=1000, metavar="N",
                       help="pairs fetched, and remembered after a kill, together")


def add_encode_options(parser: argparse.ArgumentParser, required: bool) -> None:
    group = parser.add_argument_group("encode")
    group.add_argument("--image-tokenizer", required=required, default=None if required else "bundled", metavar="SPEC",
                       help="bundled, dvae:FILE, openai-dvae:FILE, taming:CONFIG,FILE, diffusers:FOLDER, "
                            "dalle-pytorch:FILE")
    group.add_argument("--precision", choices=PRECISIONS, default=Computing.precision,
                       help="of the image tokenizer; bfloat16 is faster and changes a few codes in a hundred")
    group.add_argument("--device", choices=DEVICES, default=Computing.device, help="that computes the codes")
    group.add_argument("--compile", action="store_true",
                       help="the image tokenizer, by torch.compile: half a minute at the start of every worker, then "
                            "up to a fifth faster; needs a C++ compiler")
    group.add_argument("--batch-size", type=int, default=EncodeConfig.batch_size, metavar="N",
                       help="pictures that an accelerator computes at once (a processor takes one after the other, "
                            "which is faster there); no influence on the codes")
    group.add_argument("--text-tokenizer", required=required, metavar="FILE",
                       default=None if required else str(BUNDLED_TEXT_TOKENIZER), help="a tokenizer.json, or bundled")
    group.add_argument("--draws", type=int, default=EncodeConfig.draws, metavar="K", help="crops stored for a picture")
    group.add_argument("--centre-first", action="store_true", help="the first draw is the centre square")
    group.add_argument("--near-duplicates", action="store_true",
                       help="of pictures that look alike (resized, recompressed, cropped, re-toned) keep the first")
    group.add_argument("--exclude", default="", metavar="FILE",
                       help="keep out what looks like a picture of this list, which `pairmill hash` wrote")
    group.add_argument("--pairs-per-shard", type=int, default=PAIRS_PER_SHARD, metavar="N")


def add_rows_per_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows-per-file", type=int, default=ROWS_PER_FILE, metavar="N", help="of the Parquet files")


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> tuple[argparse.Namespace, PipelineOptions]:
    """Ours, and Beam's. Raises UserError for a number out of range and for an option that neither knows."""
    args, rest = parser.parse_known_args(arguments)
    for name, least in (("min_words", 0), ("min_characters", 0), ("min_side", 1), ("max_pixels", 1), ("retries", 0),
                        ("max_bytes", 1), ("connections", 1), ("per_host_connections", 1), ("pairs_per_unit", 1),
                        ("draws", 1), ("batch_size", 1), ("attempts", 1), ("pairs_per_shard", 1), ("rows_per_file", 1),
                        ("resize", 0)):
        if hasattr(args, name) and getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give {least} or more")
    for name in ("timeout", "per_host_rate", "min_ratio", "max_ratio"):
        if hasattr(args, name) and not getattr(args, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give a number over 0")
    if hasattr(args, "val_share") and not 0 <= args.val_share < 1:
        raise UserError(f"--val-share {args.val_share}: give a share from 0 to below 1")
    return args, beam_options(rest)


def beam_options(rest: list[str]) -> PipelineOptions:
    """Beam takes unknown options without a word; a mistyped one of ours must not pass as one of its."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):  # two of them may define the same option
            options._add_argparse_args(known)
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        try:
            _, unknown = known.parse_known_args(rest)
        except SystemExit:
            unknown = rest
    if unknown:
        raise UserError(f"{' '.join(unknown)}: not an option of pairmill, nor of Beam as given; see --help")
    options = PipelineOptions(rest)
    given = options.get_all_options(drop_default=True)
    if "runner" not in given:
        workers = given.get("direct_num_workers") or os.cpu_count()
        extra = [f"--runner={LOCAL_RUNNER}", f"--direct_num_workers={workers}"]
        if "direct_running_mode" not in given and workers > 1:
            extra.append("--direct_running_mode=multi_processing")
        options = PipelineOptions([*rest, *extra])
    return options


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


# --- the state of an output ------------------------------------------------------------------------------------------


LOCK = f"{WORK_FOLDER}/lock"
_locks: dict[str, IO[bytes]] = {}  # output -> the file by whose lock this process holds it


def prepare_output(output: str, job: str, settings: dict[str, Any], finished_by: str, overwrite: bool) -> None:
    """Leaves the output ready for this job: new, or unfinished by the same settings; a local one is this process's own
    until it ends. Raises UserError for one that is finished, made by other settings, in work, or not ours at all.
    """
    mine = {"job": job, "settings": json.loads(json.dumps(settings))}
    marker = storage.join(output, WORK_FOLDER, "settings.json")
    files = [name for name in storage.list_files(output) if name != LOCK]
    foreign = [name for name in files if not OUR_FILES.fullmatch(name)]
    if foreign:
        raise UserError(f"--output {output}: holds {foreign[0]}, which pairmill did not write; choose an empty folder")
    if not overwrite and not storage.exists(marker):
        if finished_by in files:
            raise UserError(f"--output {output}: holds a finished {job} already; --overwrite replaces it")
        if files:
            raise UserError(f"--output {output}: is not empty; choose another folder, or --overwrite")
    _lock_output(output)
    if overwrite:
        storage.delete(output, files)
    elif storage.exists(marker):
        if (made := json.loads(storage.read(marker))) != mine:
            changes = ", ".join(_differences(made, mine))
            raise UserError(f"--output {output}: was begun with other settings ({changes}); "
                            "give the same to resume, or --overwrite")
        print(f"{job}: resuming {output}", flush=True)
        # One that is finished, too, was interrupted while it cleaned up.
        storage.delete(output, [name for name in files
                                if name.endswith(storage.TEMPORARY_SUFFIX) or name == finished_by])
    storage.write_whole(marker, to_json(mine))


def _lock_output(output: str) -> None:
    """Raises UserError if another process writes there. The kernel drops the lock with the process, however it ends."""
    if not storage.is_local(output) or (name := os.path.realpath(output)) in _locks:
        return
    storage.make_folder(storage.join(output, WORK_FOLDER))
    file = open(storage.join(output, *LOCK.split("/")), "ab")  # noqa: SIM115 (kept open until the job's end)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(f"--output {output}: another pairmill is writing there; wait for its end, or choose another "
                        "folder") from None
    _locks[name] = file


def is_finished(output: str, finished_by: str) -> bool:
    return storage.exists(storage.join(output, finished_by))


def reopen_output(output: str, job: str, settings: dict[str, Any], finished_by: str) -> None:
    """Makes a finished output an unfinished one of the same settings, so that what can be mended in it is done."""
    made = read_settings(output)
    if made != json.loads(json.dumps(settings)):
        changes = ", ".join(_differences(made, settings))
        raise UserError(f"--output {output}: was made with other settings ({changes}); --overwrite replaces it")
    marker = storage.join(output, WORK_FOLDER, "settings.json")
    storage.write_whole(marker, to_json({"job": job, "settings": settings}))
    storage.delete(output, [finished_by])


def _differences(made: dict, mine: dict, path: str = "") -> Iterator[str]:
    for name in sorted({*made, *mine}):
        one, other = made.get(name), mine.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{path}{name}.")
        elif one != other:
            yield f"{path}{name}: {one} -> {other}"


def finish_output(output: str) -> None:
    """Drops the marks of unfinished work, last of all the one that says so; the last act of a job."""
    marker = f"{WORK_FOLDER}/settings.json"
    work = [name for name in storage.list_files(output) if name.startswith(WORK_FOLDER + "/")]
    storage.delete(output, [name for name in work if name not in (marker, LOCK)])
    storage.delete(output, [name for name in (LOCK, marker) if name in work])
    if lock := _locks.pop(os.path.realpath(output), None):
        lock.close()


# --- running ---------------------------------------------------------------------------------------------------------


def run(options: PipelineOptions, output: str, job: str, build: Callable[[beam.Pipeline], None]) -> int:
    """Builds the pipeline, runs it to its end with progress, and prints the account of rows; the exit status.

    Raises UserError for what the user can mend.
    """
    for name in ("apache_beam", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)  # Beam's warnings speak of its insides
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    try:
        with ShowProgress(output, job), one_line_on_interrupt(job):
            pipeline.run().wait_until_finish()
    except Exception as error:
        # A worker's exception arrives as text inside the runner's.
        if said := re.search(r"models\.errors\.UserError: (.+?)(?: \[while running|\\n|\n|$)", str(error)):
            raise UserError(said[1]) from error
        raise
    if options.view_as(TestOptions).dry_run:
        print(f"{job}: the graph was built and checked; nothing ran")
    else:
        finish_output(output)
        print(ledger_tables(read_ledger(output)))
    return 0


def command(main: Callable[[], int]) -> int:
    """Runs a job as `python -m beam_jobs.NAME`: a user's error is one line and status 2."""
    return cli.report_errors(main)
