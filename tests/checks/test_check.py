"""A check from outside is one file and its line in the list."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from beam_jobs import select_pairs
from pipeline import filters
from pipeline.checks.check import Check
from pipeline.filters import CHECKS
from tests.support.paths import ROOT

WEEKDAYS = """
from pipeline.checks.check import Rejection

def check_weekday(candidate, caption, config):
    return Rejection("weekday", "monday") if "monday" in caption.text.casefold() else None
"""


@pytest.fixture
def weekday(tmp_path, monkeypatch) -> Check:
    """A check from outside, a file of its own: no caption about Mondays."""
    (tmp_path / "weekdays.py").write_text(WEEKDAYS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "weekdays", raising=False)
    return Check(importlib.import_module("weekdays").check_weekday, of_parts=True)


def test_a_check_from_outside(weekday, tmp_path, monkeypatch, capsys):
    """With its file and its line in the list it has its own reason in all that select writes and prints."""
    monkeypatch.setattr(filters, "CHECKS", (*CHECKS, weekday))
    texts = ("a brown dog runs across the beach .", "a cat sleeps on a wall on monday .")
    rows = [f"{text}\thttp://a.example/{number}.jpg\n" for number, text in enumerate(texts)]
    (tmp_path / "cc3m.tsv").write_text("".join(rows))
    output = tmp_path / "out"
    arguments = [f"--source=cc3m={tmp_path}/cc3m.tsv", f"--output={output}", "--direct_num_workers=1"]
    assert select_pairs.main(arguments) == 0
    [rejected] = pq.read_table(output / "rejects").to_pylist()
    assert (rejected["stage"], rejected["reason"], rejected["detail"]) == ("select", "weekday", "monday")
    assert pq.read_table(output / "pairs").num_rows == 1
    ledger = json.loads((output / "ledger.json").read_text())["sources"]["cc3m"]
    assert ledger["rejected"] == {"select": {"weekday": 1}}
    assert re.search(r"weekday +1\b", capsys.readouterr().out)
    (tmp_path / "cc3m.tsv").write_text(rows[1])
    assert select_pairs.main([*arguments, "--overwrite"]) == 0
    assert "no row was kept; 1 of 1 were weekday: " in capsys.readouterr().err


def test_a_check_is_one_file_and_its_lines_in_the_list(tmp_path):
    """In a copy of the package, so that a module cannot import what imports it."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pipeline" / "checks" / "weekdays.py").write_text(WEEKDAYS)
    listed = (tmp_path / "pipeline" / "filters.py").read_text()
    for line, more in (
        ("from pipeline.records import", "from pipeline.checks.weekdays import check_weekday\n"),
        ("    Check(check_url,", "    Check(check_weekday),\n"),
    ):
        assert line in listed
        listed = listed.replace(line, more + line, 1)
    (tmp_path / "pipeline" / "filters.py").write_text(listed)
    script = "from pipeline.filters import CHECKS; print(CHECKS[0].rejection.__module__)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.stdout, ended.stderr) == ("pipeline.checks.weekdays\n", "")
