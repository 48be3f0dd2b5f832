"""The trainer goes on exactly where it was stopped, killed or without room, and refuses what it cannot continue."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from models import files
from models.errors import UserError
from models.training.log import start_log
from tests.support.datasets import write_dataset, write_manifest
from tests.support.paths import files_of
from tests.support.training import STEPS, entries, interrupt_at, run

pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_killed_run_resumes_exactly(training_dataset, undisturbed, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, step)
        run(training_dataset, tmp_path)
    assert run(training_dataset, tmp_path, "--resume") == 0
    assert (tmp_path / "log.jsonl").read_text() == (undisturbed / "log.jsonl").read_text()
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "averaged.safetensors", "config.json"])
def test_killed_between_the_checkpoint_and_the_files_to_draw_from(
    training_dataset, undisturbed, tmp_path, monkeypatch, name
):
    replace = os.replace

    def stop(temporary, path):
        if path.name == name and (tmp_path / "checkpoint-00000006.pt").exists():
            raise KeyboardInterrupt
        replace(temporary, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files.os, "replace", stop)
        run(training_dataset, tmp_path)
    assert run(training_dataset, tmp_path, "--resume") == 0
    assert files_of(tmp_path) == files_of(undisturbed)


def test_resumes_exactly_in_bfloat16(training_dataset, tmp_path, monkeypatch):
    assert run(training_dataset, tmp_path / "a", "--precision", "bfloat16", steps=4) == 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 4)
        run(training_dataset, tmp_path / "b", "--precision", "bfloat16", steps=4)
    assert run(training_dataset, tmp_path / "b", "--precision", "bfloat16", "--resume", steps=4) == 0
    assert entries(tmp_path / "a") == entries(tmp_path / "b")


def test_a_finished_run_can_be_made_longer(training_dataset, tmp_path):
    assert run(training_dataset, tmp_path, steps=3) == 0
    assert run(training_dataset, tmp_path, "--resume", steps=5) == 0
    assert [entry["step"] for entry in entries(tmp_path) if "validation" in entry] == [0, 3, 5]


def test_a_finished_run_says_so(training_dataset, undisturbed, capsys):
    before = (undisturbed / "log.jsonl").read_bytes()
    assert run(training_dataset, undisturbed, "--resume") == 0
    assert f"has {STEPS} steps already" in capsys.readouterr().out
    assert (undisturbed / "log.jsonl").read_bytes() == before


def test_a_torn_line_in_the_log_is_dropped(training_dataset, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 4)
        run(training_dataset, tmp_path)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "to')
    run(training_dataset, tmp_path, "--resume")
    assert entries(tmp_path) == entries(undisturbed)


def test_a_torn_line_with_another_behind_it_is_dropped(tmp_path):
    """As earlier versions of train-dvae left it."""
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "lo{"step": 2}\n{"step": 3}\n{"step": 4}\n')
    assert start_log(tmp_path, 3).read_text() == '{"step": 1}\n{"step": 3}\n'


def test_an_existing_checkpoint_without_resume(training_dataset, undisturbed):
    before = (undisturbed / "log.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"checkpoint\.pt exists; continue it with --resume"):
        run(training_dataset, undisturbed)
    assert (undisturbed / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "field, message",
    [
        ("image_tokenizer", "another image tokenizer"),
        ("text_tokenizer", "is not the tokenizer of the dataset's tokens"),
    ],
)
def test_a_dataset_of_another_tokenizer(training_dataset, undisturbed, tmp_path, field, message):
    manifest = write_dataset(tmp_path / "other", train=(5, 6), val=(3,))
    info = dataclasses.replace(getattr(manifest, field), fingerprint="f" * 64)
    write_manifest(tmp_path / "other", dataclasses.replace(manifest, **{field: info}))
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path / "other", undisturbed, "--resume")
    assert "\n" not in str(error.value)


def test_other_settings(training_dataset, undisturbed):
    with pytest.raises(UserError, match=r"other settings \(seed 0 -> 1\)"):
        run(training_dataset, undisturbed, "--resume", "--seed", 1)


def test_other_shards(undisturbed, tmp_path):
    write_dataset(tmp_path / "other", train=(6, 5), val=(3,))
    with pytest.raises(UserError, match="its shards differ"):
        run(tmp_path / "other", undisturbed, "--resume", steps=STEPS + 1)


def test_a_damaged_checkpoint(training_dataset, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match=r"checkpoint\.pt is not readable"):
        run(training_dataset, tmp_path, "--resume")


def test_a_checkpoint_is_plain_data(undisturbed):
    state = torch.load(undisturbed / "checkpoint.pt", weights_only=True)
    assert state["step"] == STEPS and state["stream"]["version"] == 2


def test_a_full_disk_leaves_the_previous_checkpoint(training_dataset, tmp_path, monkeypatch):
    run(training_dataset, tmp_path, steps=3)
    before = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "model.safetensors", "config.json")}
    replace = os.replace

    def full(temporary, path):
        if path.name == "checkpoint.pt":
            raise OSError(28, "No space left on device")
        replace(temporary, path)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match="No space left on device; the previous one is intact"):
        run(training_dataset, tmp_path, "--resume", steps=5)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
