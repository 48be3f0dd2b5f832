"""Where the project is, and what files are in a folder."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files_of(directory: str | os.PathLike) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    base = Path(directory)
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("*")) if path.is_file()}
