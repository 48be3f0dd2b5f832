"""Saving and resuming a run hold no second copy of it in memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from benchmarks.checkpoint_memory import Peak
from models.data.batch import Batch
from models.data.format import Manifest
from models.data.stream import Stream
from models.tokenizers.info import ImageTokenizerInfo, TextTokenizerInfo, square
from models.training.checkpoint import Checkpoint, TrainState
from models.training.distributed import World
from models.training.schedule import Plateau, ScheduleStart
from models.training.stability import SkippedUpdates
from models.training.train import make_optimiser
from models.training.weight_average import WeightAverage
from models.transformer.model import Transformer, TransformerConfig
from tests.support.narrowing import instance

CONFIG = TransformerConfig(4, 8, 512, 4096, 1024, text_length=32, grid=8)
STREAM = cast(Stream, SimpleNamespace(state_dict=lambda after: {}, load_state_dict=lambda state: None))
AFTER = Batch([], torch.empty(0, 0), torch.empty(0, 0), 0)


def new_run(output: Path) -> tuple[TrainState, Checkpoint]:
    model = Transformer(CONFIG)
    state = TrainState(
        model, make_optimiser(model, 1e-3), WeightAverage(model), Plateau(), SkippedUpdates(), ScheduleStart.of(10)
    )
    manifest = Manifest(
        shards=(),
        image_tokenizer=ImageTokenizerInfo("x", "f" * 64, 1024, square(8), 64),
        text_tokenizer=TextTokenizerInfo("g" * 64, 4096, 32),
        draws=1,
        settings={},
        versions={},
    )
    return state, Checkpoint(output, manifest, CONFIG, {"steps": 10}, World(), keep=1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_saved_and_resumed_without_a_second_copy(tmp_path):
    state, checkpoint = new_run(tmp_path)
    model = instance(state.model, Transformer)
    model.loss(torch.zeros(1, 32, dtype=torch.int64), torch.zeros(1, 64, dtype=torch.int64)).total.backward()
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    with Peak() as saving:
        checkpoint.save(state, STREAM, AFTER, 5)
    size = checkpoint.path.stat().st_size
    assert saving.bytes < 0.5 * size  # the 16-bit weights to sample from, for a moment
    resumed, checkpoint = new_run(tmp_path)
    with Peak() as resuming:
        assert checkpoint.restore(resumed, STREAM) == 5
    assert resuming.bytes < 1.2 * size  # half of it is the optimiser's state, which stays
    for name, value in state.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)
