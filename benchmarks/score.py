"""Scores: what they cost beside the bare model, and filters and clusters on made-up embeddings.

    python -m benchmarks.score loop IMAGES --count 64      # the scoring loop beside the model alone, processor time
    python -m benchmarks.score million --pairs 1000000     # cutoff, look-up and clusters: seconds and peak memory
    python -m benchmarks.score million --folder made --steps make cutoff   # in parts, of which the folder is kept
    python -m benchmarks.score million --folder made --steps look-up cluster

IMAGES is as `pairmill score` takes it, of tar files; the model is of the size ViT-B/32, with random weights. Each step
of `million` runs in a process of its own, and prints its line when it ends; the peak is that of the largest process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from beam_jobs import cluster_scores
from benchmarks.tiny_clip import train_tokenizer, write_model
from models.scoring.embedder import Embedder
from models.scoring.model_folder import load_model, model_files
from models.scoring.network import ContrastiveConfig, ContrastiveModel, ImageTowerConfig, TextTowerConfig
from models.text_table import table
from pipeline.fetch import stored_shards
from pipeline.images.validate import ImageConfig
from pipeline.output.files import write_file
from pipeline.output.ledger import KEPT, READ, build_ledger, write_ledger
from pipeline.output.parquet import file_bytes
from pipeline.records import Pair, Rejected
from pipeline.scores.best import cutoff
from pipeline.scores.lookup import write_lookup
from pipeline.scores.score_files import open_scores, schema_of, score_path, write_score_list
from pipeline.scores.scorer import PairScorer, score_config
from pipeline.scores.stage import ROWS_PER_FILE

WIDTH = 512
LOOK_UPS = 10_000
IMAGES = 64
MAX_CENTRES = 100_000


# --- the loop --------------------------------------------------------------------------------------------------------


def compare_loop(images: str, count: int) -> None:
    """Prints images a second of the whole loop and of the model alone, on one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/00000.tar"
        copy_first(stored_shards.find_image_shards(images)[0], count, path)
        pairs = [row for row in stored_shards.list_rows(path) if isinstance(row, Pair)]
        write_vit_b_32([pair.caption for pair in pairs], Path(folder))
        embedder = Embedder(load_model(model_files(folder)))
        scorer = PairScorer(score_config(folder, [], "cpu", 1))
        read = stored_shards.read_images(path, pairs, ImageConfig())
        fetched = [image for image in read if not isinstance(image, Rejected)]
        prepared = [embedder.prepare(image.rgb_HWC, image.pair.caption) for image in fetched]
        model_s = _seconds(lambda: embedder.embed(prepared))
        loop_s = _seconds(lambda: list(scorer.score(stored_shards.read_images(path, pairs, ImageConfig()))))
    rows = [("the model alone", model_s), ("reading, decoding, measures, model", loop_s)]
    header = ["loop", "images a second", "time"]
    print(table(header, [(name, round(len(fetched) / s, 1), round(s / model_s, 3)) for name, s in rows]))


def copy_first(path: str, count: int, output: str) -> None:
    """Copies the first images of a tar file, with their texts: a scorer reads a tar file to its end, for all of its
    images together."""
    keys: set[str] = set()
    with tarfile.open(path) as given, tarfile.open(output, "w") as tar:
        for member in given:
            keys.add(member.name.partition(".")[0])
            if len(keys) > count:
                return
            tar.addfile(member, given.extractfile(member))


def write_vit_b_32(captions: list[str], folder: Path) -> None:
    """CLIP of the size ViT-B/32, with random weights."""
    tokenizer = train_tokenizer(captions)
    image = ImageTowerConfig(768, 12, 12, 3072, "quick_gelu", 1e-5, image_size=224, patch_size=32, pool="class")
    text = TextTowerConfig(
        512, 12, 8, 2048, "quick_gelu", 1e-5, context=77, vocabulary=49408, causal=True, pool="end", end_id=3
    )
    write_model(ContrastiveModel(ContrastiveConfig(512, image, text)), tokenizer, folder)


