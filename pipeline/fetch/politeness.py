"""How hosts are treated: connections and requests at once, back-off, opting out, and when to leave a host alone."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import functools
import math
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Callable, Collection
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from multidict import CIMultiDictProxy

from pipeline.records import Reason

BACK_OFF_S, MAX_BACK_OFF_S = 1.0, 60.0
UNANSWERED = 10  # attempts in a row, after which a host counts as dead
TDM_RESERVATION = "tdm-reservation"
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", TDM_RESERVATION)  # X-Robots-Tag's as img2dataset obeys them
_DIRECTIVES_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_POLL_S = 0.05  # how often a process looks whether another one has left a slot
_PLACES = 1 << 16  # hosts that are told apart in the shared folder; two that collide share their limits


class FetchFailed(Exception):
    """Why an attempt failed. `final`: not to be tried again in this run, though the reason may pass."""

    def __init__(self, reason: Reason, detail: str, retry_after_s: float | None = None, final: bool = False):
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail, self.retry_after_s, self.final = reason, detail, retry_after_s, final


class HostLimits(NamedTuple):
    """What one host is asked for at most."""

    connections: int  # at once
    rate: float  # requests/s, evenly spaced
    bytes_per_s: float = math.inf


# By the end of a host's name. Wikimedia's robot policy: 2 connections, 25 Mbit/s, and a contact in the User-Agent.
# Flickr names no limit for its pictures: its own is less than the default, since YFCC100M has nothing but them.
PRESETS = {
    "wikimedia.org": HostLimits(2, math.inf, 25e6 / 8),
    "staticflickr.com": HostLimits(2, 5.0),
    "static.flickr.com": HostLimits(2, 5.0),
}
WANT_CONTACT = ("wikimedia.org", "wikipedia.org")
CONTACT = re.compile(r"https?://|[^\s@]+@[^\s@]+\.[^\s@]+")


def limits_for(host: str, limits: HostLimits) -> HostLimits:
    """The limits, or less where the host asks for less."""
    for name, preset in PRESETS.items():
        if _is_of(host, name):
            return HostLimits(*map(min, limits, preset))
    return limits


def _is_of(host: str, name: str) -> bool:
    return host == name or host.endswith(f".{name}")


def misses_contact(host: str, user_agent: str) -> bool:
    """Whether a host that wants a contact (a URL or an e-mail address) is asked without one."""
    return any(_is_of(host, name) for name in WANT_CONTACT) and not CONTACT.search(user_agent)


# --- what headers say ------------------------------------------------------------------------------------------------


def opt_out(headers: CIMultiDictProxy[str], obeyed: Collection[str] = OPT_OUTS, robot: str = "pairmill") -> str | None:
    """The header by which a site keeps its pictures out of training sets, or None. Only those in `obeyed` count.

    Directives of X-Robots-Tag may be for one robot: "somebot: noindex, noai". Those for others don't count.
    """
    for value in headers.getall("X-Robots-Tag", []):
        addressed = True
        for part in value.lower().split(","):
            name, colon, directive = part.partition(":")
            if colon and name.strip() not in _DIRECTIVES_WITH_VALUES:
                addressed = name.strip() in ("*", robot)
            else:
                directive = part
            if addressed and directive.strip() in obeyed:
                return f"X-Robots-Tag: {directive.strip()}"
    if TDM_RESERVATION in obeyed and headers.get("TDM-Reservation", "").strip() == "1":
        return "TDM-Reservation: 1"
    return None


def retry_after_s(value: str | None) -> float | None:
    """Of a Retry-After header, in seconds or an HTTP date; None if absent or unreadable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def back_off_s(attempt: int) -> float:
    """Exponential, with full jitter: many rows that failed together must not come back together."""
    return random.uniform(0, min(MAX_BACK_OFF_S, BACK_OFF_S * 2**attempt))


# --- turns -----------------------------------------------------------------------------------------------------------


