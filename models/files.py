"""Local paths and URLs: join, open, read, list, write atomically, SHA-256."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from models.errors import UserError

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the models that are part of the package."""


TEMPORARY_SUFFIX = ".tmp"
"""Of a file that is being written; it is renamed when it is complete."""


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a local file or a URL, in hex."""
    with open_read(os.fspath(path)) as file:
        return _digest(file)


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


def exists(path: str) -> bool:
    """Whether a local path or a URL names something. Raises UserError for a URL that no installed package can read."""
    if not is_url(path):
        return os.path.exists(path)
    with _file_system(path) as (file_system, location):
        return bool(file_system.exists(location))


def size_of(path: str) -> int:
    """Bytes of a local file or a URL. Raises FileNotFoundError for anything but a file, and as `exists`."""
    if not is_url(path):
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        return os.path.getsize(path)
    with _file_system(path) as (file_system, location):
        if not file_system.isfile(location):
            raise FileNotFoundError(path)
        return int(file_system.size(location))


def can_list(folder: str) -> bool:
    """Whether the files of a folder can be listed: plain web servers have no lists."""
    return not folder.startswith(("http://", "https://"))


def list_files(folder: str) -> list[str]:
    """Every file below a local folder or a URL, as paths relative to it, sorted; [] if it does not exist. Raises
    UserError for a URL that has no lists, and as `exists`."""
    if not can_list(folder):
        raise UserError(
            f"{folder}: a web server does not list its files; copy the folder, or name it by s3:// or gs://"
        )
    if is_url(folder):
        with _file_system(folder) as (file_system, location):
            base = location.rstrip("/") + "/"
            return sorted(path.removeprefix(base) for path in file_system.find(location))
    found = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in found)


@contextlib.contextmanager
def _file_system(url: str) -> Iterator[tuple[Any, str]]:
    """fsspec's file system of a URL, and the location there. Whatever it raises but FileNotFoundError is a UserError:
    each store's client has exceptions of its own for credentials and networks."""
    try:
        from fsspec.core import url_to_fs  # only needed for remote files

        found = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: {error}; the extra `remote` has the packages for such URLs") from None
    try:
        yield found
    except FileNotFoundError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"can't look up {url}: {cause}; check address, network and credentials") from error


def write_atomically(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes under a temporary name beside `path`, then renames: readers see the old file or the new one. Removes what
    a killed process has left in that folder."""
    with written_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def written_atomically(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file that gets the name `path` when the block ends without an error, for what is too large to hold twice."""
    path = Path(path)
    _remove_leftovers(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_HELD}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "wb") as file:
            with contextlib.suppress(OSError):  # some file systems of networks have no locks
                fcntl.flock(file, fcntl.LOCK_EX)  # until the process ends, however it does
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_HELD = ".held"
"""In the names of temporary files that are locked while they are written."""
_LEFT_AFTER_S = 60.0  # from making a file to locking it


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(f".*{_HELD}{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:  # OSError: held, or removed meanwhile
            if os.fstat(file.fileno()).st_mtime < time.time() - _LEFT_AFTER_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def take_lock(path: str | os.PathLike, shared: bool = False) -> IO[bytes] | None:
    """The local file `path`, made if it is missing and locked until it is closed or the process ends, however it does.

    None if another process holds it. A file system without locks keeps nobody out.
    """
    while True:
        file = open(path, "ab+")  # noqa: SIM115 (kept open by the caller; NFS wants both modes for both kinds of lock)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            return file
        # The process that held the lock may have deleted the file between the two lines above.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
