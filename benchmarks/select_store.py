"""Requests and bytes by which `select`'s second half reads spilled rows from an object store, beside one request for
each file and part, and each byte once.

    python -m benchmarks.select_store [--rows N] [--rows-per-file N] [--delay-ms MS]

The first half of `select` spills the rows of a list to the output; the second reads them by the hash of their URL, a
part for each file of the result. Each part's rows lie in all files that were spilled, and parts are written by any
worker. What is counted are all requests for these files, retries and questions for their size included. The list is
made up, in Conceptual 12M's form; the store is `benchmarks.object_store`, in a process of its own. It needs S3's
client: `make peers`.
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
from benchmarks.object_store import ObjectStore, Request, serving
from benchmarks.scale import write_list
from models.text_table import table
from pipeline.output.names import ROWS_FOLDER, WORK_FOLDER
from pipeline.select.stage import plan_partitions

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
    print_counts(ours.recv(), parts=len(plan_partitions(args.rows, args.rows_per_file)))
    print(f"{args.rows:,} rows, {args.delay_ms:g} ms a request: {time.monotonic() - started:.0f} s, the list included")
    return 0


def serve(pipe: Connection, delay_s: float) -> None:
    """Serves an empty store until a message comes, and answers with all requests."""
    store = ObjectStore(delay_s)
    with serving(store) as address:
        pipe.send(address)
        pipe.recv()
        pipe.send(store.answered_requests)


def print_counts(requests: list[Request], parts: int) -> None:
    of_spilled = [request for request in requests if request.key.startswith(SPILLED) and SPILL_SUFFIX in request.key]
    written = [request for request in of_spilled if request.method == "PUT"]
    reads = [
        request for request in of_spilled if not request.key.endswith(".tmp") and request.method in ("GET", "HEAD")
    ]
    files = {request.key for request in reads}
    first = requests.index(reads[0])
    others = [request for request in requests[first:] if request not in of_spilled]
    rows = [
        _compared("requests for spilled rows", len(reads), len(files) * parts),
        _compared(
            "bytes of their answers",
            sum(request.sent for request in reads),
            sum(request.received for request in written),
        ),
        ["all other requests from then on", f"{len(others):,}", "", ""],
    ]
    print(table(["second half of select", "number", "once each", "ratio"], rows))
    print(f"{len(files)} files were spilled, {parts} written")


def _compared(name: str, number: int, least: int) -> list[str]:
    return [name, f"{number:,}", f"{least:,}", f"{number / least:.2f}"]


if __name__ == "__main__":
    raise SystemExit(main())
