"""The code in docs/reading.md, run as it stands."""

from __future__ import annotations

import re

import pytest

from models.data.format import read_manifest
from tests.support.paths import ROOT
from tests.support.records import write_records

TEXT = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
BLOCKS = dict(zip(re.findall(r"^## (.+)$", TEXT, re.M), re.findall(r"```python\n(.*?)```", TEXT, re.S), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `dataset` lies."""
    base = tmp_path_factory.mktemp("reading")
    write_records(base / "dataset", pairs=60, draws=2)
    return base


@pytest.mark.parametrize("title", BLOCKS)
def test_the_documented_way_reads_every_pair(title, folder, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found: dict = {}
    exec(compile(BLOCKS[title], title, "exec"), found)
    lines = capfd.readouterr().out.splitlines()
    manifest = read_manifest("dataset")
    if title.startswith("Training"):
        assert found["state"]["place"] == 24 and found["batch"].next_position == 32 and len(found["batch"].keys) == 8
    elif title.endswith("licences"):
        assert len(found["index"]) == 60 and len(found["english"]) == manifest.pairs("train")
    else:
        wanted = 60 if title == "Croissant" else manifest.pairs("train")
        assert sum("A " in line for line in lines) == wanted
