"""What is written by hand, beside the library that does the same: seconds of processor time on the same input.

    python -m benchmarks.handwritten

indexed_bzip2, which `make peers` installs, reads one bzip2 file from many places once it has an index of its blocks;
making the index decompresses the file. Ours finds the blocks of a range alone, so that workers share nothing.
"""

from __future__ import annotations

import bz2
import functools
import hashlib
import importlib
import io
import itertools
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from torch import nn

from models.data.format import SAMPLE_SUFFIX, Shard
from models.data.shard_file import ShardFile
from models.text_table import table
from models.tokenizers.winograd import use_winograd
from pipeline.images.area_resize import area_resize
from pipeline.sources.byte_ranges import bzip2_chunks
from pipeline.sources.readers import line_ranges
from pipeline.sources.source import RANGE_BYTES

READ_BYTES = 1 << 20
REPEATS = 5
AREAS = [((640, 480), (342, 256)), ((1024, 683), (384, 256)), ((1024, 768), (512, 384))]  # width, height in px


def seconds(work: Callable[[], object]) -> float:
    """The shortest processor time of several runs, on all threads."""
    times_s = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times_s.append(time.process_time() - started)
    return min(times_s)


def drain(open_file: Callable[[], BinaryIO | bz2.BZ2File]) -> int:
    with open_file() as file:
        return sum(len(data) for data in iter(lambda: file.read(READ_BYTES), b""))


def bzip2(folder: Path) -> list[tuple]:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    text = "\n".join(" ".join(rng.choices(words, k=12)) for _ in range(500_000)).encode()
    path = folder / "list.bz2"
    path.write_bytes(bz2.compress(text))

    def in_ranges() -> None:
        total = 0
        for first, stop in line_ranges(str(path), RANGE_BYTES):
            with open(path, "rb") as file:
                chunks = bzip2_chunks(file, first, stop)
                total += sum(len(chunk.data) for chunk in itertools.takewhile(lambda chunk: chunk.in_range, chunks))
        assert total == len(text)

    ours = seconds(in_ranges)
    rows = [
        ("bzip2 in ranges", ours, "bz2, from end to end", seconds(lambda: drain(functools.partial(bz2.open, path))))
    ]
    try:
        library = importlib.import_module("indexed_bzip2")
    except ImportError:
        return [*rows, ("", ours, "indexed_bzip2 (not installed)", None)]

    def index_and_text() -> None:
        library.open(str(path), 1).block_offsets()
        assert drain(functools.partial(library.open, str(path), 1)) == len(text)

    return [*rows, ("", ours, "indexed_bzip2, its index and the text", seconds(index_and_text))]


def area(_: Path) -> list[tuple]:
    rows = []
    for before, after in AREAS:
        rgb_HWC = np.random.default_rng(0).integers(0, 256, (*before[::-1], 3), np.uint8)
        ours = seconds(lambda: [area_resize(rgb_HWC, *after) for _ in range(20)])  # noqa: B023
        theirs = seconds(lambda: [cv2.resize(rgb_HWC, after, interpolation=cv2.INTER_AREA) for _ in range(20)])  # noqa: B023
        rows.append((f"20 area averages, {before} to {after}", ours, "OpenCV", theirs))
    return rows


def convolution(_: Path) -> list[tuple]:
    plain = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)).eval()
    fast = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)).eval()
    fast.load_state_dict(plain.state_dict())
    use_winograd(fast)
    map_BCHW = torch.randn(4, 256, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fast(map_BCHW), plain(map_BCHW), rtol=1e-3, atol=1e-3)
        return [
            (
                "3 x 3 convolution, 256 channels, 4 x 64 x 64",
                seconds(lambda: fast(map_BCHW)),
                "PyTorch (oneDNN)",
                seconds(lambda: plain(map_BCHW)),
            )
        ]


def shard(folder: Path) -> list[tuple]:
    path, pairs = folder / "00000.tar", 20_000
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key in range(pairs):
            member = tarfile.TarInfo(f"{key:032x}{SAMPLE_SUFFIX}")
            member.size = 2600
            tar.addfile(member, fileobj=io.BytesIO(bytes(member.size)))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = Shard(path=path.name, split="train", pairs=pairs, bytes=path.stat().st_size, sha256=sha256)

    def ours() -> None:
        ShardFile._checked.clear()  # each run hashes the file
        assert len(ShardFile(str(path), entry).members.offsets) == pairs

    def theirs() -> None:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        with tarfile.open(path) as tar:
            assert len([(member.offset, member.size) for member in tar]) == pairs

    return [(f"index and SHA-256 of a shard of {pairs:,}", seconds(ours), "tarfile, hashlib", seconds(theirs))]


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for measure in (bzip2, area, convolution, shard):
            for what, ours, library, theirs in measure(Path(folder)):
                ratio = f"{theirs / ours:.2f} x" if theirs else ""
                rows.append((what, round(ours, 3), library, round(theirs, 3) if theirs else "", ratio))
    print(table(["what", "ours, s", "library", "its, s", "ratio"], rows))


if __name__ == "__main__":
    main()
