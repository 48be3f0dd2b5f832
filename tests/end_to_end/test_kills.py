"""SIGKILL at any moment of a job: after a run to the end, the bytes are those of an undisturbed run, nothing more."""

from __future__ import annotations

import fcntl
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from beam_jobs import build_dataset
from models.data.format import read_manifest
from models.errors import UserError
from pipeline.inspection.faults import verify
from tests.support.launcher import Launcher
from tests.support.paths import files_of
from tests.support.records import write_records


def test_two_writers_at_once(images, tiny_dvae, tmp_path):
    """The second is refused in one line and the first goes on."""
    options = [
        f"--source=img2dataset={images}/*.tar",
        f"--image-tokenizer={tiny_dvae}",
        "--direct_num_workers=1",
        f"--output={tmp_path / 'out'}",
    ]
    work = tmp_path / "out" / "_work"
    work.mkdir(parents=True)
    with open(work / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another pairmill is writing there; wait for its end"):
            build_dataset.main(options)
    assert build_dataset.main(options) == 0
    assert verify(str(tmp_path / "out"), 1) == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Sixty records in twenty shards."""
    folder = tmp_path_factory.mktemp("kills") / "dataset"
    write_records(folder, 60, shards=19, draws=2)
    return folder


@pytest.mark.parametrize("command", ["build", "encode", "repack"])
def test_killed_at_random_and_run_again(command, images, tiny_dvae, dataset, elsewhere, tmp_path, exhaustive):
    if command != "build" and not exhaustive:
        pytest.skip("only with --exhaustive: a minute each; these are parts of build")
    inputs = {
        # The source holds its images: select, read them, encode, in one job.
        "build": [f"--source=img2dataset={images}/*.tar", f"--image-tokenizer={tiny_dvae}", "--pairs-per-unit=6"],
        "encode": [f"--images={images}", f"--image-tokenizer={tiny_dvae}"],
        "repack": [f"--dataset={dataset}"],
    }
    options = [command, *inputs[command], "--pairs-per-shard=6", "--direct_num_workers=1"]
    if command != "repack":
        options += ["--draws=2", "--rows-per-file=1"]
    warm = elsewhere.run([*options, f"--output={tmp_path / 'warm'}"], tmp_path)
    assert warm[0] == 0  # the model's file is in memory now
    begun = time.monotonic()
    assert elsewhere.run([*options, f"--output={tmp_path / 'whole'}"], tmp_path)[0] == 0
    takes_s = time.monotonic() - begun
    whole, output = files_of(tmp_path / "whole"), tmp_path / "killed"
    kill_and_run_again(elsewhere, [*options, f"--output={output}"], output, whole, takes_s, 50 if exhaustive else 1)
    assert files_of(output) == whole == files_of(tmp_path / "warm")
    assert verify(str(output), 1) == [] and len(read_manifest(output).shards) >= 4
    assert not [path for path in output.rglob("*") if path.is_dir() and not any(path.iterdir())]


def kill_and_run_again(
    elsewhere: Launcher, command: list[str], output: Path, whole: dict[str, bytes], takes_s: float, kills: int
) -> None:
    """Kills a command so often, now and then lets it come to its end, and compares what is there then."""
    chance, killed = random.Random(11), 0
    while killed < kills:
        status, said = elsewhere.run(command, output.parent, kill_after_s=chance.uniform(0.02, 1.0) * takes_s)
        killed += status == -signal.SIGKILL
        if status != -signal.SIGKILL or chance.random() < 0.2:  # from the start again, or on with what is left
            if status == -signal.SIGKILL:
                status, said = elsewhere.run(command, output.parent)
            assert status == 0 or is_finished(said)
            assert files_of(output) == whole
            shutil.rmtree(output)
    if not (output / "manifest.json").exists():
        assert elsewhere.run(command, output.parent)[0] == 0


def is_finished(said: str) -> bool:
    """Whether the process that was killed had done all but end."""
    return "holds a finished" in said


def test_a_repair_that_is_killed_at_random_and_run_again(dataset, elsewhere, tmp_path, exhaustive):
    damaged = Path(shutil.copytree(dataset, tmp_path / "damaged"))
    for shard in read_manifest(dataset).shards[::3]:
        data = bytearray((damaged / shard.path).read_bytes())
        data[600] ^= 1
        (damaged / shard.path).write_bytes(data)
    whole, own, chance = tmp_path / "whole", tmp_path / "own", random.Random(12)
    shutil.copytree(damaged, whole)
    begun = time.monotonic()
    assert elsewhere.run(["verify", str(whole), "--workers=1", "--repair"], tmp_path)[0] == 0
    takes_s = time.monotonic() - begun
    for _ in range(50 if exhaustive else 1):
        shutil.copytree(damaged, own)
        repair = ["verify", str(own), "--workers=1", "--repair"]
        while elsewhere.run(repair, tmp_path, kill_after_s=chance.uniform(0.2, 1.1) * takes_s)[0] == -signal.SIGKILL:
            pass
        assert elsewhere.run(repair, tmp_path)[0] == 0
        assert files_of(own) == files_of(whole) != files_of(damaged)
        shutil.rmtree(own)
