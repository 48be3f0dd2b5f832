"""How often property-based tests of hostile input repeat: with --exhaustive many times."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

TIMES = 50  # as many examples with --exhaustive
factor = 1  # set by conftest.py before the tests are imported


def examples(few: int, **more: Any) -> settings:
    """Settings of a test with so many examples, or TIMES as many."""
    return settings(max_examples=few * factor, deadline=None, **more)
