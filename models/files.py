"""Local paths and URLs: join, open, read, list, write atomically, SHA-256."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from models.errors import UserError, not_installed, write_error

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the models that are part of the package."""


TEMPORARY_SUFFIX = ".tmp"
"""Of a file that is being written; it is renamed when it is complete."""

# Names of what the trainers write into their folders. Sampling, exporting and encoding read these.
CHECKPOINT_FILE = "checkpoint.pt"  # the state to resume from
LOG_FILE = "log.jsonl"
WEIGHTS_FILE, AVERAGED_FILE = "model.safetensors", "averaged.safetensors"  # of a transformer, to sample from
CONFIG_FILE = "config.json"  # of a transformer, to sample from; written last
PROMPT_GRIDS_FOLDER = "pictures"
DVAE_FILE, RECONSTRUCTIONS_FILE = "dvae.safetensors", "pictures.png"

HUB_WEIGHTS_FILE = "model.safetensors"
"""As transformers and the hub's library name the weights in a folder."""


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
        raise _no_reader(path, error) from None
    with opened as file:
        yield file


def _no_reader(url: str, error: ImportError | ValueError) -> UserError:
    """The error to raise for a URL that fsspec does not open: packages are missing, or nothing has such URLs."""
    if isinstance(error, ImportError):
        return not_installed(url, "remote")
    return UserError(f"{url}: {error}; name a local path, or a URL such as https://, s3:// or gs://")


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
        raise _no_reader(url, error) from None
    try:
        yield found
    except FileNotFoundError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"can't look up {url}: {cause}; check address, network and credentials") from error


def make_folder(path: str | os.PathLike) -> None:
    """Makes a local folder and those above it: all or, where one is refused, none. Raises WriteError then."""
    missing = missing_folders(path)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        remove_empty_folders(missing)
        raise write_error(error, path) from None


def missing_folders(path: str | os.PathLike) -> list[Path]:
    """The folders that `make_folder` would make, the deepest first."""
    return [folder for folder in (Path(path), *Path(path).parents) if not os.path.lexists(folder)]


def remove_empty_folders(folders: Iterable[Path]) -> None:
    """Removes those of these folders that are there and hold nothing, in their order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def output_folder(path: str | os.PathLike) -> Iterator[None]:
    """Makes a folder for what the block writes there. After an error those that it made are removed again, if they hold
    nothing. Raises WriteError as `make_folder`."""
    missing = missing_folders(path)
    make_folder(path)
    try:
        yield
    except BaseException:
        remove_empty_folders(missing)
        raise


def check_file_place(option: str, path: str | os.PathLike) -> None:
    """Raises UserError for a URL and for a local path at which no file can be written, for a command whose work takes
    long and comes before it."""
    if is_url(path):
        raise UserError(f"{option} {path}: name a local file")
    if os.path.isdir(path):
        raise UserError(f"{option} {path}: is a folder; name a file")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise UserError(f"{option} {path}: there is no folder {os.path.dirname(path)}; create it, or name another")
    temporary, file = _create_beside(Path(path))
    file.close()
    temporary.unlink()


def write_atomically(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes under a temporary name beside `path`, then renames: readers see the old file or the new one. Removes what
    a killed process has left in that folder."""
    with written_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def written_atomically(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file that gets the name `path` when the block ends without an error, for what is too large to hold twice.
    Raises WriteError where the system refuses the file."""
    path = Path(path)
    _remove_leftovers(path.parent)
    temporary, file = _create_beside(path)
    try:
        with file:
            with contextlib.suppress(OSError):  # some file systems of networks have no locks
                fcntl.flock(file, fcntl.LOCK_EX)  # until the process ends, however it does
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        # A full disk names no file; a file with another name is one that the block reads.
        if error.filename not in (None, str(temporary), temporary):
            raise
        raise write_error(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def _create_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A temporary file for `path`, open for writing. Raises WriteError where the system refuses it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_HELD}{TEMPORARY_SUFFIX}")
    try:
        return temporary, open(temporary, "wb")
    except OSError as error:
        raise write_error(error, path) from None


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
