"""Short runs of the trainer, and the power that goes in the middle of one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from models.training import log as training_log
from models.training.train import main

STEPS = 9


def run(dataset: Path | str, output: Path, *others: object, steps: int = STEPS) -> int:
    return main(
        [
            str(argument)
            for argument in (
                "--dataset",
                dataset,
                "--size",
                "tiny",
                "--steps",
                steps,
                "--batch-size",
                4,
                "--output",
                output,
                "--validate-every",
                3,
                "--threads",
                1,
                *others,
            )
        ]
    )


def entries(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


@contextlib.contextmanager
def interrupted_at(step: int):
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, step)
        yield


def interrupt_at(monkeypatch, step: int) -> None:
    """The power goes at this step, after its line in the log."""
    log = training_log.Log.step

    def stop(self, done, *values):
        log(self, done, *values)
        if done == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_log.Log, "step", stop)
