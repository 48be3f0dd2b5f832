"""Hosts that were given up, as the processes of one machine tell each other."""

from __future__ import annotations

import functools
import os
import struct
import time

from models.hashing import stable_hash
from pipeline.fetch.shared_folder import open_shared, own_folder
from pipeline.records import Reason

MAX_KNOWN_HOSTS = 100_000


class HostMemory:
    """The hosts that were given up, for all units of the processes that share a folder; without one, for nobody.

    Kept in one file to which each process adds: a few bytes for each host, by a hash of its name.
    """

    def __init__(self, folder: str):
        self._path = os.path.join(own_folder(folder), "given-up") if folder else ""
        self._until: dict[int, tuple[float, int]] = {}  # hash -> end on time.monotonic(), number of the reason
        self._read = 0  # bytes
        self._answered: set[int] = set()

    def has_answered(self, host: str) -> bool:
        return bool(self._answered) and stable_hash(host) in self._answered

    def note_answer(self, host: str) -> None:
        if self._path:
            if len(self._answered) >= MAX_KNOWN_HOSTS:
                self._answered.clear()
            self._answered.add(stable_hash(host))

    def refresh(self) -> None:
        """Reads what processes have added."""
        if not self._path:
            return
        file = open_shared(self._path)
        try:
            data = os.pread(file, os.fstat(file).st_size - self._read, self._read)
        finally:
            os.close(file)
        whole = len(data) // _GIVEN_UP.size * _GIVEN_UP.size
        self._read += whole
        for host, until, reason in _GIVEN_UP.iter_unpack(data[:whole]):
            self._until[host] = until, reason

    def recall(self, host: str) -> Reason | None:
        """Why a host was given up, if that is not long ago."""
        until, reason = self._until.get(stable_hash(host), (0.0, 0)) if self._until else (0.0, 0)
        return _REASONS[reason] if until > time.monotonic() else None

    def learn(self, host: str, reason: Reason, for_s: float) -> None:
        if not self._path:
            return
        file = open_shared(self._path, os.O_APPEND)
        try:
            os.write(file, _GIVEN_UP.pack(stable_hash(host), time.monotonic() + for_s, _REASONS.index(reason)))
        finally:
            os.close(file)


_REASONS = tuple(Reason)
_GIVEN_UP = struct.Struct("<QdB")


@functools.cache
def host_memory(folder: str) -> HostMemory:
    """What this process knows of the hosts that were given up."""
    return HostMemory(folder)
