"""The trainer's own shapes, recipes, precisions and schedules, and where its data come from."""

from __future__ import annotations

import json

import pytest
import torch

from models.errors import UserError
from models.sampling.checkpoint import load_model
from models.sampling.sampler import ImageRequest, sample_codes
from models.training import stability
from models.training.stability import LossScale
from tests.support.training import entries, interrupt_at, run

pytestmark = pytest.mark.usefixtures("tiny_size")
MODERN = ("--recipe", "modern", "--dropout", 0.1, "--layers", 2, "--heads", 4, "--width", 48)


def losses(output) -> list[float]:
    return [entry["total"] for entry in entries(output) if "total" in entry]


def test_modern_with_dropout_resumes_exactly_and_draws(training_dataset, tmp_path, monkeypatch):
    run(training_dataset, tmp_path / "whole", *MODERN)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 5)
        run(training_dataset, tmp_path / "killed", *MODERN)
    run(training_dataset, tmp_path / "killed", *MODERN, "--resume")
    for name in ("log.jsonl", "model.safetensors", "config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    described = json.loads((tmp_path / "whole" / "config.json").read_text())["model"]
    assert (described["layers"], described["heads"], described["width"]) == (2, 4, 48)
    assert described["recipe"] == "modern" and described["rotary"] and described["full_attention"]
    model, _ = load_model(tmp_path / "whole")
    codes_BN = sample_codes(model, [ImageRequest([1, 2], seed) for seed in range(2)])
    assert codes_BN.shape == (2, model.config.codes)


@pytest.mark.parametrize(
    "options",
    [
        ("--warm-up", 3),
        ("--clip", 0.01),
        ("--text-weight", 0.5),
        ("--beta1", 0.5),
        ("--weight-decay", 0.5),
        ("--schedule", "wsd"),
        ("--source-weight", "wit=3"),
        ("--lanes", 2),
    ],
    ids=str,
)
def test_settings_decide_the_weights(training_dataset, undisturbed, tmp_path, options):
    run(training_dataset, tmp_path, *options)
    assert entries(tmp_path) != entries(undisturbed)


def test_the_weight_of_the_text_is_that_of_both_losses(training_dataset, tmp_path):
    run(training_dataset, tmp_path, "--text-weight", 0.25, steps=1)
    for values in (entries(tmp_path)[0]["validation"], entries(tmp_path)[1]):
        assert values["total"] == pytest.approx(0.25 * values["text"] + 0.75 * values["image"], rel=1e-5)


def test_float16_learns_as_float32_does_and_resumes_exactly(training_dataset, tmp_path, monkeypatch):
    run(training_dataset, tmp_path / "single", "--precision", "float32", steps=6)
    run(training_dataset, tmp_path / "half", "--precision", "float16", steps=6)
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "single"), rel=0.02)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 4)
        run(training_dataset, tmp_path / "killed", "--precision", "float16", steps=6)
    run(training_dataset, tmp_path / "killed", "--precision", "float16", "--resume", steps=6)
    assert entries(tmp_path / "killed") == entries(tmp_path / "half")


def test_an_overflow_lowers_the_scale_and_skips_the_update(training_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(stability, "FIRST_LOSS_SCALE", 2.0**40)
    run(training_dataset, tmp_path, "--precision", "float16", steps=40)
    scale = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["scale"]["factor"]
    assert 2.0**5 < scale < 2.0**40
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]
    assert not any("skipped_updates" in entry for entry in entries(tmp_path))


def test_the_loss_scale_grows_again(monkeypatch):
    monkeypatch.setattr(stability, "GROWTH_INTERVAL", 3)
    scale = LossScale.of("float16")
    assert scale.shrink() and scale.factor == 2.0**15
    for _ in range(3):
        scale.grow()
    assert scale.factor == 2.0**16
    while scale.shrink():
        pass
    assert scale.factor == stability.MIN_LOSS_SCALE  # a further failure is counted as one of the run
    never = LossScale.of("bfloat16")
    never.grow()
    assert never.factor == 1 and not never.shrink()


def test_checkpoints_apart_from_validations(training_dataset, undisturbed, tmp_path):
    run(training_dataset, tmp_path, "--save-every", 2, "--keep", 9)
    assert [path.name[-4] for path in sorted(tmp_path.glob("checkpoint-*.pt"))] == list("24689")
    assert entries(tmp_path) == entries(undisturbed)


def test_a_checkpoint_of_before_these_settings_is_resumed(training_dataset, undisturbed, tmp_path):
    run(training_dataset, tmp_path, steps=6)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for part, names in (("model", ("recipe", "dropout")), ("training", ("recipe", "clip", "text_weight", "warm_up"))):
        for name in names:
            del state[part][name]
    torch.save(state, tmp_path / "checkpoint.pt")
    run(training_dataset, tmp_path, "--resume", steps=7)
    assert entries(tmp_path)[-1]["step"] == 7


def test_a_dataset_that_is_a_url(training_dataset, undisturbed, tmp_path):
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(f"{training_dataset}/", "/trained", recursive=True)
    with pytest.raises(UserError, match="--cache"):
        run("memory://trained", tmp_path / "run")
    run("memory://trained", tmp_path / "run", "--cache", tmp_path / "cache")
    files.rm("/trained", recursive=True)
    assert entries(tmp_path / "run") == entries(undisturbed)


@pytest.mark.parametrize(
    "options, message",
    [
        (("--width", 33), "the width is a multiple of the number of heads"),
        (("--recipe", "modern", "--heads", 16), "times 4 for rotary positions"),
        (("--source-weight", "wit"), "give SOURCE=NUMBER"),
        (("--source-weight", "nowhere=2"), "has no source 'nowhere'"),
        (("--dropout", 1), "--dropout 1.0: give a number from 0 to below 1"),
        (("--clip", 0), "--clip and --cache-gb are above 0"),
        (("--warm-up", -1), "--warm-up starts at 0"),
        (("--save-every", 0), "--save-every starts at 1"),
        (("--text-weight", 2), "--text-weight 2.0: give a share from 0 to 1"),
    ],
)
def test_wrong_numbers(training_dataset, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(training_dataset, tmp_path, *options)