def _seconds(work: Callable[[], object]) -> float:
    """The shorter processor time of two runs."""
    times_s = []
    for _ in range(2):
        started = time.process_time()
        work()
        times_s.append(time.process_time() - started)
    return min(times_s)


# --- a million -------------------------------------------------------------------------------------------------------


def write_made_up(folder: str, pairs: int) -> None:
    """A folder of scores with made-up embeddings: groups of ten or more lie close together."""
    total = -(-pairs // ROWS_PER_FILE)
    shape = min(MAX_CENTRES, max(1, pairs // 10)), WIDTH
    centres = np.random.default_rng(0).standard_normal(shape, np.float32)
    written = []
    for number in range(total):
        random = np.random.RandomState(number + 1)
        count = min(ROWS_PER_FILE, pairs - number * ROWS_PER_FILE)
        low, high = (-(-(edge << 63) // total) for edge in (number, number + 1))
        heads = np.sort(random.randint(low, high, count, dtype=np.int64)).astype(np.uint64) * np.uint64(2)
        keys = [f"{head:016x}{place:016x}" for place, head in enumerate(heads.tolist())]
        vectors = centres[random.randint(0, len(centres), count)] + random.standard_normal((count, WIDTH)) * 0.1
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
        image = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float16()), WIDTH)
        clip = pa.array(random.rand(count).astype(np.float32))
        scores = pa.Table.from_arrays([pa.array(keys), clip], schema=schema_of(("clip",)))
        for kind, content in (("scores", scores), ("embeddings", pa.table({"key": keys, "image": image}))):
            written.append(write_file(folder, score_path(number, total, kind), file_bytes(content)))
    write_score_list(folder, ("clip",), written)
    write_ledger(folder, build_ledger([(("made", READ, ""), pairs), (("made", KEPT, ""), pairs)], []))


def find_cutoff(folder: str) -> None:
    cutoff(open_scores(folder), "clip", 0.3)


def look_up(folder: str) -> None:
    """Writes the file of all keys and looks some of them up."""
    scores = open_scores(folder)
    with tempfile.TemporaryDirectory() as output:
        lookup = write_lookup(scores, ("clip",), output).open()
        keys = scores.read_file(0, columns=["key"])["key"].to_pylist()[:LOOK_UPS]
        assert all(lookup.scores_of(key)["clip"] >= 0 for key in keys)


def cluster(folder: str) -> None:
    with tempfile.TemporaryDirectory() as output:
        cluster_scores.main([f"--scores={folder}", f"--output={output}/out", "--direct_num_workers=1"])


STEPS: dict[str, Callable[..., None]] = {
    "make": write_made_up,
    "cutoff": find_cutoff,
    "look-up": look_up,
    "cluster": cluster,
}


def measure_million(pairs: int, folder: str, steps: list[str]) -> None:
    for name in steps:
        arguments = (folder, pairs) if name == "make" else (folder,)
        seconds, peak = _measured(STEPS[name], *arguments)
        print(f"{name}: {seconds:.1f} s, peak {peak / 2**20:.2f} GB", flush=True)


def _measured(work: Callable[..., None], *arguments: object) -> tuple[float, int]:
    """Seconds and the peak memory in kB of work in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_report, args=(queue, work, *arguments))
    process.start()
    measured = queue.get()
    process.join()
    return measured


def _report(queue: multiprocessing.Queue, work: Callable[..., None], *arguments: object) -> None:
    started = time.perf_counter()
    work(*arguments)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    queue.put((time.perf_counter() - started, peak))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    loop = parts.add_parser("loop")
    loop.add_argument("images")
    loop.add_argument("--count", type=int, default=IMAGES, help="images that are scored")
    million = parts.add_parser("million")
    million.add_argument("--pairs", type=int, default=1_000_000)
    million.add_argument("--folder", help="where made-up scores are, and stay; a temporary one if it is not named")
    million.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    args = parser.parse_args()
    if args.part == "loop":
        compare_loop(args.images, args.count)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure_million(args.pairs, args.folder or folder, args.steps)


if __name__ == "__main__":
    main()
