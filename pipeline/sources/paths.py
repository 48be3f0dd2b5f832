"""Where files lie: paths, globs and URLs to the bytes, on any file system that Beam or fsspec knows."""

from __future__ import annotations

import concurrent.futures
import functools
import glob
import io
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import fsspec
from aiohttp import ClientResponseError
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from models.errors import STORE_EXTRAS, UserError, not_installed

CHUNK_BYTES = 1 << 18
FILES_AT_ONCE = 16  # that the launcher opens
T = TypeVar("T")
R = TypeVar("R")


def expand(pattern: str) -> list[str]:
    """The files that a path, a glob or a URL names, sorted. An http(s) URL names one file: '?' is its query."""
    if _is_http(pattern):
        _check_answer(pattern)
        found = [pattern]
    elif _scheme(pattern):
        found = _expand_remote(pattern)
    elif os.path.isdir(pattern):
        raise UserError(f"{pattern} is a folder: name its files, for example '{pattern.rstrip('/')}/*.tsv'")
    elif os.path.exists(pattern):  # a file whose own name holds '[' or '*'
        found = [pattern]
    else:
        found = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    if not found:
        raise UserError(f"no file matches {pattern}: check the path and its spelling (quote a glob for the shell)")
    return sorted(found)


def _check_answer(url: str) -> None:
    """Raises UserError if a server does not have a file, or does not answer."""
    try:
        fsspec.filesystem("http").info(url)
    except Exception as error:  # FileNotFoundError for any status; its cause has the answer
        answer = error.__cause__
        cause = f"HTTP {answer.status}" if isinstance(answer, ClientResponseError) else _one_line(error)
        raise UserError(f"{url}: the server does not give this file ({cause}); open the URL in a browser") from error


def exists(path: str) -> bool:
    if _is_http(path):
        return bool(fsspec.filesystem("http").exists(path))
    if not _scheme(path):
        return os.path.isfile(path)
    try:
        return bool(FileSystems.exists(path) if _beam_knows(path) else fsspec.core.url_to_fs(path)[0].exists(path))
    except ImportError:
        raise _not_installed(path) from None


def map_files(function: Callable[[T], R], files: Iterable[T]) -> list[R]:
    """What a function gives for each of many files, in their order, several at once: a store takes its time for each
    request. Raises what the function raises for the first file at fault."""
    with concurrent.futures.ThreadPoolExecutor(FILES_AT_ONCE, "files") as pool:
        return list(pool.map(function, files))


def base_name(path: str) -> str:
    """The file's name as published, without folder, host or query."""
    return (urlsplit(path).path if _is_http(path) else path).rstrip("/").rsplit("/", 1)[-1]


def absolute(path: str) -> str:
    """The path as another process, in another folder, finds it."""
    return path if _scheme(path) else os.path.abspath(path)


def open_raw(path: str) -> io.BufferedReader:
    """The file's bytes as they are."""
    try:
        if not _scheme(path):
            return io.BufferedReader(_MeteredFile(path))  # the caller's `with` closes it
        if not _is_http(path) and _beam_knows(path):
            file = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
            return io.BufferedReader(_RemoteFile(file))
        if _is_http(path) and not _supports_ranges(path):
            return io.BufferedReader(_SequentialFile(fsspec.open(path, "rb", block_size=0).open()), CHUNK_BYTES)
        return io.BufferedReader(_RemoteFile(fsspec.open(path, "rb").open()), CHUNK_BYTES)
    except (FileNotFoundError, IsADirectoryError, PermissionError, BeamIOError) as error:
        raise UserError(f"can't open {path}: check that the file exists and may be read") from error
    except ImportError:
        raise _not_installed(path) from None
    except Exception as error:
        if not _scheme(path):
            raise
        raise UserError(f"can't open {path}: {_one_line(error)}") from error


class ReadMeter:
    """The bytes of lists that this process has read, for the progress line and for estimates."""

    bytes = 0


METER = ReadMeter()


class _MeteredFile(io.FileIO):
    """A local file whose bytes METER counts."""

    def readinto(self, buffer: Any) -> int | None:
        number = super().readinto(buffer)
        METER.bytes += number or 0
        return number

    def readall(self) -> bytes:
        data = super().readall()
        METER.bytes += len(data)
        return data


@functools.lru_cache
def _supports_ranges(url: str) -> bool:
    """Whether a server sends parts of a file. Not all say so: its last byte is asked for."""
    with fsspec.open(url, "rb").open() as file:
        try:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            file.read(1)
        except ValueError:  # fsspec's, for a length that is not stated, and for the whole file in answer to a part
            return False
    return True


class _SequentialFile(io.RawIOBase):
    """fsspec's file of a server that sends no parts; that one says that it can seek, and raises."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        METER.bytes += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _RemoteFile(_SequentialFile):
    """A file of Beam's or fsspec's that can seek."""

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _expand_remote(pattern: str) -> list[str]:
    try:
        if _beam_knows(pattern):
            return [file.path for match in FileSystems.match([pattern]) for file in match.metadata_list]
        filesystem, path = fsspec.core.url_to_fs(pattern)
        found = filesystem.glob(path, detail=True)
        return [filesystem.unstrip_protocol(path) for path, about in found.items() if about["type"] == "file"]
    except ImportError:
        raise _not_installed(pattern) from None
    except Exception as error:  # no credentials, no network: each file system has errors of its own
        raise UserError(f"can't look up {pattern}: {_one_line(error)}") from error


def _not_installed(path: str) -> UserError:
    return not_installed(path, STORE_EXTRAS.get(_scheme(path), "remote"))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _beam_knows(path: str) -> bool:
    if _scheme(path) == "s3":  # Beam's opens nothing before a pipeline has its options; fsspec's needs none
        return False
    try:
        FileSystems.get_filesystem(path)
    except ValueError:  # no such scheme in Beam, or its extra is not installed
        return False
    return True


def _scheme(path: str) -> str:
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", path)
    return match[1].lower() if match else ""


def _is_http(path: str) -> bool:
    return _scheme(path) in ("http", "https")
