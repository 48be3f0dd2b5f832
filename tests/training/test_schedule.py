"""The learning rate follows neither the noise of single batches nor the options of a run, and never jumps."""

from __future__ import annotations

import itertools
import random

import pytest

from models.training import schedule
from models.training.schedule import Plateau, ScheduleStart, learning_rate, plateau_interval
from tests.support.datasets import write_dataset
from tests.support.training import entries, run

pytestmark = pytest.mark.usefixtures("tiny_size")


def rates(output) -> list[float]:
    return [entry["learning_rate"] for entry in entries(output) if "learning_rate" in entry]


def test_noise_of_batches_is_no_plateau():
    """A loss that falls from 5 to 3.2 nats in 500 updates, with the noise of small batches."""
    for seed in range(20):
        dice, plateau = random.Random(seed), Plateau()
        for step in range(1, 501):
            plateau.observe(3.2 + 1.8 * (1 - step / 500) + dice.gauss(0, 0.5))
            if step % plateau_interval(500, validated=False) == 0:
                plateau.update(plateau.take_mean())
        assert plateau.halvings == 0


def test_without_validation_no_single_batch_decides(tmp_path):
    write_dataset(tmp_path / "dataset", train=(5, 6), val=())
    run(tmp_path / "dataset", tmp_path / "run", "--learning-rate", 1e-12, "--validate-every", 1, steps=12)
    assert rates(tmp_path / "run")[1:] == [1e-12] * 11


@pytest.mark.parametrize("val", [(3,), ()])
def test_the_interval_of_checkpoints_does_not_decide_the_rate(tmp_path, monkeypatch, val):
    """The loss stands still, so that the rate is halved."""
    monkeypatch.setattr(schedule, "MIN_UPDATES", 2)
    write_dataset(tmp_path / "dataset", train=(5, 6), val=val)
    for every in (1, 5):
        run(tmp_path / "dataset", tmp_path / f"{every}", "--learning-rate", 1e-12, "--validate-every", every, steps=12)
    assert rates(tmp_path / "1") == rates(tmp_path / "5")
    assert min(rates(tmp_path / "1")) < 1e-12 or not val


@pytest.mark.parametrize("kind", ["cosine", "plateau", "wsd"])
@pytest.mark.parametrize("first", [20, 100])
def test_a_longer_run_goes_on_at_its_rate(kind, first):
    """At its end, and in its middle."""
    start = ScheduleStart.of(100)
    before = [learning_rate(step, 100, 1.0, kind, start=start) for step in range(first)]
    start.change_length(first, 100, kind)
    after = [learning_rate(step, 1000, 1.0, kind, start=start) for step in range(first, 1000)]
    assert after[0] == pytest.approx(before[-1], abs=0.05)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(after))
    assert after[-1] == (1.0 if kind == "plateau" else pytest.approx(0.1, abs=0.01))


def test_a_constant_rate_decays_over_the_last_fifth():
    rates = [learning_rate(step, 100, 1.0, "wsd", start=ScheduleStart.of(100, 4)) for step in range(101)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and set(rates[4:81]) == {1.0}
    assert rates[90] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)


def test_a_resumed_longer_run_goes_on_at_its_rate(training_dataset, tmp_path):
    options = ("--schedule", "cosine", "--learning-rate", 1.0e-3)
    run(training_dataset, tmp_path, *options, steps=6)
    run(training_dataset, tmp_path, *options, "--resume", steps=60)
    assert rates(tmp_path)[6:] == pytest.approx([1e-4] * 54)
