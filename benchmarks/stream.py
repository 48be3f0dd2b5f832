"""Pairs/s a core from shards on disk to int64 tensors, beside webdataset, MosaicML Streaming and litdata.

    python -m benchmarks.stream [--pairs N] [--repeat N] [--folder DIR]

The same pairs for all (32 x 32 codes of 8,192, captions of eleven words): webdataset reads pairmill's shards, the other
two their own formats. Each reader shuffles with its own means, ends with text [256, 256] and codes [256, 1024] as int64
made by the same lines, runs in a process of its own on one core, in turns, several times; its best time counts.
pairs/s are a second of processor time, so that other work on the machine counts as little as it can. The floor reads
the shards from end to end, unpacks each member and does nothing else: no order, no check, no tensors.

The peers want packages that clash with pairmill's; into a folder of their own, without what they name but do not need
here:

    pip install --target PEERS --no-deps mosaicml-streaming litdata lightning-utilities torchvision==0.15.2 \\
        transformers catalogue huggingface-hub regex boto3 botocore s3transfer jmespath python-snappy zstd Brotli \\
        paramiko oci azure-storage-blob azure-storage-file-datalake google-cloud-storage
    PYTHONPATH=PEERS python -m benchmarks.stream

One that is not installed is left out.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgpack
import numpy as np
import torch

from models.data.batch import NO_TOKEN
from models.data.format import Manifest, Shard, pack_sample, read_manifest, tar_bytes
from models.data.stream import Stream
from models.text_table import table
from models.tokenizers.info import ImageTokenizerInfo, square
from models.tokenizers.text import BUNDLED_BPE, TextTokenizer

BATCH, TOKENS, CODES = 256, 256, 1024
WORDS, SHARD_PAIRS, MANY_SHARDS = 11, 5_000, 10_000
CHUNK_BYTES = 32 << 20  # of the peers' shards, about as large as ours
MODULES = {"webdataset": "webdataset", "MosaicML Streaming": "streaming", "litdata": "litdata"}

# --- the pairs -------------------------------------------------------------------------------------------------------


def make_pairs(number: int) -> Iterator[dict]:
    text = TextTokenizer.load(BUNDLED_BPE)
    with open(Path(__file__).parent.parent / "sample" / "captions.jsonl", encoding="utf-8") as file:
        words = " ".join(json.loads(line)["caption"] for line in file).split()
    random = np.random.RandomState(0)
    for i in range(number):
        caption = " ".join(words[j] for j in random.randint(0, len(words), WORDS))
        yield {
            "key": hashlib.sha256(f"{i}".encode()).hexdigest()[:32],
            "caption": caption,
            "tokens": np.array(text.encode(caption), "<u2").tobytes(),
            "codes": random.randint(0, 8192, CODES).astype("<u2").tobytes(),
        }


def write_ours(folder: Path, pairs: int) -> None:
    text, images = TextTokenizer.load(BUNDLED_BPE), ImageTokenizerInfo("none", "0" * 64, 8192, square(32), 256)
    (folder / "train").mkdir(parents=True)
    shards: list[Shard] = []
    group = []
    for pair in make_pairs(pairs):
        group.append((pair["key"], pack_sample(pair["caption"], pair["tokens"], pair["codes"], 1), "cc12m"))
        if len(group) == SHARD_PAIRS:
            shards.append(_write_shard(folder, len(shards), -(-pairs // SHARD_PAIRS), sorted(group)))
            group = []
    if group:
        shards.append(_write_shard(folder, len(shards), -(-pairs // SHARD_PAIRS), sorted(group)))
    manifest = Manifest(tuple(shards), images, text.info, 1, settings={}, versions={})
    (folder / "text_tokenizer.json").write_text(text.text)
    (folder / "manifest.json").write_text(manifest.to_json())


def _write_shard(folder: Path, number: int, of: int, group: list) -> Shard:
    path, data = f"train/{number:05d}-of-{of:05d}.tar", tar_bytes(group)
    (folder / path).write_bytes(data)
    return Shard(path, "train", len(group), len(data), hashlib.sha256(data).hexdigest(), {"cc12m": len(group)})


def write_mosaic(folder: Path, pairs: int) -> None:
    from streaming import MDSWriter

    columns = {"key": "str", "caption": "str", "tokens": "bytes", "codes": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=CHUNK_BYTES) as writer:
        for pair in make_pairs(pairs):
            writer.write(pair)


def write_litdata(folder: Path, pairs: int) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes=CHUNK_BYTES)
    for i, pair in enumerate(make_pairs(pairs)):
        writer.add_item(i, pair)
    writer.done()
    writer.merge(1)


# --- the readers: batches until every pair has come once -------------------------------------------------------------


def to_tensors(tokens: list[bytes], codes: list[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """What every peer's batch ends with."""
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens)) // 2
    ids = np.frombuffer(b"".join(tokens), "<u2")
    rows = np.repeat(np.arange(len(tokens)), lengths)
    text_BT = np.full((len(tokens), TOKENS), NO_TOKEN, np.int64)
    text_BT[rows, np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)] = ids
    codes_BN = np.frombuffer(b"".join(codes), "<u2").reshape(len(codes), -1).astype(np.int64)
    return torch.from_numpy(text_BT), torch.from_numpy(codes_BN)


