"""What jobs that make a dataset share: they make its output ready, and end by writing shards, index and rejects, then
ledger and manifest."""

from __future__ import annotations

import argparse
from functools import partial

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.flags.files import shard_size
from beam_jobs.part import prepare
from pipeline.dataset.balance import Balance
from pipeline.dataset.existing import ExistingDataset, check_addition
from pipeline.dataset.finish import ManifestFields, finish_dataset, identity
from pipeline.dataset.near_duplicates import NearDuplicateConfig
from pipeline.dataset.stage import WriteDataset
from pipeline.output.finish import Finish
from pipeline.output.names import MANIFEST_FILE


def prepare_encode(
    args: argparse.Namespace,
    options: PipelineOptions,
    parts: ManifestFields,
    old: list[ExistingDataset],
    inputs: set[str],
) -> bool:
    """Leaves the output ready for `encode`, as `part.prepare`. `old` is the dataset of --add-to, if any, whose settings
    the new one keeps; `inputs` are the folders of what is added to it. Returns whether the job is to be run. Raises
    UserError for pairs that do not go into one dataset, and as `part.prepare`."""
    check_addition(old, parts)
    if old:
        parts.settings["added_to"] = old[0].manifest.settings
    folders = inputs | {dataset.directory for dataset in old}
    return prepare(args, options, "encode", identity(parts), MANIFEST_FILE, folders)


def write_dataset(
    args: argparse.Namespace,
    parts: ManifestFields,
    records: tuple[beam.PCollection, ...],
    rejected: tuple[beam.PCollection, ...],
    counts: beam.PCollection,
    near: NearDuplicateConfig = NearDuplicateConfig(),  # noqa: B008 (immutable)
    balance: Balance | None = None,
) -> None:
    """Writes these records and rejects to --output. `counts` are the ledger's of what earlier steps read."""
    written = (records, rejected) | "Dataset" >> WriteDataset(
        args.output, parts.draws, shard_size(args), args.rows_per_file, near, balance
    )
    all_counts = (counts, written.counts) | "Counts" >> beam.Flatten()
    _ = counts.pipeline | "Finish" >> Finish(
        partial(finish_dataset, args.output, parts), written.shards, written.rejects, all_counts, *written.balance
    )
