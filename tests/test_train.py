"""The trainer: it learns, resumes exactly, and refuses what it cannot continue."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models import averaging, checkpoints
from models import train as trainer
from models.averaging import Average
from models.dataset import read_manifest, read_shard
from models.errors import UserError
from models.generate import Order, draw
from models.image_tokenizers import load_image_tokenizer
from models.schedule import Plateau
from models.stream import Stream
from models.train import TrainingConfig, default_learning_rate, main, make_optimiser
from models.transformer import SIZES, Transformer, TransformerConfig
from tests.conftest import ROOT
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


@contextlib.contextmanager
def interrupted_at(step: int):
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, step)
        yield


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


# --- many processes, killed processes --------------------------------------------------------------------------------

OPTIONS = ("--size", "tiny", "--steps", STEPS, "--batch-size", 4, "--validate-every", 3, "--threads", 1)


def command(*options: object, processes: int = 0) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port)]
    return [sys.executable, *(launcher if processes else []), str(ROOT / "tests" / "tiny_training.py"),
            *map(str, options)]


def assert_same_but_for_rounding(one: Path, other: Path) -> None:
    for a, b in zip(entries(one), entries(other), strict=True):
        assert a["step"] == b["step"]
        for values, others in ((a, b), (a.get("validation", {}), b.get("validation", {}))):
            for name in ("total", "text", "image", "gradient_norm"):
                if name in values:
                    assert values[name] == pytest.approx(others[name], rel=1e-4)
    for name in ("model", "averaged"):
        weights, others = (load_file(run / f"{name}.safetensors") for run in (one, other))
        assert weights.keys() == others.keys()
        for key, value in weights.items():
            torch.testing.assert_close(value, others[key], rtol=1e-2, atol=1e-3)  # Adam makes much of rounding


def test_two_processes_equal_one(dataset, tmp_path):
    """Of the same global batch: whole models (DDP), and shared-out ones (FSDP2) in two parts, begun by one process."""
    one, ddp, fsdp = (tmp_path / name for name in ("one", "ddp", "fsdp"))
    same = ("--dataset", dataset, *OPTIONS, "--precision", "float32", "--schedule", "plateau", "--blank-captions", 0.3)
    with interrupted_at(5), pytest.raises(KeyboardInterrupt):
        main([str(option) for option in (*same, "--output", fsdp)])
    assert main([str(option) for option in (*same, "--output", one)]) == 0
    for options in ((*same, "--output", ddp),
                    (*same, "--output", fsdp, "--resume", "--sharding", "fsdp", "--accumulate", 2)):
        done = subprocess.run(command(*options, processes=2), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "2 processes" in done.stdout
    assert_same_but_for_rounding(one, ddp)
    assert_same_but_for_rounding(one, fsdp)


def test_parts_of_a_batch_equal_the_whole(dataset, tmp_path):
    run(dataset, tmp_path / "whole", "--precision", "float32")
    run(dataset, tmp_path / "parts", "--precision", "float32", "--accumulate", 4)
    assert_same_but_for_rounding(tmp_path / "whole", tmp_path / "parts")


def test_killed_at_a_random_moment_and_resumed(dataset, tmp_path, exhaustive):
    """By the system, at any place: in a step, while it logs, while it writes a checkpoint."""
    same = ("--dataset", dataset, *OPTIONS[:2], "--steps", 60, *OPTIONS[4:], "--precision", "float32")
    subprocess.run(command(*same, "--output", tmp_path / "whole"), check=True, capture_output=True)
    dice = random.Random(0)
    for attempt in range(20 if exhaustive else 1):
        output = tmp_path / f"{attempt}"
        for kills in range(100):
            process = subprocess.Popen(command(*same, "--output", output, "--resume"), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE)
            if kills < (3 if exhaustive else 1):
                at = dice.randint(1, 59)
                while process.poll() is None and logged(output) < at:
                    time.sleep(0.001)
                process.kill()
            _, said = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -9, said.decode()
        assert (output / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
        for name in ("model.safetensors", "averaged.safetensors"):
            assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def logged(output: Path) -> int:
    path = output / "log.jsonl"
    return path.read_bytes().count(b"learning_rate") if path.exists() else 0


def test_a_full_disk(dataset, tmp_path):
    """A real one, of 8 MB: the run ends with a sentence, and goes on from the checkpoint when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        output = disk / "run"
        run(dataset, output, steps=3)
        before = {name: (output / name).read_bytes() for name in ("checkpoint.pt", "model.safetensors", "config.json")}
        filler = disk / "filler"
        with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(UserError, match="No space left on device"):
            run(dataset, output, "--resume", steps=STEPS)
        assert {name: (output / name).read_bytes() for name in before} == before
        filler.unlink()
        assert run(dataset, output, "--resume", steps=STEPS) == 0
        assert entries(output)[-1]["step"] == STEPS
    finally:
        subprocess.run(["umount", disk], check=True)


