"""`pairmill encode --codes`: codes that were computed elsewhere, with their captions, to a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.dataset_output import prepare_encode, write_dataset
from beam_jobs.flags.codes import is_given
from beam_jobs.flags.encode import text_tokenizer_json
from beam_jobs.flags.engine import check_places
from beam_jobs.flags.files import shard_settings
from beam_jobs.part import plan, run_whole_or_part
from models.tokenizers.info import ImageTokenizerInfo
from models.tokenizers.text import TextTokenizer
from pipeline.codes.code_input import GivenForm, read_input
from pipeline.codes.stage import CodesConfig, EncodeCodes
from pipeline.dataset.existing import JoinExisting, open_existing
from pipeline.dataset.finish import ManifestFields
from pipeline.dataset.stage import DropSameKeys
from pipeline.output.counts import Step
from pipeline.records import REJECTED_TAG
from pipeline.version import decisive_versions


def encode_codes(
    args: argparse.Namespace, options: PipelineOptions, arguments: list[str] | None, main: Callable[..., int]
) -> int:
    """Runs the job; `main` is that of the command, for the whole job after its parts. Returns the exit status. Raises
    UserError."""
    check_places(options, args.output, list(filter(None, [args.codes, args.captions, args.add_to])))
    spec = args.image_tokenizer if is_given("--image-tokenizer", arguments) else None
    found = read_input(args.codes, args.captions, GivenForm(args.draws, spec, args.code_shape, args.code_vocabulary))
    rows = sum(each.rows for each in found.ranges)
    parts = _manifest_fields(args, found.tokenizer, rows)
    old = open_existing([args.add_to]) if args.add_to else []
    if not prepare_encode(args, options, parts, old, found.folders):
        return 0
    print(
        f"encode: {rows:,} rows; codes of {found.tokenizer.spec}, a vocabulary of {found.form.vocabulary:,}, "
        f"{found.form.shape} an image",
        flush=True,
    )
    ranges = plan(args, Step.ENCODE, found.ranges)
    config = CodesConfig(
        found.form, found.tokenizer.code_type, text_tokenizer_json(args), parts.text_tokenizer.fingerprint
    )

    def build(pipeline: beam.Pipeline) -> None:
        encoded = (
            pipeline
            | "Ranges" >> beam.Create(ranges)
            | "Spread" >> beam.Reshuffle()
            | "Encode" >> beam.ParDo(EncodeCodes(args.output, config, old)).with_outputs(REJECTED_TAG, main="records")
        )
        if args.part:
            return
        unique = encoded.records | "Same key" >> DropSameKeys(args.output)
        joined = (unique.records, encoded[REJECTED_TAG], unique[REJECTED_TAG]) | "Join" >> JoinExisting(
            old, None, args.output
        )
        write_dataset(args, parts, joined.records, joined.rejects, joined.counts)

    return run_whole_or_part(args, options, "encode", build, main, arguments)


def _manifest_fields(args: argparse.Namespace, tokenizer: ImageTokenizerInfo, rows: int) -> ManifestFields:
    """What the manifest records of the codes. Raises UserError for a text tokenizer that is missing or malformed."""
    text = TextTokenizer.load() if args.text_tokenizer == "bundled" else TextTokenizer.load(args.text_tokenizer)
    settings: dict[str, Any] = {
        "codes": args.codes,
        "captions": args.captions or "",
        "rows": rows,
        "encode": {"draws": args.draws, "shards": shard_settings(args)},
    }
    return ManifestFields(
        image_tokenizer=tokenizer,
        text_tokenizer=text.info,
        text_tokenizer_json=text.text,
        draws=args.draws,
        settings=settings,
        versions=decisive_versions(),
        sources=(),
    )
