"""SIGKILL at any moment of a job: after a run to the end, the bytes are those of an undisturbed run, nothing more."""

from __future__ import annotations

import fcntl
import random
import shutil
import signal
import time

import pytest

from beam_jobs import build_dataset
from models.data.format import read_manifest
from models.errors import UserError
from pipeline.inspection.faults import verify
from tests.conftest import files_of
from tests.support.launcher import launcher


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


def test_killed_at_random_and_run_again(images, tiny_dvae, tmp_path, exhaustive):
    chance = random.Random(11)
    # The source holds its images: select, read them, encode, in one job.
    options = [
        "build",
        f"--source=img2dataset={images}/*.tar",
        f"--image-tokenizer={tiny_dvae}",
        "--draws=2",
        "--pairs-per-unit=6",
        "--pairs-per-shard=6",
        "--rows-per-file=1",
        "--direct_num_workers=1",
    ]
    kills = 50 if exhaustive else 1
    with launcher(tmp_path, "build") as builds:
        assert builds.run([*options, f"--output={tmp_path / 'warm'}"])[0] == 0  # the model's file is in memory now
        begun = time.monotonic()
        assert builds.run([*options, f"--output={tmp_path / 'whole'}"])[0] == 0
        takes_s = time.monotonic() - begun
        whole, output = files_of(tmp_path / "whole"), tmp_path / "killed"
        killed = 0
        while killed < kills:
            status, _ = builds.run([*options, f"--output={output}"], kill_after_s=chance.uniform(0.02, 1.0) * takes_s)
            assert status in (0, -signal.SIGKILL)
            killed += status != 0
            if status == 0 or chance.random() < 0.2:  # from the start again, or on with what the killed one left
                if status:
                    assert builds.run([*options, f"--output={output}"])[0] == 0
                assert files_of(output) == whole
                shutil.rmtree(output)
        if not (output / "manifest.json").exists():
            assert builds.run([*options, f"--output={output}"])[0] == 0
    assert files_of(output) == whole == files_of(tmp_path / "warm")
    assert verify(str(output), 1) == [] and len(read_manifest(output).shards) >= 4
    assert not [path for path in output.rglob("*") if path.is_dir() and not any(path.iterdir())]
