"""Hosts that do not answer: when their rows rest, when they are asked again, and when they are given up.

A host that has never answered counts as one, whichever row asks it. Its first requests have little time. If they
meet silence, all its rows rest for some seconds; then one row asks again, for longer, and if that meets silence as well
the host is given up. What a unit learns holds at once for all units of the processes that share a folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from typing import NamedTuple

from models.hashing import stable_hash
from pipeline.fetch.per_process import per_process
from pipeline.fetch.retry import MAX_BACK_OFF_S, FetchFailed, HostGivenUp
from pipeline.fetch.shared_folder import open_shared, own_folder
from pipeline.records import Reason

FIRST_TIMEOUT_S = 6.0  # until a host that has never answered sends a byte: a second more than it has to connect
REST_S = 3.0  # of its rows, after that
USUAL_FACTOR, USUAL_WEIGHT = 4.0, 1 / 32  # of what hosts take at present, if that is longer: this machine may be busy
LAST_TIMEOUT_S = 10.0  # of the request that decides, or a third of the time of an attempt if that is longer
DECISION_S = 5.0  # beside that, until all know how it ended: more than a busy machine takes
MAX_CONSECUTIVE_FAILURES = 10  # failed attempts in a row after which a host counts as dead
MIN_ROUNDS = 3  # of these: attempts that run at once may fail for one cause, such as a pause of this machine
SILENT_MEMORY_S = 600.0  # for which a host that was silent is given up: the outage may have been short
MEMORY_S, SHORT_MEMORY_S = 3600.0, 60.0  # after failures in a row; of a host that has answered before
MAX_KNOWN_HOSTS = 100_000
UNKNOWN_NAME = "no name server knows the name"
POLL_S = 0.25  # interval at which a process reads what others have learned


class News(NamedTuple):
    """What was learned of a host. Times are on time.monotonic(), which the processes of a machine share."""

    kind: int
    at: float  # when the host fell silent
    until: float  # end of the rest, or of being given up
    reason: Reason


SPEAKS, ANSWERS, RESTS, SILENT, GIVEN_UP = range(5)
"""It has refused, or answered, after silence; its rows rest; it was silent twice; it is given up for another cause."""
_REASONS = tuple(Reason)
_RECORD = struct.Struct("<QBddB")  # hash of the name, then the fields of News


class HostMemory:
    """What is known of hosts, for all units of the processes that share a folder; without one, for a single unit.

    Kept in one file to which each process adds: a few bytes for each host, by a hash of its name.
    """

    def __init__(self, folder: str):
        self._path = os.path.join(own_folder(folder), "dead-hosts") if folder else ""
        self._lock = threading.Lock()
        self._news: dict[int, News] = {}
        self._news_limit = MAX_KNOWN_HOSTS  # at which what no longer holds is dropped
        self._read, self._read_at = 0, -math.inf  # bytes; on time.monotonic()
        self._answered: set[int] = set()
        self.usual_s = 0.0  # that hosts take to answer at present, as a sliding mean
        self._hosts: weakref.WeakValueDictionary[str, HostHealth] = weakref.WeakValueDictionary()
        if self._path:
            self._refresh()  # raises at once if the file can't be used

    def health(self, host: str) -> HostHealth:
        """What all units of this process know of a host."""
        with self._lock:
            return self._hosts.setdefault(host, HostHealth(host, self))

    def has_answered(self, host: int) -> bool:
        return host in self._answered

    def note_answer(self, host: int) -> None:
        if len(self._answered) >= MAX_KNOWN_HOSTS:
            self._answered.clear()
        self._answered.add(host)

    def news(self, host: int) -> News | None:
        """The last thing learned of a host, by any process, unless it answers."""
        if self._path and time.monotonic() - self._read_at > POLL_S:
            self._refresh()
        return self._news.get(host)

    def learn(self, host: int, news: News) -> None:
        """Records what was learned of a host, for all processes."""
        if not self._path:
            self._take(host, news)
            return
        file = open_shared(self._path, os.O_APPEND)
        try:
            os.write(file, _RECORD.pack(host, news.kind, news.at, news.until, _REASONS.index(news.reason)))
        finally:
            os.close(file)
        self._refresh()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other threads and processes out, and has read what they have added: for some microseconds."""
        if not self._path:
            yield
            return
        file = open_shared(self._path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._refresh()
            yield
        finally:
            os.close(file)

    def _refresh(self) -> None:
        """Reads what processes, this one included, have added."""
        with self._lock:
            self._read_at = time.monotonic()
            file = open_shared(self._path)
            try:
                data = os.pread(file, os.fstat(file).st_size - self._read, self._read)
            finally:
                os.close(file)
            whole = len(data) // _RECORD.size * _RECORD.size
            self._read += whole
            for host, kind, at, until, reason in _RECORD.iter_unpack(data[:whole]):
                self._take(host, News(kind, at, until, _REASONS[reason]))

    def _take(self, host: int, news: News) -> None:
        if news.kind in (SPEAKS, ANSWERS):
            self._news.pop(host, None)
            if news.kind == ANSWERS:
                self.note_answer(host)
            return
        if len(self._news) >= self._news_limit:
            now = time.monotonic()
            self._news = {known: old for known, old in self._news.items() if old.until > now}
            self._news_limit = max(MAX_KNOWN_HOSTS, 2 * len(self._news))
        self._news[host] = news


@per_process
def _shared_memory(folder: str) -> HostMemory:
    return HostMemory(folder)


def host_memory(folder: str) -> HostMemory:
    """What this process knows of hosts; without a folder, a memory of its own for each caller."""
    return _shared_memory(folder) if folder else HostMemory("")


class HostHealth:
    """Whether a host answers, for all units of a process."""

    def __init__(self, host: str, memory: HostMemory):
        self._host, self._memory = host, memory
        self._hash = stable_hash(host)
        self._failures = 0  # in a row
        self._rounds, self._round_started = 0, -math.inf  # when the first failure of the last round was noted
        self._verdict = ""  # of this process, in words

    @property
    def has_answered(self) -> bool:
        """Whether the host has answered lately."""
        return self._memory.has_answered(self._hash)

    @property
    def _news(self) -> News | None:
        """What holds now: one silence of a host that answers means nothing, and no verdict holds for ever."""
        news = self._memory.news(self._hash)
        if not news or (news.kind != GIVEN_UP and self.has_answered):
            return None
        return news if news.kind == RESTS or news.until > time.monotonic() else None

    def check(self) -> None:
        """Raises HostGivenUp."""
        if (news := self._news) and news.kind != RESTS:
            raise HostGivenUp(news.reason, self._detail(news), final=True)

    def _detail(self, news: News) -> str:
        """The same words, whichever process has asked the host, if it is silent or does not exist."""
        if news.kind == SILENT:
            return f"{self._host} was silent, and some seconds later as well"
        if news.reason is Reason.DNS:
            return UNKNOWN_NAME
        return self._verdict or f"{self._host} has been given up for a while"

    @property
    def may_ask(self) -> bool:
        """Whether a row may ask the host: it neither rests nor is given up."""
        news = self._news
        return not news or (news.kind == RESTS and news.until <= time.monotonic())

    def timeout_s(self, attempt_s: float) -> float:
        """Seconds until the host must have sent a byte, if an attempt has `attempt_s` in all."""
        if self.has_answered:
            return attempt_s
        enough_s = max(LAST_TIMEOUT_S, attempt_s / 3) if self._news else FIRST_TIMEOUT_S
        return min(attempt_s, max(enough_s, USUAL_FACTOR * self._memory.usual_s))

    def claim_request(self, attempt_s: float) -> bool:
        """Whether a request may start, and then counts as started: if the host was silent, its other rows rest
        meanwhile, in all processes."""
        if not self._news:
            return True
        with self._memory.alone():
            if not self.may_ask:
                return False
            if news := self._news:
                until = time.monotonic() + self.timeout_s(attempt_s) + DECISION_S
                self._memory.learn(self._hash, news._replace(until=until))
            return True

    def answered(self, took_s: float) -> None:
        """Notes a response that began `took_s` after its request."""
        self._failures = self._rounds = 0
        self._memory.usual_s += (took_s - self._memory.usual_s) * USUAL_WEIGHT
        self._end_silence(ANSWERS)
        if not self.has_answered:
            self._memory.note_answer(self._hash)

    def _end_silence(self, kind: int) -> None:
        if (news := self._memory.news(self._hash)) and news.kind in (RESTS, SILENT):
            self._learn(kind, news.reason, 0.0)

    def failed(self, failure: FetchFailed, started: float) -> None:
        """Counts an attempt, which started at a time, without a response, or with one that asks for a pause."""
        self._failures += 1
        if started >= self._round_started:
            self._rounds, self._round_started = self._rounds + 1, time.monotonic()
        if not failure.silent and failure.reason is not Reason.DNS:
            self._end_silence(SPEAKS)
        wait_s = failure.retry_after_s or 0.0
        if wait_s > MAX_BACK_OFF_S:
            self._give_up(failure.reason, f"{self._host} asks for {wait_s:.0f} s without requests", wait_s)
        elif failure.reason is Reason.DNS and failure.final:
            self._give_up(failure.reason, failure.detail, MEMORY_S)
        elif failure.silent and not self.has_answered:
            self._was_silent(failure.reason, started)
        elif self._failures >= MAX_CONSECUTIVE_FAILURES and self._rounds >= MIN_ROUNDS:
            for_s = SHORT_MEMORY_S if self.has_answered else MEMORY_S
            self._give_up(failure.reason, f"given up on {self._host} after {self._failures} failures in a row", for_s)

    def _was_silent(self, reason: Reason, started: float) -> None:
        news = self._news
        if not news:
            self._learn(RESTS, reason, REST_S)
        elif news.kind == RESTS and started > news.at:  # else it is one more of the first requests
            self._learn(SILENT, reason, SILENT_MEMORY_S)

    def _give_up(self, reason: Reason, verdict: str, for_s: float) -> None:
        self._verdict = verdict
        self._learn(GIVEN_UP, reason, min(for_s, MEMORY_S))

    def _learn(self, kind: int, reason: Reason, for_s: float) -> None:
        now = time.monotonic()
        self._memory.learn(self._hash, News(kind, now, now + for_s, reason))
