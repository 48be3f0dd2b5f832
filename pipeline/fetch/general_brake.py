"""Stops before going on when hosts that have nothing in common fail in the same way: then the cause may be one, such as
the page of a captive portal, a proxy, or an address that everybody has blocked."""

from __future__ import annotations

import asyncio
import collections
import datetime
import time
from collections.abc import Awaitable, Callable

from models.errors import UserError
from pipeline.fetch.shared_folder import warn_once
from pipeline.sources.url_hosts import host_of

MIN_HOSTS = 50  # that fail in the same way, one after another
GOOD_URLS = 3  # of different hosts, which have given an image
PROBE_INTERVAL_S, MAX_PAUSE_S = 10.0, 600.0

Ask = Callable[[str], Awaitable[str]]
"""Fetches a URL once more. Returns the reason for which it fails, or ""."""


class SameFailures:
    """The hosts of one process that have failed in the same way since the last image."""

    def __init__(self) -> None:
        self.good: collections.deque[tuple[str, str]] = collections.deque(maxlen=GOOD_URLS)  # host and URL
        self.restored_at = 0.0  # on time.monotonic(): end of the last pause
        self._reason, self._hosts, self._limit = "", set[str](), MIN_HOSTS

    def fetched(self, url: str) -> None:
        self._hosts.clear()
        if len(self.good) < GOOD_URLS and host_of(url) not in dict(self.good):
            self.good.append((host_of(url), url))

    def is_suspect(self, reason: str, host: str) -> bool:
        """Counts a failure. Whether there are so many that the cause may be one."""
        if reason != self._reason:
            self._reason, self._hosts = reason, set()
        self._hosts.add(host)
        return bool(self.good) and len(self._hosts) >= self._limit

    def acquit(self) -> None:
        """The hosts were at fault themselves; so will more of them be."""
        self._hosts.clear()
        self._limit *= 2


class GeneralBrake:
    """Holds the rows of one event loop while everything fails in the same way."""

    def __init__(self, failures: SameFailures, folder: str):
        self._failures, self._folder = failures, folder
        self._lock = asyncio.Lock()

    async def blames(self, reason: str, host: str, started: float, ask: Ask) -> bool:
        """Whether a failure is the host's own. False, after a pause, if what has given images fails as well: then the
        row is to be fetched again. Raises UserError if that does not end."""
        if started > self._failures.restored_at and not self._failures.is_suspect(reason, host):
            return True
        async with self._lock:  # one row tests, for all
            if started <= self._failures.restored_at:
                return False
            if not self._failures.is_suspect(reason, host):
                return True
            if not await self._is_general(reason, ask):
                self._failures.acquit()
                return True
            await self._wait(reason, ask)
            return False

    async def _is_general(self, reason: str, ask: Ask) -> bool:
        """Whether every URL that has given an image fails now, and for this reason."""
        for _, url in self._failures.good:
            if await ask(url) != reason:
                return False
        return True

    async def _wait(self, reason: str, ask: Ask) -> None:
        started = time.monotonic()
        warn_once(
            f"{datetime.datetime.now():%H:%M}: all hosts fail with {reason}, those that gave images as well; waiting",
            self._folder,
        )
        while await self._is_general(reason, ask):
            if time.monotonic() - started > MAX_PAUSE_S:
                raise UserError(
                    f"all hosts have failed with {reason} for {MAX_PAUSE_S / 60:.0f} min, as well those that gave "
                    "images before; see whether a proxy, a login page or a block is in the way, then run the same "
                    "command again"
                )
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._failures.restored_at = time.monotonic()


same_failures = SameFailures()
"""Of this process."""
