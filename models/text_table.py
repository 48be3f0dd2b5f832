"""Tables for the screen. Imports no package, so that a benchmark in a peer's environment can print one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models.errors import printable


def table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """Columns under a header; columns of numbers are aligned to the right. What could control a terminal is escaped."""
    lists = [list(row) for row in rows]
    cells = [
        header,
        *([f"{cell:,}" if isinstance(cell, int | float) else printable(str(cell)) for cell in row] for row in lists),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [bool(lists) and all(isinstance(row[i], int | float) for row in lists) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
