"""Imports point one way: beam_jobs -> pipeline -> models, and models/ needs no Beam."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FORBIDDEN = {
    "models": {"apache_beam", "pipeline", "beam_jobs", "sample", "tests"},
    "pipeline": {"beam_jobs", "sample", "tests"},
    "beam_jobs": {"sample", "tests"},
}
FILES = [path.relative_to(ROOT) for room in FORBIDDEN for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_imports_upwards(path):
    imported = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert not imported & FORBIDDEN[path.parts[0]]


def test_selecting_and_fetching_need_no_torch():
    """It would take 200 MB of every worker."""
    check = "import sys, beam_jobs.select_pairs, beam_jobs.fetch_images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
