"""The trainer in processes of its own: several at once, killed ones, one on a disk that is full."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.errors import UserError
from models.training.train import main
from tests.conftest import ROOT
from tests.support.file_systems import mounted
from tests.support.training import STEPS, entries, interrupted_at, run

pytestmark = pytest.mark.usefixtures("tiny_size")
OPTIONS = ("--size", "tiny", "--steps", STEPS, "--batch-size", 4, "--validate-every", 3, "--threads", 1)


def command(*options: object, processes: int = 0) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port)]
    return [
        sys.executable,
        *(launcher if processes else []),
        str(ROOT / "tests" / "support" / "tiny_training.py"),
        *map(str, options),
    ]


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


def test_two_processes_equal_one(training_dataset, tmp_path):
    """Of the same global batch: whole models (DDP), and shared-out ones (FSDP2) in two parts, begun by one process."""
    one, ddp, fsdp = (tmp_path / name for name in ("one", "ddp", "fsdp"))
    same = (
        "--dataset",
        training_dataset,
        *OPTIONS,
        "--precision",
        "float32",
        "--schedule",
        "plateau",
        "--blank-captions",
        0.3,
    )
    with interrupted_at(5), pytest.raises(KeyboardInterrupt):
        main([str(option) for option in (*same, "--output", fsdp)])
    assert main([str(option) for option in (*same, "--output", one)]) == 0
    for options in (
        (*same, "--output", ddp),
        (*same, "--output", fsdp, "--resume", "--sharding", "fsdp", "--accumulate", 2),
    ):
        done = subprocess.run(command(*options, processes=2), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "2 processes" in done.stdout
    assert_same_but_for_rounding(one, ddp)
    assert_same_but_for_rounding(one, fsdp)


def test_parts_of_a_batch_equal_the_whole(training_dataset, tmp_path):
    run(training_dataset, tmp_path / "whole", "--precision", "float32")
    run(training_dataset, tmp_path / "parts", "--precision", "float32", "--accumulate", 4)
    assert_same_but_for_rounding(tmp_path / "whole", tmp_path / "parts")


def test_killed_at_a_random_moment_and_resumed(training_dataset, tmp_path, exhaustive):
    """By the system, at any place: in a step, while it logs, while it writes a checkpoint."""
    same = ("--dataset", training_dataset, *OPTIONS[:2], "--steps", 60, *OPTIONS[4:], "--precision", "float32")
    subprocess.run(command(*same, "--output", tmp_path / "whole"), check=True, capture_output=True)
    dice = random.Random(0)
    for attempt in range(20 if exhaustive else 1):
        output = tmp_path / f"{attempt}"
        for kills in range(100):
            process = subprocess.Popen(
                command(*same, "--output", output, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            if kills < (3 if exhaustive else 1):
                at = dice.randint(1, 59)
                while process.poll() is None and logged(output) < at:
                    time.sleep(0.001)
                process.kill()
            _, message = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -9, message.decode()
        assert (output / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
        for name in ("model.safetensors", "averaged.safetensors"):
            assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def logged(output: Path) -> int:
    path = output / "log.jsonl"
    return path.read_bytes().count(b"learning_rate") if path.exists() else 0


def test_a_full_disk(training_dataset, tmp_path):
    """A real one, of 8 MB: the run ends with a sentence, and goes on from the checkpoint when there is room."""
    with mounted(tmp_path / "disk", "size=8m") as disk:
        output = disk / "run"
        run(training_dataset, output, steps=3)
        before = {name: (output / name).read_bytes() for name in ("checkpoint.pt", "model.safetensors", "config.json")}
        filler = disk / "filler"
        with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(UserError, match="No space left on device"):
            run(training_dataset, output, "--resume", steps=STEPS)
        assert {name: (output / name).read_bytes() for name in before} == before
        filler.unlink()
        assert run(training_dataset, output, "--resume", steps=STEPS) == 0
        assert entries(output)[-1]["step"] == STEPS
