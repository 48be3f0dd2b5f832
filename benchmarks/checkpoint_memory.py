"""Memory that saving and resuming a run takes beyond the run's own, on each of two processes.

    torchrun --nproc-per-node 2 -m benchmarks.checkpoint_memory [--size 120m] [--sharding ddp]

A run of one update is saved, and another one of random weights resumes from its checkpoint. The most anonymous memory
(pages that no file backs) is compared with that at the beginning of the step; the optimiser's state, which a resumed
run keeps, counts. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import tempfile
import threading
import time
from pathlib import Path
from typing import cast

import torch

from models.data.batch import Batch
from models.data.format import Manifest
from models.data.stream import Stream
from models.tokenizers.info import ImageTokenizerInfo, TextTokenizerInfo, square
from models.training.checkpoint import Checkpoint, TrainState
from models.training.distributed import SHARDINGS, World, distributed_world, wrap_model
from models.training.schedule import Plateau, ScheduleStart
from models.training.stability import SkippedUpdates
from models.training.train import make_optimiser
from models.training.weight_average import WeightAverage
from models.transformer.model import SIZES, Transformer, TransformerConfig

IMAGE, TEXT = ImageTokenizerInfo("x", "0" * 64, 8192, square(32), 256), TextTokenizerInfo("0" * 64, 16384, 256)
MANIFEST = Manifest((), IMAGE, TEXT, 1, {}, {})


class NoStream:
    """What a checkpoint asks of a stream."""

    def state_dict(self, after: object) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


STREAM = cast(Stream, NoStream())
AFTER = Batch([], torch.empty(0, 0), torch.empty(0, 0), 0)


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Peak:
    """Context manager: the most memory in use inside it, beyond that at its start, in bytes."""

    def __enter__(self) -> Peak:
        self.bytes, self._start, self._ends = 0, anonymous_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ends.is_set():
            self.bytes = max(self.bytes, anonymous_bytes() - self._start)
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def give_back_memory() -> None:
    """What was freed would be used again, and not be counted."""
    gc.collect()  # sharded models are circles of references
    ctypes.CDLL(None).malloc_trim(0)


def new_run(config: TransformerConfig, sharding: str, world: World) -> TrainState:
    plain = Transformer(config)
    model = wrap_model(plain, world, sharding, "float32")
    optimiser = make_optimiser(plain, 1e-4)
    return TrainState(model, optimiser, WeightAverage(plain), Plateau(), SkippedUpdates(), ScheduleStart.of(10))


def update(state: TrainState, config: TransformerConfig) -> None:
    text_BT = torch.zeros(1, config.text_length, dtype=torch.int64)
    state.model(text_BT, torch.zeros(1, config.codes, dtype=torch.int64)).losses().total.backward()
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="120m")
    parser.add_argument("--sharding", choices=SHARDINGS, default="ddp")
    args = parser.parse_args()
    config = TransformerConfig.named(args.size, TEXT.vocabulary, IMAGE.vocabulary, text_length=16, grid=8)
    with distributed_world() as world, tempfile.TemporaryDirectory() as temporary:
        folder = Path(world.from_main(temporary))
        checkpoint = Checkpoint(folder, MANIFEST, config, {"steps": 10}, world, keep=1)
        state = new_run(config, args.sharding, world)
        update(state, config)
        with Peak() as saving:
            checkpoint.save(state, STREAM, AFTER, 5)
        del state
        give_back_memory()
        state = new_run(config, args.sharding, world)
        with Peak() as resuming:
            checkpoint.restore(state, STREAM)
        files = [checkpoint.path, *folder.glob("*.shards/*")]
        size = sum(path.stat().st_size for path in files)
        print(
            f"rank {world.rank}: checkpoint {size / 1e6:,.0f} MB; beyond the run's own memory: saving "
            f"{saving.bytes / size:.2f} of that, resuming {resuming.bytes / size:.2f}",
            flush=True,
        )
        world.barrier()


if __name__ == "__main__":
    main()
