"""Files on any file system that Beam writes (local, gs://, s3://, hdfs://): whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileSystem
from apache_beam.io.filesystems import FileSystems

import models.files
from models.errors import STORE_EXTRAS, UserError, not_installed, system_fault, write_error
from models.files import TEMPORARY_SUFFIX
from pipeline.output import stores


def check_installed(path: str) -> None:
    """Raises UserError for a URL that no installed package reads and writes: Beam's own error names no extra of
    ours."""
    if is_local(path):
        return
    scheme = FileSystems.get_scheme(path)
    try:
        FileSystems.get_filesystem(path)
    except (ValueError, BeamIOError) as error:
        if scheme in STORE_EXTRAS:
            raise not_installed(path, STORE_EXTRAS[scheme]) from None
        known = {system.scheme() for system in FileSystem.get_all_subclasses()}
        if scheme in known:  # hdfs lacks an option, or a package
            raise UserError(f"{path}: {_line(error)}") from None
        raise UserError(
            f"{path}: there is no file system {scheme}://; name a place such as gs://... or s3://..."
        ) from None
    if scheme == "s3" and not importlib.util.find_spec("boto3"):  # Beam has the file system without it
        raise not_installed(path, STORE_EXTRAS[scheme])


def join(base: str, *parts: str) -> str:
    check_installed(base)
    return FileSystems.join(base, *parts)


def is_local(path: str) -> bool:
    return FileSystems.get_scheme(path) is None


@contextlib.contextmanager
def atomic_writer(path: str) -> Iterator[BinaryIO]:
    """A file to write, under a name of its own beside `path`, renamed at the end: two workers that write the same file
    at once end with one whole file, and a killed one leaves only a `.tmp` behind."""
    check_installed(path)
    folder, name = FileSystems.split(path)
    make_folder(folder)
    temporary = join(folder, f".{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with _create(temporary, path) as file:
            yield file
            if is_local(path):  # else a power cut may leave the new name with nothing in it
                file.flush()
                os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(BeamIOError):  # it may never have come to be
            FileSystems.delete([temporary])
        if isinstance(error, OSError) and (line := system_fault(error.errno, error.strerror or "", path)):
            raise UserError(f"can't write {line}") from None
        raise
    try:
        FileSystems.rename([temporary], [path])
    except BeamIOError as error:
        with contextlib.suppress(BeamIOError):
            FileSystems.delete([temporary])
        raise _write_error(error, path) from None
    _sync_folder(path)


def _create(temporary: str, path: str) -> BinaryIO:
    """The temporary file of `path`. Raises WriteError where the system refuses it."""
    try:
        return FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED)
    except OSError as error:
        raise _write_error(error, path) from None


def _write_error(error: OSError, path: str) -> UserError:
    """The error to raise for a file that could not be made, or did not get its name, `path`."""
    cause = _cause_of(error)
    if isinstance(cause, OSError) and is_local(path):
        return write_error(cause, path)
    return UserError(f"can't write {path}: {_line(cause)}")


def _sync_folder(path: str) -> None:
    """Brings a file's new name to the disk, before another file says that it is there."""
    if is_local(path):
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def machine_fault_of(error: OSError) -> UserError:
    """The error to end a job with if this machine's files or limits are at fault: temporary files, if it names none."""
    where = error.filename or tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")
    message = error.strerror or str(error)
    line = (
        system_fault(error.errno, message, where) or f"{where}: {message}; see to it, then run the same command again"
    )
    return UserError(f"this machine can't go on: {line}")


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """Turns every OSError of a temporary file into a UserError."""
    try:
        yield
    except OSError as error:
        raise machine_fault_of(error) from error


def write_atomically(path: str, data: bytes | memoryview) -> None:
    """Writes a file as `atomic_writer` does. Raises UserError if that is refused."""
    with atomic_writer(path) as file:
        file.write(data)


def open_read(path: str) -> BinaryIO:
    """A file to read, as it is stored. Raises UserError for a URL that no installed package reads, else the file
    system's own errors, such as FileNotFoundError and BeamIOError."""
    check_installed(path)
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read(path: str) -> bytes:
    """All bytes of a file. Raises UserError and others as `open_read` does."""
    with open_read(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Raises UserError for a file system that cannot be asked."""
    check_installed(path)
    try:
        return FileSystems.exists(path)
    except BeamIOError as error:
        raise UserError(f"can't look up {path}: {_line(_cause_of(error))}") from None


def _cause_of(error: Exception) -> Exception:
    """The exception that a BeamIOError carries; any other error itself."""
    return next(iter((getattr(error, "exception_details", None) or {None: error}).values()))


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def make_folder(path: str) -> None:
    """Makes a local folder; object stores have none to make. Raises WriteError where that is refused."""
    if is_local(path):
        models.files.make_folder(path)


def list_files(folder: str) -> list[str]:
    """Every file below a folder, as paths relative to it, sorted; [] if it does not exist. Raises UserError for a store
    that can't be asked."""
    if is_local(folder):
        found = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
        return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in found)
    check_installed(folder)
    base = folder.rstrip("/") + "/"
    try:
        [match] = FileSystems.match([base + "**"])
    except BeamIOError as error:
        if FileSystems.get_filesystem(base).has_dirs():
            return []  # Hadoop's complains about a folder that does not exist; a store has no folders
        raise UserError(f"can't list {folder}: {_line(_cause_of(error))}") from None
    return sorted(metadata.path.removeprefix(base) for metadata in match.metadata_list)


def delete(folder: str, names: list[str]) -> None:
    """Removes files named relative to a folder, and the local folders that this leaves empty. A file that is not there
    is no error: two attempts of one bundle may remove it at once. Raises UserError if files can't be deleted."""
    paths = [join(folder, *name.split("/")) for name in names]
    if not is_local(folder):
        if failed := stores.delete_files(paths):
            path, error = min(failed.items())
            raise UserError(
                f"can't delete {path} ({' '.join(str(error).split())}), nor {len(failed) - 1} other files; see to the "
                "permission to delete, then run the same command again"
            )
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    for top in {name.split("/")[0] for name in names}:  # other empty folders are the user's
        for root, _, _ in os.walk(join(folder, top), topdown=False):
            if not os.listdir(root):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(root)


def remove(path: str) -> None:
    """Removes one file, if it is there."""
    if is_local(path):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    elif exists(path):
        FileSystems.delete([path])


def publish(path: str, target: str) -> None:
    """Gives a file its lasting name, unless another attempt has done so before: then there is none at `path`. Raises
    UserError if the file can't be renamed."""
    try:
        FileSystems.rename([path], [target])
    except BeamIOError as error:
        if exists(path) or not exists(target):
            raise _write_error(error, target) from None
    _sync_folder(target)


def to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


class WrittenFile(NamedTuple):
    """A file of the output, on disk."""

    path: str  # relative to the output
    bytes: int
    sha256: str


def write_file(output: str, name: str, data: bytes) -> WrittenFile:
    """Writes a file of an output; `name` is relative to it, with slashes. Raises UserError if that is refused."""
    write_atomically(join(output, *name.split("/")), data)
    return WrittenFile(name, len(data), hashlib.sha256(data).hexdigest())