class HostGate:
    """A host's limits, kept by one event loop and, given what it shares with others, by all of those together.

    Closed once the host does not answer any more or asks for a long rest: what is left to fetch from it then fails at
    once, and a later run tries it again.
    """

    def __init__(self, host: str, limits: HostLimits, shared: SharedHost | None = None):
        self._host, self._limits = host, limits
        self._slots = asyncio.Semaphore(limits.connections)
        self._shared = shared
        self._clock = self._shared or _Clock()
        self._failures = 0  # in a row
        self._closed: tuple[Reason, str] | None = None

    @contextlib.asynccontextmanager
    async def turn(self, room: asyncio.Semaphore) -> AsyncIterator[None]:
        """Waits until the host may be asked once more. Takes a place in `room`, for the caller to give back: none is
        held while waiting, so that no host holds up another."""
        async with self._slots:
            held = await self._start(room)
            try:
                yield
            finally:
                held.close()

    async def _start(self, room: asyncio.Semaphore) -> contextlib.ExitStack:
        while True:
            if self._closed:
                reason, detail = self._closed
                raise FetchFailed(reason, detail, final=True)
            await room.acquire()
            held = contextlib.ExitStack()
            if not self._shared or self._shared.take_slot(self._limits.connections, held):
                wait_s = self._claim_start()
                if wait_s <= 0:
                    return held
            else:
                wait_s = random.uniform(0.5, 1.5) * _POLL_S
            held.close()
            room.release()
            await asyncio.sleep(wait_s)

    def _claim_start(self) -> float:
        """Seconds until the next request may start; 0 or less if it may now, which is then taken."""
        now, interval_s = time.monotonic(), 1 / self._limits.rate
        return self._clock.move(lambda start: now + interval_s if start <= now else start) - now

    def answered(self) -> None:
        self._failures = 0

    def spent(self, length: int) -> None:
        """Of the host's bytes/s, where it asks to keep to some."""
        if self._limits.bytes_per_s < math.inf:
            now, seconds = time.monotonic(), length / self._limits.bytes_per_s
            self._clock.move(lambda start: max(start, now) + seconds)

    def failed(self, failure: FetchFailed) -> None:
        """Of an attempt without an answer, or with the answer that there were too many."""
        self._failures += 1
        rest_s = failure.retry_after_s or 0.0
        if failure.reason is Reason.HTTP_429:
            until = time.monotonic() + min(rest_s or BACK_OFF_S, MAX_BACK_OFF_S)
            self._clock.move(lambda start: max(start, until))
        if rest_s > MAX_BACK_OFF_S and failure.reason is Reason.HTTP_429:
            self._closed = failure.reason, f"{self._host} asks for {rest_s:.0f} s without requests"
        elif self._failures >= UNANSWERED:
            self._closed = failure.reason, f"given up on {self._host} after {self._failures} failures in a row"


class _Clock:
    """When the next request to a host may start, on time.monotonic()."""

    def __init__(self) -> None:
        self._start = 0.0

    def move(self, change: Callable[[float], float]) -> float:
        """Returns what it was before."""
        before, self._start = self._start, change(self._start)
        return before


class SharedHost:
    """Slots and clock of one host as locked files: the kernel frees what a killed process held."""

    def __init__(self, folder: str, host: str):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._path = os.path.join(folder, f"{zlib.crc32(host.encode()) % _PLACES:04x}")
        self._mine: set[int] = set()

    def take_slot(self, slots: int, held: contextlib.ExitStack) -> bool:
        first = random.randrange(slots)  # others would look at the same ones, one after the other
        for number in (*range(first, slots), *range(first)):
            if number in self._mine:
                continue
            file = self._open(str(number))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            self._mine.add(number)
            held.callback(self._mine.discard, number)
            held.callback(os.close, file)
            return True
        return False

    def move(self, change: Callable[[float], float]) -> float:
        file = self._open("clock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # for some microseconds: every holder only reads and writes 8 bytes
            [before] = struct.unpack("d", os.pread(file, 8, 0) or bytes(8))
            if (after := change(before)) != before:
                os.pwrite(file, struct.pack("d", after), 0)
            return before
        finally:
            os.close(file)

    def _open(self, name: str) -> int:
        return os.open(f"{self._path}.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def shared_host(host: str, folder: str) -> SharedHost | None:
    """What the workers that name the same folder share of a host; None without a folder."""
    return SharedHost(folder, host) if folder else None


@functools.cache
def shared_folder() -> str:
    """A folder for this run, by which its processes on one machine keep the limits of hosts together."""
    folder = tempfile.mkdtemp(prefix="pairmill-hosts-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def warn_once(message: str, folder: str) -> None:
    """To standard error; by one of the processes that share a folder."""
    if folder:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        mark = os.path.join(folder, f"warned-{zlib.crc32(message.encode()):08x}")
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    print(f"warning: {message}", file=sys.stderr, flush=True)
