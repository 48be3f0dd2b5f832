"""What every room shares: the error that a user reads, and files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


class UserError(Exception):
    """Wrong usage or unusable input: one line that names the place and the mend. Commands print it and exit with 2."""


def write_whole(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes under a temporary name beside `path`, then renames: readers see the old file or the new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