# --- options ---------------------------------------------------------------------------------------------------------


def test_keeps_the_last_checkpoints(dataset, tmp_path):
    run(dataset, tmp_path, "--keep", 3, "--validate-every", 1, steps=6)
    names = [f"checkpoint-{step:08d}.pt" for step in (4, 5, 6)]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == names
    shutil.copy(tmp_path / names[0], tmp_path / "checkpoint.pt")
    losses = entries(tmp_path)
    run(dataset, tmp_path, "--keep", 3, "--validate-every", 1, "--resume", steps=6)
    assert entries(tmp_path) == losses


def test_validates_by_source(dataset, undisturbed):
    """The mean over sources, weighed by their tokens, is the whole."""
    last = [entry for entry in entries(undisturbed) if "validation" in entry][-1]
    sources = last["by_source"]
    assert {name: values["pairs"] for name, values in sources.items()} == {"cc3m": 1, "cc12m": 1, "wit": 1}
    images = [values["image"] for values in sources.values()]
    assert last["validation"]["image"] == pytest.approx(sum(images) / 3) and len(set(images)) == 3


def test_averaged_weights_are_the_running_mean(monkeypatch):
    monkeypatch.setattr(averaging, "EVERY", 2)
    model = torch.nn.Linear(1, 1, bias=False)
    average, seen, expected = Average(model), [], None
    for step in range(1, 3001):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(step)
        if step % 2 == 0:
            kept = min(0.99, len(seen) / (len(seen) + 9))
            seen.append(step)
            expected = float(step) if expected is None else kept * expected + (1 - kept) * step
    assert average.state_dict()["parameters"]["weight"].item() == pytest.approx(expected, rel=1e-4)
    assert seen[-1] - expected == pytest.approx(2 * 99, rel=0.05)  # 0.99 looks back about a hundred averages


def test_blank_captions_are_those_of_the_share(dataset, undisturbed, tmp_path):
    stream = Stream(dataset, "train", 8)
    config = TrainingConfig(1, 8, 1e-3, blank_captions=0.25)
    batch, blank = next(iter(stream)), 0
    for step in range(200):
        hidden = trainer.hide_captions(batch, config, step).text_BT
        kept = (hidden == batch.text_BT).all(dim=1)
        assert ((hidden == -1).all(dim=1) | kept).all()
        blank += (~kept).sum().item()
    assert blank / 1600 == pytest.approx(0.25, abs=0.04)
    run(dataset, tmp_path, "--blank-captions", 0.5)
    assert entries(tmp_path)[-1] != entries(undisturbed)[-1]


