"""The main job on the sample, the whole way: `make demo`.

Starts the sample's web server, then runs the same commands as a user would, one after the other, and shows each:
lists to shards, their statistics, a page to look at, a small transformer, pictures from text.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sample import serve

PORT = 8093
SOURCES = (
    ("cc3m", "cc3m.tsv"),
    ("cc12m", "cc12m.tsv"),
    ("yfcc100m", "yfcc100m_dataset-0"),
    ("yfcc100m", "yfcc100m_dataset-1.bz2"),
    ("wit", "wit_v1.sample.tsv.gz"),
)
LOOPBACK = ["--allow-address", "127.0.0.0/8"]
PROMPTS = ("a red flower in a green garden", "the flag of a country with stripes", "a boat on the blue sea")


def run(*arguments: str | os.PathLike) -> None:
    """One pairmill command, shown as it would be typed. Ends the demo if it fails."""
    words = [os.fspath(argument) for argument in arguments]
    print(f"\n$ pairmill {shlex.join(words)}", flush=True)
    # The command beside this interpreter: the environment need not be activated.
    status = subprocess.run([os.path.join(os.path.dirname(sys.executable), "pairmill"), *words]).returncode
    if status:
        raise SystemExit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo"), metavar="DIR", help="(default %(default)s)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="of training (default %(default)s)")
    args = parser.parse_args()
    output, started = args.output, time.monotonic()
    dataset, model, drawn, page = (output / name for name in ("dataset", "model", "drawn", "dataset.html"))
    for folder in (model, drawn):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier demo; the dataset is replaced by --overwrite

    with serve.start(_free_port()) as server:
        print(f"The sample's lists and pictures are served at {server.url}", flush=True)
        sources = [f"--source={name}={server.url}/sources/{file}" for name, file in SOURCES]
        # Small units and quick hosts: the sample's server is on this machine, and one URL never answers.
        run(
            "build",
            *sources,
            "--output",
            dataset,
            "--overwrite",
            *LOOPBACK,
            "--timeout",
            "3",
            "--retries",
            "1",
            "--per-host-rate",
            "500",
            "--per-host-connections",
            "16",
            "--pairs-per-unit",
            "40",
            "--pairs-per-shard",
            "100",
            "--val-share",
            "0.1",
            "--draws",
            "2",
        )
        run("stats", dataset)
        run("verify", dataset)
        run("show", dataset, "--html", page, "--fetch-originals", *LOOPBACK)
    built = time.monotonic()
    run(
        "train",
        "--dataset",
        dataset,
        "--size",
        "3m",
        "--steps",
        str(args.steps),
        "--batch-size",
        "2",
        "--schedule",
        "cosine",
        "--validate-every",
        "40",
        "--output",
        model,
    )
    trained = time.monotonic()
    for number, prompt in enumerate(PROMPTS):
        run(
            "generate",
            "--checkpoint",
            model,
            "--prompt",
            prompt,
            "--count",
            "2",
            "--seed",
            str(number),
            "--output",
            drawn / f"{number}",
        )
    done = time.monotonic()
    print(
        f"\nDone in {done - started:.0f} s: dataset {built - started:.0f} s, training {trained - built:.0f} s, "
        f"drawing {done - trained:.0f} s."
    )
    for what, path in (("dataset", dataset), ("page to look at", page), ("model", model), ("pictures drawn", drawn)):
        print(f"  {what:<16} {path.resolve()}")
    return 0


def _free_port() -> int:
    """The sample's usual port, or any if that is taken: then the lists are rewritten to name it."""
    with socket.socket() as probe:
        return PORT if probe.connect_ex(("127.0.0.1", PORT)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
