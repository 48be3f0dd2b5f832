"""How fast rows are selected, how much memory that takes, and whether a row costs the same in a long list.

    python -m benchmarks.select [--rows N ...] [--workers N] [--naive-rows N] [--source-rows N]

0 of the last two leaves out the peer and the table by source: `--rows 3318333 --naive-rows 0 --source-rows 0` is one
job alone.

Lists are made by `made_lists.py` in the published formats. The table by source is of one core and one thread; those of
whole jobs count all processes: seconds on the clock and of processors, and the highest sum of their memory (PSS, which
counts shared pages once). The peer is the pipeline that one would write first: ReadFromText, langdetect, GroupByKey by
URL, WriteToText, on the same runner with the same workers.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cost import Cost, cost_of
from benchmarks.made_lists import Lists, write_list
from models.text_table import table
from pipeline.filters import SelectConfig, filter_candidate
from pipeline.records import Rejected
from pipeline.select.spill import write_spills
from pipeline.sources.file_ranges import file_ranges, read_range
from pipeline.sources.registry import SOURCES

NAIVE = textwrap.dedent("""
    import sys

    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0


    def by_url(line) -> tuple[str, str]:
        caption, url = line.split("\\t")
        return url, caption


    def wanted(row):
        try:
            return len(row[1].split()) >= 3 and detect(row[1]) == "en"
        except LangDetectException:
            return False


    with beam.Pipeline(options=PipelineOptions(sys.argv[3:])) as pipeline:
        (pipeline | beam.io.ReadFromText(sys.argv[1]) | beam.Map(by_url) | beam.Filter(wanted) | beam.GroupByKey()
         | beam.MapTuple(lambda url, captions: f"{url}\\t{list(captions)[0]}") | beam.io.WriteToText(sys.argv[2]))
""")


def by_source(folder: Path, rows: int) -> None:
    lists, found = Lists(), []
    paths = {
        "cc3m": write_list(folder / "cc3m.tsv", lists.cc3m, rows),
        "cc12m": write_list(folder / "cc12m.tsv", lists.cc12m, rows),
        "yfcc100m": write_list(folder / "yfcc100m_dataset-0", lists.yfcc100m, rows),
        "wit": write_wit(folder / "wit.tsv.gz", lists, rows),
    }
    for name, path in paths.items():
        costs = [1e6 * seconds / rows for seconds in steps(name, path, folder)]
        found.append((name, round(1e6 / sum(costs)), *(round(cost, 1) for cost in costs)))
    print(table(["one core", "rows/s", "reading, us", "judging, us", "to disk, us"], found))


def steps(name: str, path: Path, folder: Path) -> tuple[float, float, float]:
    """Processor seconds of reading a list, of judging its rows, and of writing them to disk for the second half."""
    config = SelectConfig()
    read_s, rows = timed(lambda: [row for piece in file_ranges(name, str(path)) for row in read_range(piece)])
    candidates = [row for row in rows if not isinstance(row, Rejected)]
    tidy = functools.partial(SOURCES[name].tidy_caption, settings=SOURCES[name].settings)
    filter_candidate(candidates[0], config, tidy)  # loads the language models
    judge_s, judged = timed(lambda: [filter_candidate(row, config, tidy) for row in candidates])
    write_s, _ = timed(lambda: list(write_spills(str(folder / "out"), name, judged)))
    return read_s, judge_s, write_s


def write_wit(path: Path, lists: Lists, rows: int) -> Path:
    from sample import formats

    with gzip.open(path, "wt", encoding="utf-8", newline="", compresslevel=1) as file:
        file.write("\t".join(formats.WIT_COLUMNS) + "\n")
        file.writelines(map(lists.wit, range(rows)))
    return path


def timed(function: Callable[[], list]) -> tuple[float, list]:
    begun = time.process_time()
    result = function()
    return time.process_time() - begun, result


# --- whole jobs ------------------------------------------------------------------------------------------------------


def whole_jobs(folder: Path, lengths: list[int], workers: int, naive_rows: int) -> None:
    lists, found = Lists(), []

    def add(name: str, rows: int, cost: Cost) -> None:
        found.append(
            (
                name,
                f"{rows:,}",
                round(cost.seconds, 1),
                round(cost.processor_s, 1),
                round(1e6 * cost.processor_s / rows, 1),
                round(rows / cost.seconds),
                round(cost.memory_gb, 2),
            )
        )

    options = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    for rows in filter(None, [*lengths, naive_rows]):
        path = write_list(folder / f"cc3m-{rows}.tsv", lists.cc3m, rows)
        add(
            "pairmill select, cc3m",
            rows,
            cost_of(
                [
                    sys.executable,
                    "-m",
                    "beam_jobs.select_pairs",
                    f"--source=cc3m={path}",
                    f"--output={folder / str(rows)}",
                    *options,
                ]
            ),
        )
        if rows == naive_rows:
            script = folder / "naive.py"
            script.write_text(NAIVE)
            add(
                "Beam and langdetect, plainly",
                rows,
                cost_of(
                    [sys.executable, str(script), str(path), str(folder / "naive"), "--runner=FnApiRunner", *options]
                ),
            )
        print(f"{rows:,} rows are done", file=sys.stderr, flush=True)
        shutil.rmtree(folder / str(rows))
        path.unlink()
    print(table([f"{workers} workers", "rows", "seconds", "processor s", "us a row", "rows/s", "memory, GB"], found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 3_318_333], metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--naive-rows", type=int, default=20_000, metavar="N")
    parser.add_argument("--source-rows", type=int, default=20_000, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.source_rows:
            by_source(Path(folder), args.source_rows)
        whole_jobs(Path(folder), args.rows, args.workers, args.naive_rows)


if __name__ == "__main__":
    main()
