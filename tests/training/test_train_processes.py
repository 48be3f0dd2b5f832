"""The trainer in processes of its own: several at once, killed ones, one on a disk that is full."""

from __future__ import annotations

import concurrent.futures
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.errors import UserError
from models.training.distributed import World
from models.training.initial_weights import read_weights
from models.training.options import RunOptions, TransformerTrainingConfig
from models.training.shards import folder_in, folder_name, make_folder
from models.training.train import main
from models.training.validation import Validation
from models.transformer.model import Transformer, TransformerConfig
from tests.support.datasets import write_dataset
from tests.support.file_systems import mounted
from tests.support.launcher import Launcher
from tests.support.paths import ROOT
from tests.support.training import STEPS, entries, interrupted_at, run

pytestmark = pytest.mark.usefixtures("tiny_size")
OPTIONS = ("--size", "tiny", "--steps", STEPS, "--batch-size", 4, "--validate-every", 3, "--threads", 1)


def train_in_two(elsewhere: Launcher, folder: Path, *options: object) -> str:
    """Runs two ranks, as torchrun would (tests/tokenizers/test_dvae.py has it); returns what the first one prints."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def run_rank(rank: int) -> tuple[int, str]:
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        printed = folder / f"printed-{rank}"
        return elsewhere.run(["train", *options], folder, environment=environment, printed=printed)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(run_rank, range(2)))
    assert [status for status, _ in ended] == [0, 0], ended
    return (folder / "printed-0").read_text()


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


SAME = (*OPTIONS, "--precision", "float32", "--schedule", "plateau", "--blank-captions", 0.3)


@pytest.fixture(scope="module")
def runs(training_dataset, elsewhere, tiny_size, tmp_path_factory) -> dict[str, Path]:
    """Of the same global batch: one process, and two with whole models (DDP), and with shared-out ones (FSDP2) in two
    parts, begun by one process."""
    folder = tmp_path_factory.mktemp("runs")
    one, ddp, fsdp = (folder / name for name in ("one", "ddp", "fsdp"))
    same = ("--dataset", training_dataset, *SAME)
    with interrupted_at(5), pytest.raises(KeyboardInterrupt):
        main([str(option) for option in (*same, "--output", fsdp)])
    assert main([str(option) for option in (*same, "--output", one)]) == 0
    for options in (
        (*same, "--output", ddp),
        (*same, "--output", fsdp, "--resume", "--sharding", "fsdp", "--accumulate", 2),
    ):
        assert "2 processes" in train_in_two(elsewhere, folder, *options)
    return {"one": one, "ddp": ddp, "fsdp": fsdp}


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_equal_one(runs, sharding):
    assert_same_but_for_rounding(runs["one"], runs[sharding])


def test_shards_are_resumed_by_another_number_of_processes(runs, training_dataset, tmp_path):
    """Each of two ranks has written its own; one process goes on as the run that had one all the time."""
    for name in ("one", "fsdp"):
        shutil.copytree(runs[name], tmp_path / name)
        longer = ("--dataset", training_dataset, *SAME, "--steps", STEPS + 3, "--output", tmp_path / name, "--resume")
        assert main([str(option) for option in longer]) == 0
    assert_same_but_for_rounding(tmp_path / "one", tmp_path / "fsdp")
    left = sorted(path.name for path in (tmp_path / "fsdp").glob("checkpoint*"))
    assert left == ["checkpoint-00000009.pt", "checkpoint-00000009.shards", "checkpoint-00000012.pt", "checkpoint.pt"]


def test_no_rank_writes_the_whole(runs):
    state = torch.load(runs["fsdp"] / "checkpoint.pt", weights_only=True)
    assert not {"weights", "optimiser", "average"} & state.keys()
    assert state["shards"]["folder"] == f"checkpoint-{STEPS:08d}.shards"
    sizes = [path.stat().st_size for path in (runs["fsdp"] / state["shards"]["folder"]).iterdir()]
    whole = (runs["one"] / "checkpoint.pt").stat().st_size
    assert len(sizes) == 6 and max(sizes) < whole / 3 and 0.8 * whole < sum(sizes) < 1.2 * whole
    assert len(list(runs["fsdp"].glob("*.shards"))) == 2  # --keep


@pytest.mark.parametrize(("averaged", "name"), [(False, "model"), (True, "averaged")])
def test_others_read_the_weights_of_shards(runs, averaged, name):
    weights = read_weights(runs["fsdp"], "--init-from", averaged)
    assert any(key.startswith("text_head") for key in weights)
    for key, value in load_file(runs["fsdp"] / f"{name}.safetensors").items():
        assert torch.equal(weights[key].half(), value)


def lose_the_first(shards: Path) -> None:
    sorted(shards.iterdir())[0].unlink()


def lose_the_last(shards: Path) -> None:
    for path in sorted(shards.iterdir())[-3:]:  # of the last rank
        path.unlink()


def cut_one(shards: Path) -> None:
    path = sorted(shards.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [lose_the_first, lose_the_last, cut_one, shutil.rmtree])
def test_damaged_shards_are_one_line(runs, training_dataset, tmp_path, damage):
    shutil.copytree(runs["fsdp"], tmp_path / "run")
    damage(tmp_path / "run" / f"checkpoint-{STEPS:08d}.shards")
    with pytest.raises(UserError, match=r"--resume: .*shards is not readable") as raised:
        run(training_dataset, tmp_path / "run", "--resume", *SAME[4:])
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"--init-from: .*shards is not readable"):
        read_weights(tmp_path / "run", "--init-from")


def test_a_checkpoint_names_no_folder_elsewhere(tmp_path):
    for name in ("../x.shards", "checkpoint-1/../x", "checkpoint-00000009.shards/..", None):
        with pytest.raises(UserError, match="as its shards"):
            folder_in(tmp_path, name)
    assert folder_in(tmp_path, folder_name(9)) == tmp_path / "checkpoint-00000009.shards"


def test_a_folder_that_a_rank_does_not_see_is_not_used(tmp_path, monkeypatch):
    assert make_folder(tmp_path / "shards", World()) and (tmp_path / "shards").is_dir()
    monkeypatch.setattr(World, "any", lambda self, value: True)
    assert not make_folder(tmp_path / "shards", World()) and not (tmp_path / "shards").exists()


def test_fewer_validation_pairs_than_processes(elsewhere, tmp_path):
    """One pair in the last batch of the validation: the second process has none, but shards that the first needs."""
    write_dataset(tmp_path / "dataset", train=(5, 6), val=(5,))
    same = ("--dataset", tmp_path / "dataset", *OPTIONS[:2], "--steps", 1, *OPTIONS[4:], "--precision", "float32")
    main([str(option) for option in (*same, "--output", tmp_path / "one")])
    both = (*same, "--output", tmp_path / "two", "--sharding", "fsdp")
    train_in_two(elsewhere, tmp_path, *both)
    assert_same_but_for_rounding(tmp_path / "one", tmp_path / "two")


TWO_RANKS = """
import datetime, functools, os, sys, time
import torch.distributed as dist
from models.training.distributed import distributed_world
dist.init_process_group = functools.partial(dist.init_process_group, timeout=datetime.timedelta(seconds=5))
os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[1]}
first = bool(other := os.fork())
os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(int(not first))
with distributed_world() as world:
    if world.is_main:
        time.sleep(8)
    world.barrier()