def test_draws_from_prompts_at_every_validation(tiny_dvae, tmp_path):
    write_dataset(tmp_path / "dataset", train=(4,), val=(), image=load_image_tokenizer(tiny_dvae).info)
    (tmp_path / "prompts.txt").write_text("a red cat\n\na green house\n")
    run(tmp_path / "dataset", tmp_path / "run", "--prompts", tmp_path / "prompts.txt", "--tensorboard", steps=4)
    assert sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir()) == ["00000003.png", "00000004.png"]
    with Image.open(tmp_path / "run" / "pictures" / "00000004.png") as image:
        assert image.size == (128, 64) and image.text["prompts"] == "a red cat\na green house"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    logged = [entry["total"] for entry in entries(tmp_path / "run") if "total" in entry]
    assert [event.value for event in board.Scalars("train/total")] == pytest.approx(logged)
    assert [event.step for event in board.Images("pictures")] == [3, 4]


def test_logs_to_weights_and_biases(dataset, tmp_path, monkeypatch):
    """By a stand-in of its module, which takes what the real one takes."""
    logged, began, ended = {}, [], []
    project = types.SimpleNamespace(finish=lambda: ended.append(True),
                                    log=lambda values, step: logged.setdefault(step, {}).update(values))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(
        init=lambda **settings: began.append(settings) or project))
    run(dataset, tmp_path / "a run", "--wandb", "cats", steps=3)
    assert began == [{"project": "cats", "dir": tmp_path / "a run", "id": "a run", "resume": "allow"}] and ended
    steps = {entry["step"]: entry["total"] for entry in entries(tmp_path / "a run") if "total" in entry}
    assert {step: values["train/total"] for step, values in logged.items() if step} == steps
    assert "validation/image" in logged[3] and "validation/wit/total" in logged[0]


@pytest.mark.parametrize("option", [("--recompute",), ("--rotary",), ("--bpe-dropout", 0.5), ("--workers", 1)])
def test_options_that_train(dataset, undisturbed, tmp_path, option):
    assert run(dataset, tmp_path, *option) == 0
    same = entries(tmp_path) == entries(undisturbed)
    assert same == (option[0] in ("--recompute", "--workers"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_like_the_processor(dataset, tmp_path):
    assert run(dataset, tmp_path, "--precision", "bfloat16", "--compile") == 0
    assert entries(tmp_path)[-1]["validation"]["image"] < entries(tmp_path)[0]["validation"]["image"]


def test_the_share_of_the_peak_is_told(dataset, tmp_path, capsys):
    run(dataset, tmp_path, steps=2)
    assert re.search(r"tokens/s  \d+% of peak", capsys.readouterr().out)


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
    (("--accumulate", 3), "--batch-size 4: give a multiple of 3"),
    (("--keep", 0), "start at 1"),
    (("--workers", -1), "--workers at 0"),
    (("--blank-captions", 1), "from 0 to below 1"),
    (("--prompts", "/nowhere"), "--prompts /nowhere cannot be read"),
    (("--prompts", os.devnull), "has 0 prompts"),
    (("--wandb", "cats"), "--wandb needs its package: pip install wandb"),
])
def test_wrong_numbers(dataset, tmp_path, monkeypatch, arguments, said):
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
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


def test_the_rate_is_halved_on_a_plateau_five_times():
    plateau, config = Plateau(), TrainingConfig(steps=1000, batch_size=1, learning_rate=1.0)
    halved = [plateau.saw(loss) for loss in (5.0, 4.0, 4.0, 4.5, 3.9999, 3.9, 3.9, 3.0)]
    assert halved == [False, False, False, False, True, False, False, False]
    assert [config.learning_rate_at(step, plateau.halvings) for step in (49, 99, 100, 999)] == [0.5, 1.0, 0.5, 0.5]
    assert sum(plateau.saw(4.0) for _ in range(100)) == 4 and plateau.halvings == 5


def test_decay_spares_biases_gains_and_embeddings():
    model = Transformer(TransformerConfig(2, 2, 8, 11, 7, text_length=4, grid=2))
    optimiser = make_optimiser(model, 1e-3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in optimiser.param_groups)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [4.5e-2, 0.0]
    assert "blocks.0.qkv.weight" in decayed and "image_head.weight" in decayed
    assert {"start.weight", "text_padding.weight", "row.weight", "norm.weight", "blocks.1.qkv.bias"} <= spared
    assert decayed | spared == set(names.values())
