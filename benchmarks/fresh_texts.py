"""Captions and phrases written without a look at what the rules do with them, to judge the rules by.

Each file of `texts/` has a line a text, below a line "== KIND"."""

from __future__ import annotations

from pathlib import Path


def read_texts(name: str) -> dict[str, list[str]]:
    """The texts of `texts/NAME.txt` by kind, in the order of the file."""
    texts: dict[str, list[str]] = {}
    kind = ""
    for line in (Path(__file__).parent / "texts" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            kind = line.removeprefix("== ")
            texts[kind] = []
        else:
            texts[kind].append(line)
    return texts
