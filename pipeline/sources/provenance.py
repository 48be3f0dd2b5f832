"""Which files a dataset was made of: name, bytes and sha256, as they were when the job began."""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections.abc import Iterable
from typing import Any

from pipeline.sources.paths import base_name, open_raw

BLOCK = 1 << 20
FILES_AT_ONCE = 8  # hashing leaves Python's lock, reading waits


def describe_files(paths: Iterable[str]) -> list[dict[str, Any]]:
    """One entry a file, in the order given. A job that is resumed sees by it that its lists are the same."""
    with concurrent.futures.ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return list(pool.map(describe_file, paths))


def describe_file(path: str) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open_raw(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return {"name": base_name(path), "bytes": size, "sha256": digest.hexdigest()}
