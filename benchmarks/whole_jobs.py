"""Whole jobs for scale.py, as users start them: `pairmill build` of a list whose images are on the loopback, and
`pairmill repack` of the dataset.

All that a job needs lies in one folder, with a log of what it prints. After an interruption the job continues there:
the folder names its port.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.cost import Cost, cost_of, read_cost
from benchmarks.made_lists import Lists, write_list
from benchmarks.serving import free_port, nginx
from models.data.format import MANIFEST_FILE, SPLITS, read_manifest
from models.files import write_atomically, written_atomically
from models.image_files import jpeg
from models.tokenizers.dalle_pytorch_vae import DiscreteVAE, DiscreteVAEConfig

HOSTS = 16  # addresses 127.0.0.1, 127.0.0.2, ...
IMAGES = 16  # different ones; a query tells the URLs apart
IMAGE_SIDE = 64  # px, the smallest that build accepts by default
NO_LIMITS = ["--per-host-connections=64", "--per-host-rate=100000", "--allow-address=127.0.0.0/8", "--timeout=600"]


def build(folder: Path, total: int, workers: int) -> Cost:
    """Select, fetch, encode and write the shards of `total` rows."""
    with _prepared(folder, total):
        source = f"--source=cc12m={folder / 'list.tsv'}"
        cost = _cost_of(folder, "build", "dataset", workers, [source, *_tokenizer(folder), *NO_LIMITS])
    manifest = read_manifest(folder / "dataset")
    kept = sum(map(manifest.pairs, SPLITS))
    print(f"build: {kept:,} pairs of {total:,} rows in {len(manifest.shards)} shards", flush=True)
    return cost


def repack(folder: Path, total: int, workers: int) -> Cost:
    """The dataset's shards once more; `build` makes them before if they are not there."""
    if not (folder / "dataset" / MANIFEST_FILE).exists():
        build(folder, total, workers)
    return _cost_of(folder, "repack", "repacked", workers, [f"--dataset={folder / 'dataset'}"])


def _cost_of(folder: Path, job: str, output: str, workers: int, options: list[str]) -> Cost:
    """The cost of a job, with that of runs of it that were interrupted; of a finished job, what was measured then."""
    measured = folder / f"{job}.json"
    if not measured.exists():
        command = [sys.executable, "-m", "pipeline.cli", job, f"--output={folder / output}"]
        command += [f"--direct_num_workers={workers}", *options]
        cost_of(command, log=folder / "log", kept=folder / f"{job}.part.json")
        (folder / f"{job}.part.json").rename(measured)
    return read_cost(measured)


@contextlib.contextmanager
def _prepared(folder: Path, total: int) -> Iterator[None]:
    """While the block runs, the images of the list are served; makes what is not in the folder yet."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("nginx is not installed, which serves the images; Debian: apt-get install nginx-light")
    images, work = folder / "images", folder / "nginx"
    for path in (folder, images, work):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)  # nginx's worker is another user if root started it
    _make_images(images)
    port = _port(folder / "port")
    rows = folder / "list.tsv"
    if not rows.exists():
        lists = Lists(odd=0)
        write_list(rows.with_suffix(".part"), lambda number: _row(lists, number, port), total).rename(rows)
    with nginx(program, images, work, addresses=[_address(host) for host in range(HOSTS)], port=port):
        yield


def _make_images(folder: Path) -> None:
    """Smooth ones, of 1.2 kB."""
    for number in range(IMAGES):
        corners_HWC = np.random.default_rng(number).integers(0, 256, (3, 3, 3), np.uint8)
        smooth_HWC = cv2.resize(corners_HWC, (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_LINEAR)
        (folder / f"{number}.jpg").write_bytes(jpeg(smooth_HWC))


def _row(lists: Lists, number: int, port: int) -> str:
    """A row as Conceptual 12M's, whose URL is as long but leads to the loopback."""
    url, _, caption = lists.cc12m(number).partition("\t")
    page = url.rpartition("/")[2]
    return (
        f"http://{_address(number % HOSTS)}:{port}/{number % IMAGES}.jpg?wp-content/uploads/2017/03/{page}\t{caption}"
    )


def _address(host: int) -> str:
    return f"127.0.0.{host + 1}"


def _port(path: Path) -> int:
    """The port that a file names, or a free one, which is written there."""
    if not path.exists():
        write_atomically(path, str(free_port()).encode())
    return int(path.read_text())


def _tokenizer(folder: Path) -> list[str]:
    """The option that names an untrained image tokenizer of 32-px images and 4 x 4 codes of 64, of four convolutions:
    its time is small beside that of everything else."""
    path = folder / "vae.pt"
    sizes = {"image_size": 32, "num_tokens": 64, "codebook_dim": 16, "num_layers": 3, "hidden_dim": 8}
    if not path.exists():
        torch.manual_seed(0)
        with written_atomically(path) as file:
            torch.save({"hparams": sizes, "weights": DiscreteVAE(DiscreteVAEConfig(**sizes)).state_dict()}, file)
    return [f"--image-tokenizer=dalle-pytorch:{path}"]