def batched(pairs: Iterable[dict]) -> Iterator[int]:
    """Number of pairs of each batch."""
    tokens: list[bytes] = []
    codes: list[bytes] = []
    for pair in pairs:
        tokens.append(pair["tokens"])
        codes.append(pair["codes"])
        if len(tokens) == BATCH:
            yield len(to_tensors(tokens, codes)[0])
            tokens, codes = [], []
    if tokens:
        yield len(to_tensors(tokens, codes)[0])


def read_ours(folder: Path) -> Iterator[int]:
    for batch in Stream(folder, "train", BATCH):
        yield len(batch.keys)


def read_webdataset(folder: Path) -> Iterator[int]:
    import webdataset

    urls = [str(folder / shard.path) for shard in read_manifest(folder).shards]
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(1000).decode()
    yield from batched(sample["mp"] for sample in dataset)


def read_mosaic(folder: Path) -> Iterator[int]:
    from streaming import StreamingDataset

    yield from batched(StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH))


def read_litdata(folder: Path) -> Iterator[int]:
    import litdata

    yield from batched(litdata.StreamingDataset(str(folder), shuffle=True))


def read_floor(folder: Path) -> Iterator[int]:
    for shard in read_manifest(folder).shards:
        data = (folder / shard.path).read_bytes()
        place = 0
        for _ in range(shard.pairs):
            size = int(data[place + 124 : place + 135], 8)
            body = msgpack.unpackb(data[place + 512 : place + 512 + size])
            np.frombuffer(body["codes"], "<u2"), np.frombuffer(body["tokens"], "<u2")
            place += 512 + (size + 511 & -512)
        yield shard.pairs


