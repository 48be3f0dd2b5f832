"""Whether the network works: hosts that are silent are at fault only while others answer."""

from __future__ import annotations

import asyncio
import collections
import datetime
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from models.errors import UserError
from pipeline.fetch.shared_folder import warn_once

MIN_SILENT_HOSTS = 10  # before any host has answered: so many different ones in a row are a network that is down
GOOD_HOSTS = 8  # that have answered, and are asked when others are silent
GOOD_INTERVAL_S = 1.0
FRESH_S = 2.0  # after which the last sign of life proves nothing, however long an attempt took
PROBE_INTERVAL_S, PROBE_TIMEOUT_S = 5.0, 5.0
MAX_PAUSE_S = 600.0


class Endpoint(NamedTuple):
    """Where a host has answered."""

    host: str
    address: str
    port: int


class NetworkWatch:
    """Signs of life, of one process. Connecting to some host that has answered before is the test."""

    def __init__(self) -> None:
        self._good: collections.deque[Endpoint] = collections.deque(maxlen=GOOD_HOSTS)
        self._silent: set[str] = set()  # since the last sign of life
        self._added_at = -GOOD_INTERVAL_S
        self.alive_at = 0.0  # on time.monotonic(), as the next
        self.restored_at = 0.0  # end of the last pause

    def answered(self, endpoint: Endpoint) -> None:
        """Notes that a host has sent something, were it a refusal."""
        now = time.monotonic()
        if self._silent:
            self._silent.clear()
        if now - self._added_at > GOOD_INTERVAL_S and endpoint not in self._good:
            self._good.append(endpoint)
            self._added_at = now
        self.alive_at = now

    def resolved(self) -> None:
        """Notes that a name server has answered, which proves little once hosts have."""
        if not self._good:
            self.alive_at = time.monotonic()
            self._silent.clear()

    async def is_suspect(self, host: str) -> bool:
        """Whether the silence of a host may be the network's: nothing else answers either."""
        self._silent.add(host)
        if self._good:
            return not await self.test()
        return len(self._silent) >= MIN_SILENT_HOSTS

    async def test(self) -> bool:
        """Whether one of the hosts that have answered can be connected to: one is asked, then all."""
        if not self._good or not (
            await _answers(random.choice(self._good)) or any(await asyncio.gather(*map(_answers, self._good)))
        ):
            return False
        self.alive_at = time.monotonic()
        self._silent.clear()
        return True

    @property
    def silent_hosts(self) -> int:
        return len(self._silent)


async def _answers(endpoint: Endpoint) -> bool:
    """Looks the name up anew, and connects to the address that was checked before."""
    try:
        lookup = asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port)
        await asyncio.wait_for(lookup, PROBE_TIMEOUT_S)
    except (OSError, asyncio.TimeoutError):
        return False
    return await can_connect(endpoint.address, endpoint.port)


async def can_connect(address: str, port: int) -> bool:
    """Whether an address answers, were it by a refusal."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PROBE_TIMEOUT_S)
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True


class NetworkGate:
    """Holds the rows of one event loop while the network is down."""

    def __init__(self, watch: NetworkWatch, folder: str):
        self._watch, self._folder = watch, folder
        self._lock = asyncio.Lock()

    async def blames(self, host: str, started: float, ask: Callable[[], Awaitable[bool]]) -> bool:
        """Whether the silence of a host since `started` is its own fault. False, after a pause, if the network was
        down: then the host is to be asked again. `ask` returns whether the host answers now. Raises UserError if the
        network does not come back."""
        since = max(started, time.monotonic() - FRESH_S)
        if self._watch.restored_at < started and since <= self._watch.alive_at:
            return True
        async with self._lock:  # one row tests, for all
            if self._watch.restored_at < started:
                if since <= self._watch.alive_at or not await self._watch.is_suspect(host):
                    return True
                await self._wait(ask)
            return False

    async def _wait(self, ask: Callable[[], Awaitable[bool]]) -> None:
        hosts, started = self._watch.silent_hosts, time.monotonic()
        warn_once(f"{datetime.datetime.now():%H:%M}: no host answers any more; waiting for the network", self._folder)
        while not (await self._watch.test() or await ask()):
            if time.monotonic() - started > MAX_PAUSE_S:
                raise UserError(
                    f"no host has answered for {MAX_PAUSE_S / 60:.0f} min, the last {hosts} asked in vain; see to the "
                    "network and the name servers, then run the same command again"
                )
            await asyncio.sleep(PROBE_INTERVAL_S)
        self._watch.restored_at = time.monotonic()


network_watch = NetworkWatch()
"""Of this process."""
