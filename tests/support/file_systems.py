"""File systems of a test's own: a full one, a read-only one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these options (`size=16k`, `ro`) at a new folder. Skips the test where none may be mounted."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a file system takes a privileged user")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