sys.stdout.write(f"rank {world.rank}\\n")
sys.stdout.flush()
os._exit(os.waitpid(other, 0)[1] if first else 0)
"""


def test_other_processes_wait_for_the_first_one():
    """For longer than an exchange may take: it draws the prompts, or writes a large checkpoint."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", TWO_RANKS, str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert (done.returncode, sorted(done.stdout.split("\n"))) == (0, ["", "rank 0", "rank 1"]), done.stderr


def test_validation_is_split_as_an_update_is(training_dataset):
    config = TransformerTrainingConfig(1, 4, 1e-3)
    whole, parts = (
        Validation.read(training_dataset, config, World(), RunOptions(accumulate=parts)) for parts in (1, 4)
    )
    assert [len(batch.text_BT) for batch in whole.batches] == [3]
    assert [len(batch.text_BT) for batch in parts.batches] == [1, 1, 1]
    model = Transformer(TransformerConfig(2, 2, 8, 512, 32, text_length=16, grid=4))
    splits: list[dict[str, Any]] = [*parts.losses(model)]
    wholes: list[dict[str, Any]] = [*whole.losses(model)]
    for split, expected in zip(splits, wholes, strict=True):
        assert split.keys() == expected.keys()
        for name, value in split.items():
            assert value == pytest.approx(expected[name], rel=1e-5)


def test_parts_of_a_batch_equal_the_whole(training_dataset, tmp_path):
    run(training_dataset, tmp_path / "whole", "--precision", "float32")
    run(training_dataset, tmp_path / "parts", "--precision", "float32", "--accumulate", 4)
    assert_same_but_for_rounding(tmp_path / "whole", tmp_path / "parts")


def test_killed_at_a_random_moment_and_resumed(training_dataset, elsewhere, tmp_path, exhaustive):
    """By the system, at any place: in a step, while it logs, while it writes a checkpoint."""
    same = ("--dataset", training_dataset, *OPTIONS[:2], "--steps", 60, *OPTIONS[4:], "--precision", "float32")
    assert elsewhere.run(["train", *same, "--output", tmp_path / "whole"], tmp_path)[0] == 0
    dice = random.Random(0)
    for attempt in range(20 if exhaustive else 1):
        output = tmp_path / f"{attempt}"
        again = ["train", *same, "--output", output, "--resume"]
        for _ in range(3 if exhaustive else 1):
            at = dice.randint(1, 59)
            killed, _ = elsewhere.run(again, tmp_path, kill_when=lambda: logged(output) >= at)  # noqa: B023
            assert killed in (0, -signal.SIGKILL)
        status, said = elsewhere.run(again, tmp_path)
        assert status == 0, said
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
