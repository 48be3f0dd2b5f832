"""Processes of one machine and its GPUs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from models.tokenizers import gpus
from tests.support.narrowing import required
from tests.support.paths import ROOT

TAKE = """
import sys, types
torch = sys.modules["torch"] = types.ModuleType("torch")  # the real one takes seconds to import
torch.cuda = types.SimpleNamespace(device_count=lambda: int(sys.argv[1]))
from models.tokenizers.gpus import device_of_process
print(device_of_process("cuda"), device_of_process("cuda"), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def processes(number: int, gpu_count: int, folder: str) -> Iterator[list[str]]:
    """What that many processes, all alive, say of their devices, asked twice each."""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TAKE, str(gpu_count)],
                    cwd=ROOT,
                    env={"TMPDIR": folder, "PYTHONPATH": str(ROOT)},
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for _ in range(number)
        ]
        yield [required(process.stdout).readline().strip() for process in started]
        for process in started:
            required(process.stdin).close()


def test_processes_take_the_gpus_in_turn(tmp_path):
    with processes(3, 2, str(tmp_path)) as devices:
        assert Counter(devices) == {"cuda:0 cuda:0": 2, "cuda:1 cuda:1": 1}
    with processes(1, 2, str(tmp_path)) as devices:  # the others have ended, and freed theirs
        assert devices == ["cuda:0 cuda:0"]


@pytest.mark.parametrize(("device", "count"), [("cpu", 8), ("cuda", 1), ("cuda", 0)])
def test_no_choice(device, count, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert gpus.device_of_process(device) == device
