"""Requests and bytes of `select`'s second half on an object store, beside the least that any program could ask for.

    python -m benchmarks.select_store [--rows N] [--rows-per-file N] [--delay-ms MS]

The first half of `select` spills the rows of a list to the output; the second reads them by the hash of their URL, a
part for each file of the result. Each part's rows lie in all files that were spilled, so that at least one request for
each file and part is needed, and each byte once. The list is made up, in Conceptual 12M's form; the store is
`benchmarks.object_store`, in a process of its own, which counts. It needs S3's client: `make peers`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from beam_jobs import select_pairs
from benchmarks.finish import OUTPUT, connect
from benchmarks.object_store import Answered, ObjectStore, serving
from benchmarks.scale import write_list
from models.text_table import table
from pipeline.output.names import ROWS_FOLDER, WORK_FOLDER

SPILLED = f"out/{WORK_FOLDER}/{ROWS_FOLDER}/"
SPILL_SUFFIX = ".arrow"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rows-per-file", type=int, default=20_000)
    parser.add_argument("--delay-ms", type=float, default=25.0, help="added to each request")
    args = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, args.delay_ms / 1000), daemon=True
    )
    server.start()
    connect(ours.recv())
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.tsv"
        write_list(path, args.rows)
        options = [f"--rows-per-file={args.rows_per_file}", f"--output={OUTPUT}", "--direct_num_workers=1"]
        if status := select_pairs.main([f"--source=cc12m={path}", *options]):
            return status
    ours.send("")
    print_counts(ours.recv(), parts=-(-args.rows // args.rows_per_file))
    print(f"{args.rows:,} rows, {args.delay_ms:g} ms a request: {time.monotonic() - started:.0f} s, the list included")
    return 0


def serve(pipe: Connection, delay_s: float) -> None:
    """Serves an empty store until a message comes, and answers with all requests."""
    store = ObjectStore(delay_s)
    with serving(store) as address:
        pipe.send(address)
        pipe.recv()
        pipe.send(store.answered)


def print_counts(answered: list[Answered], parts: int) -> None:
    spilled = [number for number, each in enumerate(answered) if each.method in ("PUT", "POST") and _is_spill(each)]
    files = {answered[number].key for number in spilled if answered[number].key.endswith(SPILL_SUFFIX)}
    second_half = answered[spilled[-1] + 1 :]
    reads = [each for each in second_half if each.method == "GET" and _is_spill(each)]
    of_spilled = [each for each in second_half if each.method in ("GET", "HEAD") and _is_spill(each)]
    rows = [
        _compared("requests for spilled rows", len(of_spilled), len(files) * parts),
        _compared(
            "their bytes", sum(each.sent for each in reads), sum(answered[number].received for number in spilled)
        ),
        ["all other requests", f"{len(second_half) - len(of_spilled):,}", "", ""],
    ]
    print(table(["second half of select", "number", "least possible", "ratio"], rows))
    print(f"{len(files)} files were spilled, {parts} written")


def _is_spill(answered: Answered) -> bool:
    """Also of a file's temporary name."""
    return answered.key.startswith(SPILLED) and SPILL_SUFFIX in answered.key


def _compared(name: str, number: int, least: int) -> list[str]:
    return [name, f"{number:,}", f"{least:,}", f"{number / least:.2f}"]


if __name__ == "__main__":
    raise SystemExit(main())
