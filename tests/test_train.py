"""The trainer: it learns, resumes exactly, and refuses what it cannot continue."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models import checkpoints, schedule
from models import train as trainer
from models.dataset import read_manifest, read_shard
from models.errors import UserError
from models.generate import Order, draw
from models.train import TrainingConfig, default_learning_rate, main, make_optimiser
from models.transformer import SIZES, Transformer, TransformerConfig
from tests.helpers_dataset import DISTINCT_CAPTIONS, one_thread, write_dataset, write_manifest

STEPS = 9


@pytest.fixture(scope="module", autouse=True)
def tiny_size():
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (3, 2, 32))
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("train") / "dataset"
    write_dataset(directory, train=(5, 6), val=(3,))
    return directory


def run(dataset: Path, output: Path, *others: object, steps: int = STEPS) -> int:
    return main([str(argument) for argument in (
        "--dataset", dataset, "--size", "tiny", "--steps", steps, "--batch-size", 4, "--output", output,
        "--validate-every", 3, "--threads", 1, *others)])


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(dataset, output) == 0
    return output


def entries(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def interrupt_at(monkeypatch, step: int) -> None:
    """The power goes at this step, after its line in the log."""
    log = trainer.Log.step

    def stop(self, done, *values):
        log(self, done, *values)
        if done == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Log, "step", stop)


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory) -> Path:
    """A run on 64 pairs whose captions all differ and whose codes follow no rule: only memory helps."""
    base = tmp_path_factory.mktemp("overfit")
    write_dataset(base / "dataset", train=(64,), val=(), captions=DISTINCT_CAPTIONS,
                  codes=lambda i: np.random.RandomState(i).randint(0, 32, (1, 16)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "small", (3, 4, 64))
        trainer.train(base / "dataset", "small", TrainingConfig(220, 32, 8e-3, schedule="cosine"), base / "run")
    return base


def test_overfits_64_pairs(overfitted):
    first, *_, last = entries(overfitted / "run")
    assert first["image"] == pytest.approx(math.log(32), abs=0.05)
    assert last["total"] < 0.1 and last["image"] < 0.02
    # Which of the 64 captions comes is a matter of chance, ln 64 nats for its tokens together; the rest is memory.
    tokens = [len(sample.tokens) for sample in pairs_of(overfitted / "dataset")]
    assert last["text"] - math.log(64) * len(tokens) / sum(tokens) < 0.1


def test_draws_those_64_pictures_from_their_captions(overfitted):
    described = json.loads((overfitted / "run" / "config.json").read_text())
    model = Transformer(TransformerConfig(**described["model"])).eval()
    model.load_state_dict(load_file(overfitted / "run" / "model.safetensors"))
    pairs = pairs_of(overfitted / "dataset")
    assert len({pair.codes.tobytes() for pair in pairs}) == 64
    drawn = draw(model, [Order(pair.tokens.tolist(), seed) for seed, pair in enumerate(pairs)])
    wrong = sum((codes_N != torch.from_numpy(pair.codes[0].astype("int64"))).any().item()
                for codes_N, pair in zip(drawn, pairs, strict=True))
    assert wrong <= 2  # drawn at temperature 1: a code in some thousands may differ


def pairs_of(dataset: Path) -> list:
    return [pair for shard in read_manifest(dataset).shards for pair in read_shard(dataset / shard.path)]


def test_leaves_what_drawing_needs(dataset, undisturbed):
    assert sorted(os.listdir(undisturbed)) == [
        "averaged.safetensors", "checkpoint-00000006.pt", "checkpoint-00000009.pt", "checkpoint.pt", "config.json",
        "log.jsonl", "model.safetensors", "text_tokenizer.json"]
    described, manifest = json.loads((undisturbed / "config.json").read_text()), read_manifest(dataset)
    assert described["image_tokenizer"] == dataclasses.asdict(manifest.image_tokenizer)
    assert described["text_tokenizer"] == dataclasses.asdict(manifest.text_tokenizer)
    assert described["step"] == STEPS
    assert (undisturbed / "text_tokenizer.json").read_bytes() == (dataset / "text_tokenizer.json").read_bytes()
    Transformer(TransformerConfig(**described["model"])).load_state_dict(load_file(undisturbed / "model.safetensors"))
    log = entries(undisturbed)
    assert [entry["step"] for entry in log if "validation" in entry] == [0, 3, 6, 9]
    assert [entry["step"] for entry in log if "validation" not in entry] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_killed_run_resumes_exactly(dataset, undisturbed, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, step)
        run(dataset, tmp_path)
    assert run(dataset, tmp_path, "--resume") == 0
    assert (tmp_path / "log.jsonl").read_text() == (undisturbed / "log.jsonl").read_text()
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()


def test_resumes_exactly_in_bfloat16(dataset, tmp_path, monkeypatch):
    assert run(dataset, tmp_path / "a", "--precision", "bfloat16", steps=4) == 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 4)
        run(dataset, tmp_path / "b", "--precision", "bfloat16", steps=4)
    assert run(dataset, tmp_path / "b", "--precision", "bfloat16", "--resume", steps=4) == 0
    assert entries(tmp_path / "a") == entries(tmp_path / "b")


def test_a_finished_run_can_be_made_longer(dataset, tmp_path):
    assert run(dataset, tmp_path, steps=3) == 0
    assert run(dataset, tmp_path, "--resume", steps=5) == 0
    assert [entry["step"] for entry in entries(tmp_path) if "validation" in entry] == [0, 3, 5]


def test_a_finished_run_says_so(dataset, undisturbed, capsys):
    before = (undisturbed / "log.jsonl").read_bytes()
    assert run(dataset, undisturbed, "--resume") == 0
    assert f"has {STEPS} steps already" in capsys.readouterr().out
    assert (undisturbed / "log.jsonl").read_bytes() == before


def test_a_torn_line_in_the_log_is_dropped(dataset, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 4)
        run(dataset, tmp_path)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "to')
    run(dataset, tmp_path, "--resume")
    assert entries(tmp_path) == entries(undisturbed)


def test_prints_losses_beside_the_uniform_guess(dataset, tmp_path, capsys):
    run(dataset, tmp_path, steps=3)
    printed = capsys.readouterr().out
    assert f"image {math.log(32):.4f}" in next(line for line in printed.splitlines() if "uniform guess" in line)
    assert "step 0  validation loss" in printed and "step 3  validation loss" in printed
    assert "tokens/s" in printed and "left" in printed


def test_a_dataset_without_validation_pairs_trains(tmp_path, capsys):
    write_dataset(tmp_path / "dataset", train=(4,), val=())
    assert run(tmp_path / "dataset", tmp_path / "run", steps=1) == 0
    assert "no validation" in capsys.readouterr().out


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_existing_checkpoint_without_resume(dataset, undisturbed):
    before = (undisturbed / "log.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"checkpoint\.pt exists; continue it with --resume"):
        run(dataset, undisturbed)
    assert (undisturbed / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("field, said", [("image_tokenizer", "another image tokenizer"),
                                         ("text_tokenizer", "is not the tokenizer that made the tokens")])
def test_a_dataset_of_another_tokenizer(dataset, undisturbed, tmp_path, field, said):
    manifest = write_dataset(tmp_path / "other", train=(5, 6), val=(3,))
    info = dataclasses.replace(getattr(manifest, field), fingerprint="f" * 64)
    write_manifest(tmp_path / "other", dataclasses.replace(manifest, **{field: info}))
    with pytest.raises(UserError, match=said) as error:
        run(tmp_path / "other", undisturbed, "--resume")
    assert "\n" not in str(error.value)


def test_other_settings(dataset, undisturbed):
    with pytest.raises(UserError, match=r"other settings \(seed 0 -> 1\)"):
        run(dataset, undisturbed, "--resume", "--seed", 1)


def test_other_shards(undisturbed, tmp_path):
    write_dataset(tmp_path / "other", train=(6, 5), val=(3,))
    with pytest.raises(UserError, match="its shards are others"):
        run(tmp_path / "other", undisturbed, "--resume", steps=STEPS + 1)


def test_a_damaged_checkpoint(dataset, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.pt is not readable"):
        run(dataset, tmp_path, "--resume")


def test_a_checkpoint_is_plain_data(undisturbed):
    state = torch.load(undisturbed / "checkpoint.pt", weights_only=True)
    assert state["step"] == STEPS and state["stream"]["version"] == 2


def test_a_full_disk_leaves_the_previous_checkpoint(dataset, tmp_path, monkeypatch):
    run(dataset, tmp_path, steps=3)
    before = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "model.safetensors", "config.json")}
    write_whole = checkpoints.write_whole

    def full(path, data):
        if path.name == "checkpoint.pt":
            raise OSError(28, "No space left on device")
        write_whole(path, data)

    monkeypatch.setattr(checkpoints, "write_whole", full)
    with pytest.raises(UserError, match="No space left on device; the previous one is whole"):
        run(dataset, tmp_path, "--resume", steps=5)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("arguments, said", [
    (("--steps", 0), "start at 1"),
    (("--batch-size", -1), "start at 1"),
    (("--validate-every", 0), "start at 1"),
    (("--learning-rate", 0), "--learning-rate is above 0"),
    (("--learning-rate", "nan"), "--learning-rate is above 0"),
    (("--seed", 1 << 63), "--seed 0 or more and below"),
])
def test_wrong_numbers(dataset, tmp_path, arguments, said):
    with pytest.raises(UserError, match=said):
        run(dataset, tmp_path, *arguments)


def test_an_output_that_is_a_file(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output .*: File exists"):
        run(dataset, tmp_path / "file")


def test_a_loss_that_is_no_number_ends_the_run(dataset, tmp_path):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d+: start again with a --learning-rate below"):
        run(dataset, tmp_path, "--learning-rate", 1e30)


# --- the recipe ------------------------------------------------------------------------------------------------------


def test_learning_rate_warms_up_and_falls():
    config = TrainingConfig(steps=100, batch_size=1, learning_rate=1.0, schedule="cosine")
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=0.001)
    paper = TrainingConfig(steps=430_000, batch_size=1024, learning_rate=4.5e-4)
    assert paper.learning_rate_at(4_999) == pytest.approx(4.5e-4) == paper.learning_rate_at(5_000)
    assert default_learning_rate(3968) == 4.5e-4 < default_learning_rate(256)


def test_decay_spares_biases_gains_and_embeddings():
    model = Transformer(TransformerConfig(2, 2, 8, 11, 7, text_length=4, grid=2))
    optimiser = make_optimiser(model, 1e-3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimiser.param_groups)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [4.5e-2, 0.0]
    assert "blocks.0.qkv.weight" in decayed and "image_head.weight" in decayed
    assert {"start.weight", "text_padding.weight", "row.weight", "norm.weight", "blocks.1.qkv.bias"} <= spared
    assert decayed | spared == set(names.values())
