"""Memory and time of a job's shuffles, by the number of pairs: a list to units, pairs to units, records to shards,
near-duplicates; and of whole jobs, build and repack.

    python -m benchmarks.scale [--pairs N ...] [--steps STEP ...] [--workers N] [--folder DIR]

`list` is what `build` does before it fetches: select from a list of Conceptual 12M's form, then its units, without a
download. Pairs and records are made up, as long as those of Conceptual 12M with one crop of 1,024 codes; nothing is
downloaded or encoded. Images are made up as smooth noise with the spectrum of photographs, one in ten a copy of
another. `build` and `repack` are the commands themselves (whole_jobs.py): images of 64 px from web servers on the
loopback, codes of a tiny image tokenizer. Memory is the highest sum over all processes of the job (PSS); the slope is
what a pair adds to it, from the first number of pairs to the last.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np

from beam_jobs.flags.common import beam_options
from benchmarks import whole_jobs
from benchmarks.cost import Cost, cost_of
from models.text_table import table
from pipeline.dataset.image_signature import GREY_SIDE, SIGNATURE_BYTES
from pipeline.dataset.near_duplicates import DropNearDuplicates, NearDuplicateConfig
from pipeline.dataset.shard_boundaries import ShardSize
from pipeline.dataset.stage import WriteDataset
from pipeline.fetch.units import GroupIntoUnits, Unit
from pipeline.filters import SelectConfig
from pipeline.output import schemas
from pipeline.output.parquet import ROWS_PER_FILE, WriteParquet
from pipeline.records import REJECTED_TAG, EncodedPair, Pair, Reason, Rejected, Stage, reject, split_of
from pipeline.select.stage import ReadAndFilter, SelectedRows
from pipeline.sources import cc12m
from pipeline.sources.file_ranges import file_ranges
from pipeline.sources.registry import DEFAULTS

ROWS_PER_ELEMENT = 1000
CAPTION = "a long caption of a photograph, as an alternative text of the web has it: two dogs run along the beach"
CODES = 1024


def numbers(first: int, total: int) -> range:
    return range(first, min(first + ROWS_PER_ELEMENT, total))


def make_pairs(first: int, total: int) -> Iterator[Pair]:
    for row in numbers(first, total):
        key = hashlib.sha256(b"%d" % row).hexdigest()[:32]
        yield Pair(
            key=key,
            source="cc12m",
            file="cc12m.tsv",
            row=row,
            url=f"https://www.example.org/images/{key}/photograph-{row}.jpg",
            fallback_urls=(),
            caption=CAPTION,
            raw_caption=CAPTION,
            width=None,
            height=None,
            licence="",
            page_url="",
            split=split_of(key, 0.01),
        )


def make_records(first: int, total: int) -> Iterator[EncodedPair]:
    codes = np.random.default_rng(first).integers(0, 8192, CODES + ROWS_PER_ELEMENT).astype("<u2").tobytes()
    for number, pair in enumerate(make_pairs(first, total)):
        yield EncodedPair(
            key=pair.key,
            split=pair.split,
            source=pair.source,
            file=pair.file,
            row=pair.row,
            url=pair.url,
            caption=pair.caption,
            width=640,
            height=480,
            licence="",
            page_url="",
            sha256=pair.key * 2,
            phash=pair.key[:16],
            codes=codes[2 * number : 2 * (number + CODES)],
            tokens=bytes(2 * 24),
            boxes=(0, 0, 0, 640, 480, 256),
        )


def make_signed(first: int, total: int) -> Iterator[EncodedPair]:
    """Records without codes but with signatures; the last of ten is the one before, a little darker."""
    records = list(make_records(first, total))
    noise = np.fft.rfft2(np.random.default_rng(first).normal(size=(len(records), GREY_SIDE, GREY_SIDE)))
    frequency = np.hypot(np.fft.fftfreq(GREY_SIDE)[:, None], np.fft.rfftfreq(GREY_SIDE)[None])
    fields = np.fft.irfft2(noise / np.maximum(frequency, 1 / GREY_SIDE), s=(GREY_SIDE, GREY_SIDE))
    grey = 128 + 40 * fields / fields.std((1, 2), keepdims=True)
    grey[9::10] = 0.95 * grey[8::10]
    for record, image in zip(records, np.clip(grey, 0, 255).astype(np.uint8), strict=True):
        signature = image.tobytes() + bytes([128]) * (SIGNATURE_BYTES - GREY_SIDE**2)
        yield record._replace(codes=b"", tokens=b"", signature=signature)


def reject_all(unit: Unit) -> list[Rejected]:
    return [reject(pair, Stage.FETCH, Reason.HTTP_404) for pair in unit.pairs]


def write_list(path: Path, total: int) -> None:
    """A list as Conceptual 12M is published: URL, tab, caption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(part, "w") as file:
        for first in range(0, total, ROWS_PER_ELEMENT):
            file.writelines(f"{pair.url}\t{pair.caption}\n" for pair in make_pairs(first, total))
    part.rename(path)


