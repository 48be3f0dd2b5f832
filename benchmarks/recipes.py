"""Loss of the paper's recipe and of `modern` after equal compute, on one dataset.

    python -m benchmarks.recipes --dataset DIR [--shape LAYERS HEADS WIDTH] [--steps N] [--batch-size B]
        [--text-length T] [--seeds N]

Both train with the same shape, batches and cosine, from the default peak of the learning rate and from twice that. The
paper's recipe makes N updates, the other as many as the same number of floating-point operations
allows: two for each multiply-add that the masks ask for. The loss is that of the validation at the end, the mean over
the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch

from models.data.format import Manifest, read_manifest
from models.device import AUTO, device_of
from models.text_table import table
from models.training.options import RunOptions, TransformerTrainingConfig, default_learning_rate, default_precision
from models.training.train import model_config_for, train
from models.transformer.model import SIZES, Shape, Transformer, training_flops


class Result(NamedTuple):
    """The losses of a run's last validation, in nats, and its time in seconds."""

    total: float
    text: float
    image: float
    seconds: float


def flops_of(manifest: Manifest, size: Shape, config: TransformerTrainingConfig) -> float:
    """Operations to train on one pair."""
    with torch.device("meta"):
        return training_flops(Transformer(model_config_for(manifest, size, config)))


def result_of(dataset: str, size: Shape, config: TransformerTrainingConfig) -> Result:
    """Trains once."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(dataset, size, config, Path(folder), options=RunOptions(validate_every=config.steps, keep=1))
        seconds = time.perf_counter() - started
        last = json.loads((Path(folder) / "log.jsonl").read_text().splitlines()[-1])["validation"]
    return Result(last["total"], last["text"], last["image"], seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", required=True, metavar="DIR")
    parser.add_argument("--shape", type=int, nargs=3, default=SIZES["3m"], metavar="N")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--text-length", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    manifest, shape = read_manifest(args.dataset), Shape(*args.shape)
    rate = default_learning_rate(shape.width)
    paper = TransformerTrainingConfig(
        args.steps, args.batch_size, rate, 0, default_precision(device_of(AUTO)), "cosine", text_length=args.text_length
    )
    modern = dataclasses.replace(paper, recipe="modern")
    flops = [flops_of(manifest, shape, config) for config in (paper, modern)]
    modern = dataclasses.replace(modern, steps=round(args.steps * flops[0] / flops[1]))
    rows = []
    rates = (rate, 2 * rate)
    for config in (dataclasses.replace(config, learning_rate=rate) for config in (paper, modern) for rate in rates):
        seeded = (dataclasses.replace(config, seed=seed) for seed in range(args.seeds))
        results = [result_of(args.dataset, shape, one) for one in seeded]
        means = [f"{mean(values):.3f}" for values in zip(*results, strict=True)]
        rows.append((config.recipe, f"{config.learning_rate:g}", f"{config.steps:,}", *means))
    print(table(["recipe", "learning rate", "updates", "loss", "text", "image", "seconds"], rows))


if __name__ == "__main__":
    main()
