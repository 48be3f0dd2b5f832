"""The lease of an output on a remote file system: one launcher at a time may write there.

A lease is a small file in the work folder that names its holder. It is taken by a conditional write, so that of two
launchers one gets it, and renewed every RENEW_S by a thread of the holder. Another launcher takes it over only if it
was not renewed for STALE_S: its holder is dead, or cut off from the store. Both times are the store's own. A holder
whose lease was taken over learns it at its next renewal, and ends.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import NamedTuple

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from models.errors import UserError
from pipeline.output import files
from pipeline.output.conditional import conditional_file
from pipeline.output.names import LEASE_FILE, WORK_FOLDER

RENEW_S, STALE_S = 20.0, 120.0
JOIN_S = 5.0  # for a renewal that is under way when the lease is released


class Holder(NamedTuple):
    """The launcher that holds a lease; times are those of its own clock."""

    id: str
    host: str
    pid: int
    since: str
    renewed: str


class Lease:
    """The lease of one output, held by this process from `take` to `release`, or until the process ends."""

    def __init__(self, output: str):
        self._path = files.join(output, WORK_FOLDER, LEASE_FILE)
        self._output, self._file = output, conditional_file(self._path)
        self._holder = Holder(
            id=uuid.uuid4().hex, host=socket.gethostname(), pid=os.getpid(), since=_now(), renewed=_now()
        )
        self._version: str | None = None
        self._ended, self._loss = threading.Event(), ""
        self._on_loss: Callable[[str], object] = lambda loss: None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self) -> None:
        """Raises UserError if another launcher holds it, or if the store refuses."""
        try:
            self._take()
        except UserError:
            raise
        except Exception as error:  # each store's client has its own
            cause = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"--output {self._output}: can't write {self._path}: {cause}") from None
        self._thread.start()
        atexit.register(self.release)

    def _take(self) -> None:
        found = self._file.read()
        if found and (age_s := self._age_s()) < STALE_S:
            raise UserError(_refusal(self._output, _holder_of(found.data), age_s))
        if not self._write(found.version if found else None):
            raise UserError(
                f"--output {self._output}: another pairmill has just begun to write there; wait for its end"
            )

    def watch(self, on_loss: Callable[[str], object]) -> None:
        """Calls a function, from another thread, with a line that says so if another launcher takes the lease over."""
        self._on_loss = on_loss
        if self._loss:
            on_loss(self._loss)

    def release(self) -> None:
        """Deletes the file, if it is still this process's. Without that the lease ends by itself, STALE_S later."""
        atexit.unregister(self.release)
        self._ended.set()
        self._thread.join(JOIN_S)
        with contextlib.suppress(Exception):  # the store can't be reached; each one's client says so in its own way
            if (found := self._file.read()) and _holder_of(found.data).id == self._holder.id:
                FileSystems.delete([self._path])

    def _age_s(self) -> float:
        """Seconds since the last renewal, by the clock of the store."""
        probe = f"{self._path}.{uuid.uuid4().hex}{files.TEMPORARY_SUFFIX}"
        with FileSystems.create(probe, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(b"now")
        try:
            if not files.exists(self._path):  # released just now
                return STALE_S
            return FileSystems.last_updated(probe) - FileSystems.last_updated(self._path)
        finally:
            FileSystems.delete([probe])

    def _write(self, version: str | None) -> bool:
        """Whether the file is this process's, instead of the given version."""
        self._holder = self._holder._replace(renewed=_now())
        data = files.to_json(self._holder._asdict())
        self._version = self._file.write(data, version)
        if self._version is None and (found := self._file.read()) and found.data == data:
            self._version = found.version  # a client repeats a request whose answer was lost
        return self._version is not None

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                is_ours = self._write(self._version)
            except Exception:  # each store's client has its own for networks: the lease holds if nobody takes it over
                continue
            if not is_ours and not self._ended.is_set():
                self._loss = (
                    f"{self._output}: another pairmill has taken over, because this one did not renew its lease"
                )
                self._on_loss(self._loss)
                return


def _now() -> str:
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _holder_of(data: bytes) -> Holder:
    return Holder(**json.loads(data))


def _refusal(output: str, holder: Holder, age_s: float) -> str:
    return (
        f"--output {output}: another pairmill is writing there: process {holder.pid} on {holder.host}, since "
        f"{holder.since}, last renewed {holder.renewed}; wait for its end, or choose another folder; if it is "
        f"dead, the same command works in {max(1, round(STALE_S - age_s))} s"
    )