READERS: dict[str, tuple[str, Callable[[Path], Iterator[int]]]] = {
    "pairmill": ("ours", read_ours),
    "webdataset": ("ours", read_webdataset),
    "MosaicML Streaming": ("mosaic", read_mosaic),
    "litdata": ("litdata", read_litdata),
    "floor": ("ours", read_floor),
}
WRITERS = {"ours": write_ours, "mosaic": write_mosaic, "litdata": write_litdata}


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(name: str, folder: Path, pairs: int) -> dict:
    """In this process, on one core: seconds of processor time of each of two passes over the pairs."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    torch.set_num_threads(1)
    form, reader = READERS[name]
    times_s: list[float] = []
    begun, done = time.process_time(), 0
    while len(times_s) < 2:
        for number in reader(folder / form):
            done += number
            if done >= pairs:
                times_s.append(time.process_time() - begun)
                begun, done = time.process_time(), done - pairs
                if len(times_s) == 2:
                    break
    return {"first": times_s[0], "later": times_s[1]}


def measure_memory(folder: Path, workers: int) -> float:
    """MB of this process and its workers in the middle of an epoch, what they share counted once."""
    batches = iter(Stream(folder / "ours", "train", BATCH).loader(workers))
    for _ in range(60):
        next(batches)
    processes = [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
    lines = [line for process in processes for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def measure_start(folder: Path) -> tuple[float, float]:
    """Seconds to open a dataset of MANY_SHARDS shards, and to the first batch of the one of the benchmark."""
    many = folder / "many"
    (many / "train").mkdir(parents=True, exist_ok=True)
    body = read_manifest(folder / "ours")
    shards = [
        Shard(
            f"train/{i:05d}-of-{MANY_SHARDS:05d}.tar",
            "train",
            10_000,
            35_000_000,
            hashlib.sha256(b"%d" % i).hexdigest(),
            {"cc12m": 10_000},
        )
        for i in range(MANY_SHARDS)
    ]
    for shard in shards:
        (many / shard.path).touch()
    manifest = Manifest(tuple(shards), body.image_tokenizer, body.text_tokenizer, 1, settings={}, versions={})
    (many / "manifest.json").write_text(manifest.to_json())
    begun = time.perf_counter()
    Stream(many, "train", BATCH)
    opened_s = time.perf_counter() - begun
    begun = time.perf_counter()
    next(iter(Stream(folder / "ours", "train", BATCH)))
    return opened_s, time.perf_counter() - begun


def print_profile(folder: Path, pairs: int) -> None:
    """Where a later epoch's time goes: functions by the time in themselves (cProfile slows Python's own code)."""
    batches = iter(Stream(folder / "ours", "train", BATCH))
    next(itertools.islice(batches, pairs // BATCH, None))  # the first epoch
    profile = cProfile.Profile()
    profile.enable()
    next(itertools.islice(batches, pairs // BATCH - 1, None))
    profile.disable()
    functions = profile.getstats()
    total_s = sum(function.inlinetime for function in functions)
    largest = sorted(functions, key=lambda function: -function.inlinetime)[:8]
    named = [(cProfile.label(function.code), function.inlinetime) for function in largest]
    print(
        table(
            ["pairmill, a later epoch", "share of the time"],
            [(f"{Path(file).name}:{line} {name}", f"{own_s / total_s:.0%}") for (file, line, name), own_s in named],
        )
    )


def in_own_process(*arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stream", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the data here, and use what is there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder, args.pairs)))
        return
    if args.memory is not None:
        print(json.dumps({"mb": measure_memory(args.folder, args.memory)}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        report(args.folder or Path(temporary), args.pairs, args.repeat)


def report(folder: Path, pairs: int, repeat: int) -> None:
    names = [name for name in READERS if name not in MODULES or importlib.util.find_spec(MODULES[name])]
    for form in dict.fromkeys(READERS[name][0] for name in names):
        if not (folder / form).exists():
            WRITERS[form](folder / form, pairs)
    runs = [
        {name: in_own_process("--measure", name, "--folder", folder, "--pairs", pairs) for name in names}
        for _ in range(repeat)
    ]
    best = {
        name: {which: pairs / min(run[name][which] for run in runs) for which in ("first", "later")} for name in names
    }
    sizes = {
        form: sum(path.stat().st_size for path in (folder / form).rglob("*") if path.is_file()) / pairs
        for form in WRITERS
        if (folder / form).exists()
    }
    print(
        table(
            ["reader", "pairs/s", "in later epochs", "pairmill is x times", "later", "bytes a pair"],
            [
                (
                    name,
                    round(best[name]["first"]),
                    round(best[name]["later"]),
                    round(best["pairmill"]["first"] / best[name]["first"], 2),
                    round(best["pairmill"]["later"] / best[name]["later"], 2),
                    round(sizes[READERS[name][0]]),
                )
                for name in names
            ],
        )
    )
    if missing := [name for name in READERS if name not in names]:
        print(f"not installed: {', '.join(missing)}; the head of this script says how")
    opened_s, first_s = measure_start(folder)
    print(
        f"to open a manifest of {MANY_SHARDS:,} shards: {opened_s:.2f} s; to the first batch of this dataset: "
        f"{first_s:.2f} s"
    )
    print(
        "memory: "
        + ", ".join(
            f"{in_own_process('--memory', workers, '--folder', folder)['mb']:,.0f} MB with {workers} workers"
            for workers in (0, 1, 2)
        )
        + " (the imports alone: "
        f"{_imports_mb():,.0f} MB)"
    )
    print_profile(folder, pairs)


def _imports_mb() -> float:
    code = (
        "import models.data.stream; print([int(line.split()[1]) / 1000 for line in open('/proc/self/smaps_rollup') "
        "if line.startswith('Pss:')][0])"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
