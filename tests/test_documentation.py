"""How extras are installed is told alike everywhere, and CONTRIBUTING names paths that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.paths import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
SOURCES = [path for top in ("beam_jobs", "models", "pipeline", "docker") for path in (ROOT / top).rglob("*")]
TEXT_SUFFIXES = (".md", ".py", ".sh", ".html", ".jinja", "Dockerfile")


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks of code, without their comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]


def test_extras_are_installed_from_the_clone():
    """pip would look for `pairmill[EXTRA]` in its index, where nothing of this name is published."""
    texts = [path for path in (*PAGES, *SOURCES) if path.name.endswith(TEXT_SUFFIXES)]
    assert texts and not [path for path in texts if "pairmill[" in path.read_text(encoding="utf-8")]


def test_paths_in_the_commands_for_contributors_exist():
    words = [word for line in commands(ROOT / "CONTRIBUTING.md") for word in line.split()]
    named = [word for word in words if word.startswith(("tests/", "pipeline/", "models/", "beam_jobs/", "docs/"))]
    assert named and not [word for word in named if not (ROOT / word).exists()]
