"""The order of tests, their option, and what most of them import."""

from __future__ import annotations

import pytest

from tests.support import repetition

pytest_plugins = ["tests.support.fixtures", "tests.support.stores"]
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
