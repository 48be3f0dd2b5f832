"""The code in docs/python.md, run as it stands."""

from __future__ import annotations

import re
import shutil

import pytest

from models.data.format import read_manifest
from models.pixels import decode_rgb
from models.sampling import generate
from tests.support.datasets import write_dataset
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = dict(zip(re.findall(r"^## (.+)$", TEXT, re.M), re.findall(r"```python\n(.*?)```", TEXT, re.S), strict=True))


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_checkpoint):
    """The working folder: an image, a dataset, a checkpoint."""
    shutil.copy(ROOT / "sample" / "images" / "cat.jpg", tmp_path / "boat.jpg")
    write_dataset(tmp_path / "dataset")
    shutil.copytree(tiny_checkpoint, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(title: str) -> dict:
    names: dict = {}
    exec(compile(BLOCKS[title], title, "exec"), names)
    return names


def test_tokenize(folder):
    names = run("Tokenize an image")
    assert names["codes_N"].shape == (names["shape"].count,) == (1024,)
    assert names["reconstruction_HWC"].shape == names["view_HWC"].shape == (256, 256, 3)


def test_read(folder, capsys):
    names = run("Read a dataset")
    manifest = read_manifest("dataset")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + manifest.pairs("train") + manifest.pairs("val")
    assert names["codes"].shape == (1, 16) and names["sample"].caption.lower() in lines[-1]


def test_sample_draws_what_the_command_draws(folder):
    run("Sample an image")
    options = ["--prompt=a red cat in the snow", "--seed=1", "--count=2", "--temperature=0.9", "--top-p=0.95"]
    assert generate.main([*options, "--checkpoint=run", "--output=generated"]) == 0
    for index in range(2):
        expected = decode_rgb((folder / "generated" / f"{index:04d}.png").read_bytes())
        assert (decode_rgb((folder / f"{index}.png").read_bytes()) == expected).all()
