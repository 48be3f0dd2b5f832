"""NaN and infinity never reach the weights: such an update is skipped and counted; many in a row end the run."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.errors import UserError
from models.tokenizers.dvae import DVAE, DVAEConfig
from models.training import train_dvae
from models.training.dvae_options import DVAETrainingConfig
from models.training.stability import MAX_SKIPPED_IN_A_ROW
from models.transformer.model import TokenLosses, Transformer
from tests.support.datasets import write_dataset
from tests.support.images import write_image_tar
from tests.support.training import entries, run

pytestmark = pytest.mark.usefixtures("tiny_size")


def spoil(monkeypatch, *calls: int, value: float = math.nan) -> None:
    """The losses of these training batches, counted from 1, are not finite."""
    forward, count = Transformer.forward, iter(range(1, 1000))

    def spoilt(self, text_BT, codes_BN):
        losses = forward(self, text_BT, codes_BN)
        if torch.is_grad_enabled() and next(count) in calls:
            return TokenLosses(losses.text_R * value, losses.image_BN * value)
        return losses

    monkeypatch.setattr(Transformer, "forward", spoilt)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_single_bad_update_is_skipped(training_dataset, tmp_path, monkeypatch, capsys, value):
    spoil(monkeypatch, 2, value=value)
    assert run(training_dataset, tmp_path, steps=4) == 0
    log = [entry for entry in entries(tmp_path) if "validation" not in entry]
    assert [entry.get("skipped_updates") for entry in log] == [None, 1, None, None]
    assert log[1]["total"] is None and log[2]["total"] > 0
    assert "step 2  loss" in (out := capsys.readouterr().out) and "update skipped (1 in this run)" in out
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["skipped"] == {"total": 1, "in_a_row": 0}
    assert all(value.isfinite().all() for value in load_file(tmp_path / "model.safetensors").values())


def test_many_bad_updates_end_the_run_and_leave_the_good_weights(training_dataset, tmp_path, monkeypatch):
    run(training_dataset, tmp_path, steps=3)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    spoil(monkeypatch, *range(1, 100))
    with pytest.raises(UserError, match=rf"{MAX_SKIPPED_IN_A_ROW} updates in a row .* a --learning-rate below"):
        run(training_dataset, tmp_path, "--resume", steps=40)
    assert entries(tmp_path)[-1]["step"] == 3 + MAX_SKIPPED_IN_A_ROW - 1
    weights = {path.name: load_file(path) for path in tmp_path.glob("*.safetensors")}
    assert weights.keys() == before.keys()
    assert all(value.isfinite().all() for values in weights.values() for value in values.values())


@pytest.mark.parametrize("val", [(3,), ()])
def test_weights_that_a_step_ruined_are_not_saved(tmp_path, val):
    """The first update is finite, and its weights are far too large."""
    write_dataset(tmp_path / "dataset", train=(5, 6), val=val)
    with pytest.raises(UserError, match="a --learning-rate below 1e\\+30"):
        run(tmp_path / "dataset", tmp_path / "run", "--learning-rate", 1e30, "--validate-every", 1, steps=5)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()


# --- the dVAE --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> str:
    """A tar file of images."""
    path = tmp_path_factory.mktemp("squares") / "images.tar"
    write_image_tar(path, 30)
    return str(path)


def train_images(images: str, output: Path, bad: range, monkeypatch, method: str = "relaxed", steps: int = 4) -> None:
    real, count = train_dvae.average_gradients, iter(range(1, 1000))

    def spoilt(parameters, world):
        parameters = list(parameters)
        if next(count) in bad:
            next(p for p in parameters if p.grad is not None).grad.fill_(math.inf)
        real(parameters, world)

    monkeypatch.setattr(train_dvae, "average_gradients", spoilt)
    torch.manual_seed(0)
    model = DVAE(DVAEConfig(hidden=8, vocabulary=32, decoder_input=16, image_size=64))
    config = DVAETrainingConfig(steps, batch_size=4, window=32, method=method)
    train_dvae.train(images, model, config, output, resume=False, report_every=2)


@pytest.mark.parametrize("method", ["relaxed", "quantised"])
def test_the_dvae_skips_a_bad_update(squares, tmp_path, monkeypatch, method):
    train_images(squares, tmp_path, range(2, 3), monkeypatch, method)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["skipped_updates"] == 1
    assert all(np.isfinite(value.numpy()).all() for value in load_file(tmp_path / "dvae.safetensors").values())


def test_the_dvae_never_ends_with_bad_weights(squares, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="the weights are not usable at step 4"):
        train_images(squares, tmp_path, range(3, 100), monkeypatch)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    with pytest.raises(UserError, match=f"{MAX_SKIPPED_IN_A_ROW} updates in a row"):
        train_images(squares, tmp_path / "long", range(1, 100), monkeypatch, steps=30)


# --- what train-dvae refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--learning-rate", "nan"), "--learning-rate is above 0"),
        (("--kl-weight", "nan"), "--kl-weight 0 or more"),
        (("--kl-weight", "-5"), "--kl-weight 0 or more"),
        (("--seed", 1 << 40), "below 2\\^31"),
        (("--vocabulary", 65_537), "give at most 65,536"),
    ],
)
def test_wrong_numbers(squares, tmp_path, arguments, message):
    options = ["--images", squares, "--steps", 1, "--output", tmp_path / "run", *arguments]
    with pytest.raises(UserError, match=message):
        train_dvae.main([str(option) for option in options])


def test_an_output_of_train_dvae_that_is_a_file(squares, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: File exists; a part of the path is a file"):
        train_dvae.main(["--images", squares, "--steps", "1", "--output", str(tmp_path / "file")])


def test_a_checkpoint_of_train_dvae_that_is_cut(squares, tmp_path, monkeypatch):
    small = ("--hidden", "4", "--vocabulary", "16", "--window", "16", "--batch-size", "2")
    options = ["--images", squares, "--steps", "1", "--output", str(tmp_path), *small]
    assert train_dvae.main(options) == 0
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        (tmp_path / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(UserError, match=r"checkpoint\.pt is not readable"):
            train_dvae.main([*options, "--resume"])
    torch.save({"step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="is not a checkpoint of train-dvae"):
        train_dvae.main([*options, "--resume"])
    (tmp_path / "checkpoint.pt").write_bytes(whole)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        train_dvae.main([*options[:3], "2", *options[4:-8], "--output", str(tmp_path / "other"), *small])