def list_to_units(pipeline: beam.Pipeline, total: int, output: str) -> None:
    """What build does before it fetches: every row of a list goes through select and into a unit."""
    path = Path(output).with_suffix(".tsv")
    if not path.exists():
        write_list(path, total)
    selected = (
        pipeline
        | ReadAndFilter(file_ranges(cc12m.NAME, str(path)), SelectConfig(), DEFAULTS, output)
        | SelectedRows(output, ROWS_PER_FILE)
    )
    _ = (
        selected.pairs
        | GroupIntoUnits(1000, output)
        | "Pairs" >> beam.Map(lambda unit: len(unit.pairs)).with_output_types(int)
        | beam.CombineGlobally(sum)
        | "Check" >> beam.Map(check_number, total)
    )


def check_number(found: int, total: int) -> None:
    """Raises AssertionError unless every row is in a unit."""
    assert found == total, f"{found} pairs of {total} rows"


def units(pipeline: beam.Pipeline, total: int, output: str) -> None:
    """What fetch does but for the downloads: every pair fails."""
    _ = (
        first_rows(pipeline, total)
        | "Make" >> beam.FlatMap(make_pairs, total).with_output_types(Pair)
        | GroupIntoUnits(1000, output)
        | "Fail" >> beam.FlatMap(reject_all).with_output_types(Rejected)
        | WriteParquet(output, "rejects", schemas.REJECTS)
    )


def shards(pipeline: beam.Pipeline, total: int, output: str) -> None:
    """What is left of encode when the codes are there."""
    records = first_rows(pipeline, total) | "Make" >> beam.FlatMap(make_records, total).with_output_types(EncodedPair)
    no_rejects = pipeline | "No rejects" >> beam.Create([]).with_output_types(Rejected)
    _ = ((records,), (no_rejects,)) | WriteDataset(output, 1, ShardSize(), ROWS_PER_FILE)


def near_duplicates(pipeline: beam.Pipeline, total: int, output: str) -> None:
    """What `--near-duplicates` adds to encode, but for the signatures."""
    records = first_rows(pipeline, total) | "Make" >> beam.FlatMap(make_signed, total).with_output_types(EncodedPair)
    kept = records | DropNearDuplicates(NearDuplicateConfig(near_duplicates=True), output)
    _ = kept[REJECTED_TAG] | "Write rejects" >> WriteParquet(output, "rejects", schemas.REJECTS)


STEPS = {"list": list_to_units, "units": units, "shards": shards, "near-duplicates": near_duplicates}
CONTINUED = ("list",)
"""Steps that continue what an interrupted run has left in their folder."""
WHOLE_JOBS = {"build": whole_jobs.build, "repack": whole_jobs.repack}


def first_rows(pipeline: beam.Pipeline, total: int) -> beam.PCollection:
    """The numbers of rows from which workers make ROWS_PER_ELEMENT each."""
    return (
        pipeline
        | "Numbers" >> beam.Create(list(range(0, total, ROWS_PER_ELEMENT))).with_output_types(int)
        | "Spread" >> beam.Reshuffle()
    )


def run_step(step: str, total: int, output: str, workers: int) -> None:
    with beam.Pipeline(options=beam_options([f"--direct_num_workers={workers}"])) as pipeline:
        STEPS[step](pipeline, total, output)


@contextlib.contextmanager
def work_folder(given: str | None) -> Iterator[Path]:
    """The given folder, which stays, or a temporary one."""
    if given:
        Path(given).mkdir(parents=True, exist_ok=True)
        yield Path(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # a web server's worker may be another user
        yield Path(folder)


def cost_of_step(step: str, folder: Path, total: int, workers: int) -> Cost:
    if step in WHOLE_JOBS:
        return WHOLE_JOBS[step](folder / str(total), total, workers)
    output = folder / f"{step}-{total}"
    command = [sys.executable, "-m", "benchmarks.scale", "--one", step, str(output)]
    kept = output.with_suffix(".part.json") if step in CONTINUED else None
    return cost_of([*command, "--pairs", str(total), "--workers", str(workers)], kept=kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 300_000, 1_000_000], metavar="N")
    parser.add_argument("--steps", nargs="+", choices=[*STEPS, *WHOLE_JOBS], default=list(STEPS), metavar="STEP")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="keep the files of `list` and of whole jobs there; what was interrupted continues",
    )
    parser.add_argument("--one", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.one:
        run_step(args.one[0], args.pairs[0], args.one[1], args.workers)
        return
    for step in args.steps:
        rows = []
        for pairs in args.pairs:
            with work_folder(args.folder) as folder:
                cost = cost_of_step(step, folder, pairs, args.workers)
            rows.append((pairs, cost))
            print(f"{step}: {pairs:,} pairs, {cost.seconds:.0f} s, {cost.memory_gb:.2f} GB", flush=True)
        print(
            table(
                [step, "s", "processor us a pair", "memory, GB"],
                [
                    (f"{n:,}", round(cost.seconds), round(1e6 * cost.processor_s / n), round(cost.memory_gb, 2))
                    for n, cost in rows
                ],
            )
        )
        (first, cheap), (last, expensive) = rows[0], rows[-1]
        if last > first:
            power = math.log(expensive.processor_s / cheap.processor_s, last / first)
            slope = (expensive.memory_gb - cheap.memory_gb) * 1e6 / (last - first)
            print(f"{step}: {slope:.2f} kB a pair more; processor time grows as N^{power:.2f}\n", flush=True)


if __name__ == "__main__":
    main()
