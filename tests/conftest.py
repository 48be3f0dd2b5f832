"""The order of tests, their option, and what most of them import."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import repetition

ROOT = Path(__file__).parent.parent
pytest_plugins = ["tests.support.fixtures"]
LONG = tuple(f"tests/{folder}/" for folder in ("end_to_end", "engines", "jobs", "training"))  # whole jobs and runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="repeat what is random (kills, flipped bits, mutations) many times",
    )
    parser.addoption("--processes", type=int, default=1, help="run the files of tests in so many processes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--exhaustive"):
        repetition.factor = repetition.TIMES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first: of several processes none is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def files_of(directory: str | os.PathLike) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    base = Path(directory)
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("*")) if path.is_file()}
