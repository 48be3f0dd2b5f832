"""A local folder that caches the shards of remote datasets (gs://, s3://, https://, any URL that fsspec supports)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from models.data.format import REBUILD_HINT
from models.data.retry import one_line, retried
from models.errors import UserError
from models.files import TEMPORARY_SUFFIX, open_read

BLOCK = 1 << 20  # bytes copied at a time
MAX_DOWNLOADS = 4  # at once, in the background
STALE_AFTER_S = 3600.0  # an older temporary file was left by a killed process
DEFAULT_CACHE_BYTES = 50 * 10**9
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ShardCache:
    """A folder of shards, named by their sha256, of limited size; safe for any number of processes.

    A file may be removed while another process reads it: open files stay readable.
    """

    def __init__(self, folder: str | os.PathLike, max_bytes: int):
        """Raises UserError for a folder that is not writable."""
        self._folder, self._max_bytes = Path(folder), max_bytes
        self._forget_downloads()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe = self._folder / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"cache {folder}: {error.strerror}; give a writable folder") from None

    def _forget_downloads(self) -> None:
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None  # made on first use: no thread survives a fork
        self._process = 0
        self._pending: dict[str, concurrent.futures.Future[str]] = {}

    def __getstate__(self) -> dict:
        return {"_folder": self._folder, "_max_bytes": self._max_bytes}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._forget_downloads()

    def prefetch(self, url: str, size: int, sha256: str) -> None:
        """Starts to fetch a shard in the background; `size` in bytes."""
        if self._pool is None or self._process != os.getpid():
            self._pool = concurrent.futures.ThreadPoolExecutor(MAX_DOWNLOADS, "prefetch")
            self._process, self._pending = os.getpid(), {}
        if sha256 not in self._pending:
            self._pending[sha256] = self._pool.submit(self._fetch, url, size, sha256)

    def fetch(self, url: str, size: int, sha256: str) -> str:
        """Returns the local path of a shard, downloaded if necessary; `size` in bytes.

        Raises UserError if the shard cannot be downloaded, has another hash or is larger than the cache.
        """
        pending = self._pending.pop(sha256, None) if self._process == os.getpid() else None
        path = pending.result() if pending else self._fetch(url, size, sha256)
        return path if os.path.exists(path) else self._fetch(url, size, sha256)  # another process may have removed it

    def discard(self, sha256: str) -> None:
        """Removes a shard from the cache, since its file has been damaged there."""
        (self._folder / f"{sha256}.tar").unlink(missing_ok=True)

    def _fetch(self, url: str, size: int, sha256: str) -> str:
        if not _SHA256.fullmatch(sha256):
            raise UserError(f"{url}: {sha256!r} is not a sha256; the manifest is damaged, build the dataset again")
        path = self._folder / f"{sha256}.tar"
        # One process downloads a shard; the others wait for it.
        with self._locked(f".{sha256}.lock"):
            if path.exists():
                os.utime(path)  # the least recently used shard is evicted first
                return str(path)
            if size > self._max_bytes:
                raise UserError(
                    f"cache {self._folder}: a shard has {size:,} bytes, the cache at most {self._max_bytes:,}; "
                    "give it more"
                )
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
            try:
                with self._locked(".room.lock"):
                    self._evict(size)
                    with open(temporary, "wb") as file:
                        file.truncate(size)  # reserves the space
                self._download(url, temporary, sha256)
                os.replace(temporary, path)
            except FileNotFoundError:
                raise UserError(f"{url} is missing, but the manifest names it; {REBUILD_HINT}") from None
            except ChangedError:
                raise UserError(
                    f"{url} is not the file that the manifest names (its sha256 differs); {REBUILD_HINT}"
                ) from None
            except OSError as error:
                raise UserError(f"{url} cannot be fetched into {self._folder}: {one_line(error)}") from None
            finally:
                temporary.unlink(missing_ok=True)
        return str(path)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _evict(self, size: int) -> None:
        """Removes the least recently used shards until `size` more bytes fit."""
        found: list[tuple[int, int, Path]] = []  # time of use in ns (0: stale), bytes, path
        for path in (*self._folder.glob("*.tar"), *self._folder.glob(f".*{TEMPORARY_SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                is_stale = path.suffix == TEMPORARY_SUFFIX and status.st_mtime < time.time() - STALE_AFTER_S
                found.append((0 if is_stale else status.st_mtime_ns, status.st_size, path))
        free = self._max_bytes - size - sum(taken for _, taken, _ in found)
        for used, freed, path in sorted(found):
            if free >= 0:
                break
            if path.suffix == TEMPORARY_SUFFIX and used:
                continue  # another process is writing it
            path.unlink(missing_ok=True)
            (self._folder / f".{path.stem}.lock").unlink(missing_ok=True)
            free += freed

    @staticmethod
    def _download(url: str, path: Path, sha256: str) -> None:
        def download() -> None:
            if _copy(url, path) != sha256:
                raise ChangedError(url)

        retried(download)


class ChangedError(OSError):
    """A shard has another sha256: it was cut on its way, or it is another file."""


def _copy(url: str, path: Path) -> str:
    """Copies a remote file; returns its sha256."""
    digest = hashlib.sha256()
    with open_read(url) as source, open(path, "wb") as file:
        while block := source.read(BLOCK):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
