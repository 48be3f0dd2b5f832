"""Which files a dataset was made of: name, bytes and sha256, as they were when the job began."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from pipeline.sources.paths import base_name, map_files, open_raw

BLOCK = 1 << 20


def describe_files(paths: Iterable[str]) -> list[dict[str, Any]]:
    """One entry a file, in the order given. A job that is resumed sees by it that its lists are the same."""
    return map_files(describe_file, paths)  # hashing leaves Python's lock


def describe_file(path: str) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open_raw(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"name": base_name(path), "bytes": size, "sha256": digest.hexdigest()}
