"""Runs that the system stops, that meet another run, or whose readers fail: one line, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch

from models.data.shard_file import ShardFile
from models.errors import UserError
from models.tokenizers.dvae import DVAE, DVAEConfig
from models.training import log as training_log
from models.training import train_dvae
from models.training.dvae_options import DVAETrainingConfig
from models.training.run_folder import TERMINATED_STATUS, TerminatedError, lock_folder
from tests.support.datasets import write_dataset
from tests.support.images import write_image_tar
from tests.support.narrowing import required
from tests.support.paths import ROOT, files_of
from tests.support.training import entries, run

pytestmark = pytest.mark.usefixtures("tiny_size")


def at_step(monkeypatch, step: int, act) -> None:
    """Calls `act` once the step is in the log."""
    log = training_log.Log.step

    def acting(self, done, *values):
        log(self, done, *values)
        if done == step:
            act()

    monkeypatch.setattr(training_log.Log, "step", acting)


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_leaves_a_checkpoint_of_the_step(training_dataset, undisturbed, tmp_path, monkeypatch, capsys, workers):
    """Sent to the readers too, as batch systems do."""

    def terminate():
        for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
            os.kill(required(process.pid), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_step(patch, 5, terminate)
        assert run(training_dataset, tmp_path, "--workers", workers) == TERMINATED_STATUS == 143
    assert capsys.readouterr().err.endswith(
        "pairmill: stopped by SIGTERM after step 5; the same command with --resume continues from there\n"
    )
    assert signal.getsignal(signal.SIGTERM) == before
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5
    assert run(training_dataset, tmp_path, "--resume") == 0
    assert entries(tmp_path) == entries(undisturbed)
    name = "model.safetensors"
    assert files_of(tmp_path)[name] == files_of(undisturbed)[name]


def test_a_second_run_in_one_folder_is_refused(training_dataset, tmp_path):
    with lock_folder(tmp_path):
        for options in ((), ("--resume",)):
            with pytest.raises(UserError, match="another run is writing there; wait for its end"):
                run(training_dataset, tmp_path, *options)
    assert run(training_dataset, tmp_path, steps=1) == 0
    assert "lock" not in files_of(tmp_path)


def test_a_reader_that_the_system_kills(training_dataset, tmp_path, monkeypatch):
    def kill():
        for process in multiprocessing.active_children():
            process.kill()
            process.join()

    at_step(monkeypatch, 2, kill)
    with pytest.raises(UserError, match=r"DataLoader worker .* fewer --workers") as error:
        run(training_dataset, tmp_path, "--workers", 1, steps=400)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["bytes", "gone"])
def test_a_shard_that_a_reader_cannot_read(tmp_path, monkeypatch, damage):
    manifest = write_dataset(tmp_path / "dataset", train=(5, 6), val=())
    shard = tmp_path / "dataset" / next(shard.path for shard in manifest.shards if shard.split == "train")
    if damage == "bytes":
        shard.write_bytes(shard.read_bytes()[:-700] + b"x" * 700)
    else:

        def gone(*_, **__):
            raise FileNotFoundError(2, "No such file or directory", "shard.tar")

        monkeypatch.setattr(ShardFile, "__init__", gone)
    with pytest.raises(UserError, match=shard.name if damage == "bytes" else "a reader of --workers failed") as error:
        run(tmp_path / "dataset", tmp_path / "run", "--workers", 1, steps=4)
    assert "\n" not in str(error.value)


def test_sigterm_leaves_a_checkpoint_of_the_dvae(tmp_path, monkeypatch):
    write_image_tar(tmp_path / "images.tar", 15)
    real, count = train_dvae.average_gradients, iter(range(1, 100))

    def signalled(parameters, world):
        real(parameters, world)
        if next(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def train(output, resume):
        torch.manual_seed(0)
        model = DVAE(DVAEConfig(hidden=4, vocabulary=16, decoder_input=8, image_size=64))
        config = DVAETrainingConfig(3, batch_size=2, window=16)
        train_dvae.train(str(tmp_path / "images.tar"), model, config, tmp_path / output, resume)

    train("whole", resume=False)
    monkeypatch.setattr(train_dvae, "average_gradients", signalled)
    with pytest.raises(TerminatedError, match="stopped by SIGTERM after step 2"):
        train("stopped", resume=False)
    train("stopped", resume=True)
    whole, stopped = ((tmp_path / name / "dvae.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    with lock_folder(tmp_path / "whole"), pytest.raises(UserError, match="another run is writing there"):
        train("whole", resume=True)


CRASH = """
import torch
from models.process_end import run_as_process
from models.training.readers import reading


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield 1


def command():
    with reading(torch.utils.data.DataLoader(Endless(), num_workers=1)) as batches:
        next(batches)
        raise RuntimeError("a bug")


run_as_process(command)
"""


def test_a_run_that_fails_does_not_wait_for_its_readers():
    """The traceback keeps them alive until `multiprocessing` ends them by SIGTERM, which they ignore during a run."""
    ended = subprocess.run([sys.executable, "-c", CRASH], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.endswith("RuntimeError: a bug\n")
