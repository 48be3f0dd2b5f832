"""Local paths and URLs: join, open, read, write atomically, SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.errors import UserError

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the models that are part of the package."""


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a local file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def is_url(path: str | os.PathLike) -> bool:
    """Whether a path has a scheme (gs://, https://) rather than being local."""
    return "://" in os.fspath(path)


def join(directory: str | os.PathLike, name: str) -> str:
    """The path or URL of a name inside a local or remote directory."""
    return f"{os.fspath(directory).rstrip('/')}/{name}" if is_url(directory) else os.path.join(directory, name)


@contextlib.contextmanager
def open_read(path: str) -> Iterator[BinaryIO]:
    """Opens a local file or a URL for reading bytes.

    Raises OSError (FileNotFoundError if it is missing), and UserError for a URL that no installed package can read.
    """
    if not is_url(path):
        with open(path, "rb") as file:
            yield file
        return
    try:
        import fsspec  # only needed for remote files

        opened = fsspec.open(path, "rb")
    except (ImportError, ValueError) as error:
        raise UserError(f"{path}: {error}; the extra `remote` has the packages for such URLs") from None
    with opened as file:
        yield file


def read(path: str) -> bytes:
    """All bytes of a local file or a URL. Raises as `open_read`."""
    with open_read(path) as file:
        return file.read()


def write_atomically(path: str | os.PathLike, data: bytes | str) -> None:
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


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
