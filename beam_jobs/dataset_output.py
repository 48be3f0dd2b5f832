"""The last steps of a job that makes a dataset: shards, index and rejects, then its ledger and manifest."""

from __future__ import annotations

import argparse
from functools import partial

import apache_beam as beam

from beam_jobs.flags.files import shard_size
from pipeline.dataset.balance import Balance
from pipeline.dataset.finish import ManifestFields, finish_dataset
from pipeline.dataset.near_duplicates import NearDuplicateConfig
from pipeline.dataset.stage import WriteDataset
from pipeline.output.finish import Finish


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
