"""The trainer: it learns, by the paper's recipe and with each of its options."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.data.format import read_manifest, read_token_shard
from models.data.stream import Stream
from models.errors import UserError
from models.sampling.checkpoint import load_model
from models.sampling.sampler import ImageRequest, sample_codes
from models.tokenizers.image import load_image_tokenizer
from models.tokenizers.info import UINT16
from models.training import prompt_grid, weight_average
from models.training import train as trainer
from models.training.options import TransformerTrainingConfig, default_learning_rate
from models.training.schedule import Plateau
from models.training.train import make_optimiser
from models.training.weight_average import WeightAverage
from models.transformer.model import SIZES, Transformer, TransformerConfig
from tests.support.datasets import DISTINCT_CAPTIONS, write_dataset
from tests.support.images import text_of
from tests.support.training import STEPS, entries, run

pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory) -> Path:
    """A run on 64 pairs whose captions all differ and whose codes follow no rule: only memory helps."""
    base = tmp_path_factory.mktemp("overfit")
    write_dataset(
        base / "dataset",
        train=(64,),
        val=(),
        captions=DISTINCT_CAPTIONS,
        codes=lambda i: np.random.RandomState(i).randint(0, 32, (1, 16)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "small", (3, 4, 64))
        trainer.train(
            base / "dataset", "small", TransformerTrainingConfig(220, 32, 8e-3, schedule="cosine"), base / "run"
        )
    return base


def test_overfits_64_pairs(overfitted):
    first, *_, last = entries(overfitted / "run")
    assert first["image"] == pytest.approx(math.log(32), abs=0.05)
    assert last["total"] < 0.1 and last["image"] < 0.02
    # Which of the 64 captions comes is a matter of chance, ln 64 nats for its tokens together; the rest is memory.
    tokens = [len(sample.tokens) for sample in pairs_of(overfitted / "dataset")]
    assert last["text"] - math.log(64) * len(tokens) / sum(tokens) < 0.1


def test_draws_those_64_images_from_their_captions(overfitted):
    model, _ = load_model(overfitted / "run")
    pairs = pairs_of(overfitted / "dataset")
    assert len({pair.codes.tobytes() for pair in pairs}) == 64
    drawn = sample_codes(model, [ImageRequest(pair.tokens.tolist(), seed) for seed, pair in enumerate(pairs)])
    wrong = sum(
        (codes_N != torch.from_numpy(pair.codes[0].astype("int64"))).any().item()
        for codes_N, pair in zip(drawn, pairs, strict=True)
    )
    assert wrong <= 2  # drawn at temperature 1: a code in some thousands may differ


def pairs_of(dataset: Path) -> list:
    return [pair for shard in read_manifest(dataset).shards for pair in read_token_shard(dataset / shard.path, UINT16)]


def test_leaves_what_drawing_needs(training_dataset, undisturbed):
    assert sorted(os.listdir(undisturbed)) == [
        "averaged.safetensors",
        "checkpoint-00000006.pt",
        "checkpoint-00000009.pt",
        "checkpoint.pt",
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "text_tokenizer.json",
    ]
    described, manifest = json.loads((undisturbed / "config.json").read_text()), read_manifest(training_dataset)
    assert described["image_tokenizer"] == manifest.image_tokenizer.to_json()
    assert described["text_tokenizer"] == dataclasses.asdict(manifest.text_tokenizer)
    assert described["step"] == STEPS
    assert (undisturbed / "text_tokenizer.json").read_bytes() == (training_dataset / "text_tokenizer.json").read_bytes()
    weights = torch.load(undisturbed / "checkpoint.pt", weights_only=True)["weights"]
    of_drawing = load_file(undisturbed / "model.safetensors")
    assert weights.keys() - of_drawing.keys() == {"text_head.weight", "text_head.bias"}
    assert all(torch.equal(value, weights[name].half()) for name, value in of_drawing.items())
    log = entries(undisturbed)
    assert [entry["step"] for entry in log if "validation" in entry] == [0, 3, 6, 9]
    assert [entry["step"] for entry in log if "validation" not in entry] == list(range(1, STEPS + 1))


def test_prints_losses_beside_the_uniform_guess(training_dataset, tmp_path, capsys):
    run(training_dataset, tmp_path, steps=3)
    printed, progress = capsys.readouterr()
    assert f"image {math.log(32):.4f}" in next(line for line in printed.splitlines() if "uniform guess" in line)
    assert "step 0  validation loss" in printed and "step 3  validation loss" in printed
    assert re.search(r"train: 3/3 steps \(100%\), [\d.]+ steps/s, took 00:\d\d; loss .* tokens/s", progress)


def test_a_dataset_without_validation_pairs_trains(tmp_path, capsys):
    write_dataset(tmp_path / "dataset", train=(4,), val=())
    assert run(tmp_path / "dataset", tmp_path / "run", steps=1) == 0
    assert "no validation" in capsys.readouterr().out


# --- options ---------------------------------------------------------------------------------------------------------


def test_keeps_the_last_checkpoints(training_dataset, tmp_path):
    run(training_dataset, tmp_path, "--keep", 3, "--validate-every", 1, steps=6)
    names = [f"checkpoint-{step:08d}.pt" for step in (4, 5, 6)]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == names
    shutil.copy(tmp_path / names[0], tmp_path / "checkpoint.pt")
    losses = entries(tmp_path)
    run(training_dataset, tmp_path, "--keep", 3, "--validate-every", 1, "--resume", steps=6)
    assert entries(tmp_path) == losses


def test_what_was_written_into_the_config_stays(training_dataset, tmp_path):
    run(training_dataset, tmp_path, steps=1)
    config = json.loads((tmp_path / "config.json").read_text())
    by_hand = {"sampling": {"guidance": 3.0}, "prompts": ["a red boat"]}
    (tmp_path / "config.json").write_text(json.dumps(config | by_hand))
    run(training_dataset, tmp_path, "--resume", steps=2)
    resumed = json.loads((tmp_path / "config.json").read_text())
    assert resumed == config | by_hand | {"step": 2, "training": resumed["training"]}


def test_validates_by_source(training_dataset, undisturbed):
    """The mean over sources, weighed by their tokens, is the whole."""
    last = [entry for entry in entries(undisturbed) if "validation" in entry][-1]
    sources = last["by_source"]
    assert {name: values["pairs"] for name, values in sources.items()} == {"cc3m": 1, "cc12m": 1, "wit": 1}
    images = [values["image"] for values in sources.values()]
    assert last["validation"]["image"] == pytest.approx(sum(images) / 3) and len(set(images)) == 3


def test_averaged_weights_are_the_running_mean(monkeypatch):
    monkeypatch.setattr(weight_average, "UPDATE_INTERVAL", 2)
    model = torch.nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(model), 0.0
    seen: list[int] = []
    for step in range(1, 3001):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(step)
        if step % 2 == 0:
            kept = min(0.99, len(seen) / (len(seen) + 9))
            seen.append(step)
            expected = kept * expected + (1 - kept) * step if len(seen) > 1 else float(step)
    assert average.state_dict()["parameters"]["weight"].item() == pytest.approx(expected, rel=1e-4)
    assert seen[-1] - expected == pytest.approx(2 * 99, rel=0.05)  # 0.99 looks back about a hundred averages


def test_blank_captions_are_those_of_the_share(training_dataset, undisturbed, tmp_path):
    stream = Stream(training_dataset, "train", 8)
    config = TransformerTrainingConfig(1, 8, 1e-3, blank_captions=0.25)
    batch, blank = next(iter(stream)), 0
    for step in range(200):
        hidden = trainer.drop_captions(batch, config, step).text_BT
        kept = (hidden == batch.text_BT).all(dim=1)
        assert ((hidden == -1).all(dim=1) | kept).all()
        blank += int((~kept).sum())
    assert blank / 1600 == pytest.approx(0.25, abs=0.04)
    run(training_dataset, tmp_path, "--blank-captions", 0.5)
    assert entries(tmp_path)[-1] != entries(undisturbed)[-1]


def test_draws_from_prompts_at_every_validation(tiny_dvae, tmp_path):
    write_dataset(tmp_path / "dataset", train=(4,), val=(), image=load_image_tokenizer(tiny_dvae).info)
    (tmp_path / "prompts.txt").write_text("a red cat\n\na green house\n")
    run(tmp_path / "dataset", tmp_path / "run", "--prompts", tmp_path / "prompts.txt", "--tensorboard", steps=4)
    assert sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir()) == ["00000003.png", "00000004.png"]
    with Image.open(tmp_path / "run" / "pictures" / "00000004.png") as image:
        assert image.size == (128, 64) and text_of(image)["prompts"] == "a red cat\na green house"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    logged = [entry["total"] for entry in entries(tmp_path / "run") if "total" in entry]
    assert [event.value for event in board.Scalars("train/total")] == pytest.approx(logged)
    assert [event.step for event in board.Images("pictures")] == [3, 4]


def test_prompts_are_drawn_on_the_device_of_the_training(tiny_dvae, tiny_checkpoint, tmp_path, monkeypatch):
    devices = []
    monkeypatch.setattr(prompt_grid, "sample_codes", lambda model, requests: devices.append(model.start.weight.device))
    (tmp_path / "prompts.txt").write_text("a red cat\n")
    manifest = read_manifest(tiny_checkpoint.parent / "dataset")
    grid = prompt_grid.load_prompt_grid(
        tmp_path / "prompts.txt", manifest, (tiny_checkpoint / "text_tokenizer.json").read_bytes()
    )
    with pytest.raises(AttributeError):  # nothing is drawn
        grid.sample(tiny_checkpoint, 1, torch.device("meta"))
    assert devices == [torch.device("meta")]


def test_logs_to_weights_and_biases(training_dataset, tmp_path, monkeypatch):
    """By a stand-in of its module, which takes what the real one takes."""
    began, ended = [], []
    logged: dict[int, dict[str, float]] = {}
    project = types.SimpleNamespace(
        finish=lambda: ended.append(True), log=lambda values, step: logged.setdefault(step, {}).update(values)
    )

    def init(**settings):
        began.append(settings)
        return project

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    run(training_dataset, tmp_path / "a run", "--wandb", "cats", steps=3)
    run(training_dataset, tmp_path / "a run", "--wandb", "cats", "--resume", steps=4)
    run(training_dataset, tmp_path / "other" / "a run", "--wandb", "cats", steps=1)
    first, resumed, other = began
    assert first["project"] == "cats" and first["dir"] == tmp_path / "a run" and first["resume"] == "allow" and ended
    assert first["id"] == resumed["id"] != other["id"]
    assert first["config"]["training"]["batch_size"] == 4 and first["config"]["model"]["width"] == 32
    steps = {entry["step"]: entry["total"] for entry in entries(tmp_path / "a run") if "total" in entry}
    assert {step: values["train/total"] for step, values in logged.items() if step > 1}.items() <= steps.items()
    assert "validation/image" in logged[3] and "validation/wit/total" in logged[0]


def test_shorter_text(training_dataset, tmp_path):
    """Captions are cut, in validation too, and the model has no positions for what is beyond."""
    run(training_dataset, tmp_path, "--text-length", 2)
    assert load_file(tmp_path / "model.safetensors")["text_position.weight"].shape[0] == 2
    assert json.loads((tmp_path / "config.json").read_text())["model"]["text_length"] == 2
    assert entries(tmp_path)[-1]["step"] == STEPS


@pytest.mark.parametrize("option", [("--recompute",), ("--rotary",), ("--bpe-dropout", 0.5), ("--workers", 1)])
def test_options_that_train(training_dataset, undisturbed, tmp_path, option):
    assert run(training_dataset, tmp_path, *option) == 0
    same = entries(tmp_path) == entries(undisturbed)
    assert same == (option[0] in ("--recompute", "--workers"))


def test_a_compiled_model_trains_alike(training_dataset, tmp_path, exhaustive):
    if not exhaustive or not shutil.which("g++"):
        pytest.skip("takes a minute of a processor and a C++ compiler: with --exhaustive")
    for name, options in (("plain", ()), ("compiled", ("--compile",))):
        run(training_dataset, tmp_path / name, "--precision", "float32", *options, steps=4)
    plain, compiled = (
        [entry["total"] for entry in entries(tmp_path / name) if "total" in entry] for name in ("plain", "compiled")
    )
    assert compiled == pytest.approx(plain, rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_like_the_processor(training_dataset, tmp_path):
    assert run(training_dataset, tmp_path, "--precision", "bfloat16", "--compile") == 0
    assert entries(tmp_path)[-1]["validation"]["image"] < entries(tmp_path)[0]["validation"]["image"]


def test_the_share_of_the_peak_is_told(training_dataset, tmp_path, capsys):
    run(training_dataset, tmp_path, steps=2)
    assert re.search(r"tokens/s  \d+% of peak", capsys.readouterr().err)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--steps", 0), "start at 1"),
        (("--batch-size", -1), "start at 1"),
        (("--validate-every", 0), "start at 1"),
        (("--learning-rate", 0), "--learning-rate is above 0"),
        (("--learning-rate", "nan"), "--learning-rate is above 0"),
        (("--seed", 1 << 63), "--seed 0 or more and below"),
        (("--accumulate", 3), "--batch-size 4: give a multiple of 3"),
        (("--keep", 0), "start at 1"),
        (("--workers", -1), "--workers at 0"),
        (("--blank-captions", 1), "from 0 to below 1"),
        (("--prompts", "/nowhere"), "--prompts /nowhere cannot be read"),
        (("--prompts", os.devnull), "has 0 prompts"),
        (("--wandb", "cats"), "--wandb needs its package: pip install wandb"),
    ],
)
def test_wrong_numbers(training_dataset, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    with pytest.raises(UserError, match=message):
        run(training_dataset, tmp_path, *arguments)


def test_an_output_that_is_a_file(training_dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can.t write .*: File exists; a part of the path is a file"):
        run(training_dataset, tmp_path / "file")


# --- the recipe ------------------------------------------------------------------------------------------------------


def test_learning_rate_warms_up_and_falls():
    config = TransformerTrainingConfig(steps=100, batch_size=1, learning_rate=1.0, schedule="cosine")
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=0.001)
    paper = TransformerTrainingConfig(steps=430_000, batch_size=1024, learning_rate=4.5e-4)
    assert paper.learning_rate_at(4_999) == pytest.approx(4.5e-4) == paper.learning_rate_at(5_000)
    assert default_learning_rate(3968) == 4.5e-4 < default_learning_rate(256)


def test_the_rate_is_halved_on_a_plateau_five_times():
    plateau, config = Plateau(), TransformerTrainingConfig(steps=1000, batch_size=1, learning_rate=1.0)
    halved = [plateau.update(loss) for loss in (5.0, 4.0, 4.0, 4.5, 3.9999, 3.9, 3.9, 3.0)]
    assert halved == [False, False, False, False, True, False, False, False]
    assert [config.learning_rate_at(step, plateau.halvings) for step in (49, 99, 100, 999)] == [0.5, 1.0, 0.5, 0.5]
    assert sum(plateau.update(4.0) for _ in range(100)) == 4 and plateau.halvings == 5


def test_decay_spares_biases_gains_and_embeddings():
    model = Transformer(TransformerConfig(2, 2, 8, 11, 7, text_length=4, grid=2))
    optimiser = make_optimiser(model, 1e-3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimiser.param_groups)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [4.5e-2, 0.0]
    assert "blocks.0.qkv.weight" in decayed and "image_head.weight" in decayed
    assert {"start.weight", "text_padding.weight", "row.weight", "norm.weight", "blocks.1.qkv.bias"} <= spared
    assert decayed | spared == set(names.values())
