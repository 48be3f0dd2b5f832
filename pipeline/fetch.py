"""Polite, bounded, safe downloads: pairs in, checked pictures or reasons out.

Every picture ends: an attempt has a deadline from connecting to the last byte and a cap on bytes, attempts and
redirects are counted, and only a reason that may pass is tried again. Addresses that are not public are refused after
name resolution and at every redirect, since a list from the web may point anywhere.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import ipaddress
import itertools
import queue
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp  # asynchronous, pooled, and its resolver can be replaced, which the address check needs
import numpy as np
from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from pipeline.pictures import PictureConfig, PictureRejected, check_beginning, decode
from pipeline.records import PASSING_REASONS, Pair, Reason, Rejected, Stage, reject
from pipeline.version import VERSION

MAX_REDIRECTS = 5
BEGINNINGS = (8_192, 65_536)  # bytes after which the header is looked at: enough without, and with, large EXIF data
BACK_OFF_S, MAX_BACK_OFF_S = 1.0, 60.0
OPT_OUT_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex"})  # the set that img2dataset obeys
# Where hosts redirect to when the picture is gone (Flickr's is the one met in YFCC100M).
PLACEHOLDER_PATH = re.compile(r"/photo_(unavailable|deleted|not_found)[^/]*\.(png|gif|jpg)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """How to download. The defaults are meant not to get their user blocked."""

    timeout_s: float = 30.0  # for one attempt, redirects included
    retries: int = 2  # after a reason that may pass
    max_bytes: int = 50_000_000
    connections: int = 32  # at once in one worker process
    per_host_connections: int = 4  # at once in one worker process
    per_host_rate: float = 20.0  # requests/s in one worker process
    user_agent: str = f"pairmill/{VERSION} (image-caption dataset builder)"
    obey_opt_out: bool = True  # X-Robots-Tag and TDM-Reservation
    allow_addresses: tuple[str, ...] = ()  # networks in CIDR form that are refused otherwise


class Fetched(NamedTuple):
    """A picture that arrived whole and decodes."""

    pair: Pair
    data: bytes  # as served
    rgb_HWC: np.ndarray  # upright, uint8
    sha256: str  # of data


class FetchFailed(Exception):
    def __init__(self, reason: Reason, detail: str, retry_after_s: float | None = None):
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail, self.retry_after_s = reason, detail, retry_after_s


class RefusedAddress(Exception):
    """Not an OSError on purpose: the client library would take that for a failed connection."""


def fetch_pictures(pairs: Iterable[Pair], config: FetchConfig, pictures: PictureConfig) -> Iterator[Fetched | Rejected]:
    """One outcome for each pair, in the order in which they are done.

    The event loop runs in a thread of its own and waits while the caller is busy: at most `connections` pictures and
    as many outcomes are held at once.
    """
    outcomes: queue.Queue = queue.Queue(maxsize=config.connections)
    stopped = threading.Event()
    ended = object()

    def put(item) -> None:
        while not stopped.is_set():
            try:
                return outcomes.put(item, timeout=0.5)
            except queue.Full:
                continue

    def run() -> None:
        try:
            asyncio.run(_fetch_all(interleave_hosts(pairs), config, pictures, put))
            put(ended)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=run, name="fetch", daemon=True)
    thread.start()
    try:
        while (outcome := outcomes.get()) is not ended:
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        stopped.set()
        thread.join()


def interleave_hosts(pairs: Iterable[Pair]) -> list[Pair]:
    """One of each host in turn, so that a slow host does not hold up those behind it."""
    by_host: dict[str, collections.deque[Pair]] = {}
    for pair in pairs:
        by_host.setdefault(urlsplit(pair.url).netloc, collections.deque()).append(pair)
    turn, ordered = collections.deque(by_host.values()), []
    while turn:
        waiting = turn.popleft()
        ordered.append(waiting.popleft())
        if waiting:
            turn.append(waiting)
    return ordered


async def _fetch_all(pairs: list[Pair], config: FetchConfig, pictures: PictureConfig, put) -> None:
    loop = asyncio.get_running_loop()
    remaining = iter(pairs)
    with concurrent.futures.ThreadPoolExecutor(2, "decode") as decoders:
        async with Client(config, pictures, decoders) as client:

            async def worker() -> None:
                for pair in remaining:
                    outcome = await client.fetch(pair)
                    await loop.run_in_executor(None, put, outcome)

            await asyncio.gather(*(worker() for _ in range(min(config.connections, len(pairs)))))


class Client:
    """What the downloads of one worker share: the connection pool, the gates of the hosts, the decoding threads."""

    def __init__(self, config: FetchConfig, pictures: PictureConfig, decoders: concurrent.futures.Executor):
        self._config, self._pictures, self._decoders = config, pictures, decoders
        self._allowed = [ipaddress.ip_network(network) for network in config.allow_addresses]
        self._hosts: dict[str, HostGate] = collections.defaultdict(lambda: HostGate(config))

    async def __aenter__(self) -> Client:
        config = self._config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=config.connections, resolver=PublicResolver(self._allowed),
                                           ttl_dns_cache=300),
            headers={"User-Agent": config.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),  # nothing is remembered, so nothing is sent
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline is ours
        )
        return self

    async def __aexit__(self, *exception) -> None:
        await self._session.close()

    async def fetch(self, pair: Pair) -> Fetched | Rejected:
        """Tries the URL, then the fallbacks; the first URL's failure is the one reported."""
        first_failure = None
        for url in (pair.url, *pair.fallback_urls):
            try:
                data = await self._with_retries(url)
                loop = asyncio.get_running_loop()
                rgb_HWC = await loop.run_in_executor(self._decoders, decode, data, self._pictures)
                return Fetched(pair, data, rgb_HWC, hashlib.sha256(data).hexdigest())
            except (FetchFailed, PictureRejected) as failure:
                first_failure = first_failure or failure
        return reject(pair, Stage.FETCH, first_failure.reason, first_failure.detail)

    async def _with_retries(self, url: str) -> bytes:
        for attempt in itertools.count():
            try:
                return await self._download(url)
            except FetchFailed as failure:
                if failure.reason not in PASSING_REASONS or attempt == self._config.retries:
                    raise
                # Full jitter: many rows that failed together must not come back together.
                wait_s = max(random.uniform(0, BACK_OFF_S * 2**attempt), failure.retry_after_s or 0)
                await asyncio.sleep(min(MAX_BACK_OFF_S, wait_s))

    async def _download(self, url: str) -> bytes:
        """One attempt: follows redirects by hand, so that each hop is checked. Raises FetchFailed, PictureRejected."""
        target, left_s = _parse_url(url), self._config.timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            _refuse_literal_address(target, self._allowed)
            async with self._hosts[target.host].slot():  # waiting for a turn does not count against the deadline
                started = time.monotonic()
                try:
                    answer = await asyncio.wait_for(self._request(target), left_s)
                except asyncio.TimeoutError:
                    raise FetchFailed(Reason.TIMEOUT, f"not done after {self._config.timeout_s:g} s") from None
                left_s -= time.monotonic() - started
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise FetchFailed(Reason.HTTP_OTHER, f"more than {MAX_REDIRECTS} redirects")

    async def _request(self, target: URL) -> bytes | URL:
        """The body, or where the server redirects to."""
        try:
            async with self._session.get(target, allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                    return _redirect_target(target, response.headers["Location"])
                _check_response(response, self._config)
                return await _read(response, self._config, self._pictures)
        except RefusedAddress as error:
            raise FetchFailed(Reason.REFUSED_ADDRESS, str(error)) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise FetchFailed(Reason.DNS, f"{target.host}: name does not resolve") from error
        except aiohttp.InvalidURL as error:
            raise FetchFailed(Reason.BAD_URL, str(error)) from error
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            # ValueError: what the client raises for header lines that are not HTTP.
            raise FetchFailed(Reason.CONNECTION, f"{type(error).__name__}: {error}"[:200]) from error


def _parse_url(url: str) -> URL:
    try:
        target = URL(url)
        if target.scheme not in ("http", "https") or not target.host:
            raise ValueError("not an http(s) URL with a host")
        return target.with_user(None)  # credentials in a public list are a mistake or a trap
    except ValueError as error:
        raise FetchFailed(Reason.BAD_URL, str(error)) from error


def _redirect_target(current: URL, location: str) -> URL:
    try:
        target = current.join(URL(location))
    except ValueError as error:
        raise FetchFailed(Reason.BAD_URL, f"redirect to {location[:100]!r}: {error}") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise FetchFailed(Reason.REFUSED_ADDRESS, f"redirect to {location[:100]!r}")
    if PLACEHOLDER_PATH.search(target.path):
        raise FetchFailed(Reason.PLACEHOLDER, str(target))
    return target.with_user(None)


def _check_response(response: aiohttp.ClientResponse, config: FetchConfig) -> None:
    status = response.status
    if status != 200:
        known = {404: Reason.HTTP_404, 410: Reason.HTTP_410, 403: Reason.HTTP_403, 429: Reason.HTTP_429}
        reason = known.get(status, Reason.HTTP_5XX if status >= 500 else Reason.HTTP_OTHER)
        raise FetchFailed(reason, f"status {status}", _retry_after_s(response.headers.get("Retry-After")))
    if config.obey_opt_out and (said := opt_out(response.headers)):
        raise FetchFailed(Reason.OPTED_OUT, said)
    if PLACEHOLDER_PATH.search(response.url.path):
        raise FetchFailed(Reason.PLACEHOLDER, str(response.url))
    if (response.content_length or 0) > config.max_bytes:
        raise FetchFailed(Reason.TOO_LARGE, f"{response.content_length} bytes announced")


async def _read(response: aiohttp.ClientResponse, config: FetchConfig, pictures: PictureConfig) -> bytes:
    """The body, dropped as soon as its size or its picture header is out of bounds."""
    data, looked_at = bytearray(), 0
    async for chunk in response.content.iter_chunked(1 << 16):
        data += chunk
        if len(data) > config.max_bytes:
            raise FetchFailed(Reason.TOO_LARGE, f"more than {config.max_bytes} bytes")
        while looked_at < len(BEGINNINGS) and len(data) >= BEGINNINGS[looked_at]:
            check_beginning(bytes(data[: BEGINNINGS[looked_at]]), pictures)
            looked_at += 1
    if not data:
        raise FetchFailed(Reason.NOT_AN_IMAGE, "empty reply")
    return bytes(data)


def opt_out(headers) -> str | None:
    """The header by which a site keeps its pictures out of training sets, or None.

    X-Robots-Tag directives may be addressed to one robot ("somebot: noai"); those for others don't count.
    """
    for value in headers.getall("X-Robots-Tag", []):
        for part in value.split(","):
            agent, _, directive = part.rpartition(":")
            if directive.strip().lower() in OPT_OUT_DIRECTIVES and agent.strip().lower() in ("", "*", "pairmill"):
                return f"X-Robots-Tag: {part.strip()}"
    if headers.get("TDM-Reservation", "").strip() == "1":
        return "TDM-Reservation: 1"
    return None


def _retry_after_s(value: str | None) -> float | None:
    """Seconds or an HTTP date; None if absent or unreadable."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


# --- addresses -------------------------------------------------------------------------------------------------------


def is_refused(address: str, allowed: list) -> bool:
    """Whether an address is private, loopback, link-local (metadata services), multicast or otherwise not public."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if (mapped := getattr(ip, "ipv4_mapped", None)) is not None:
        ip = mapped
    return (not ip.is_global or ip.is_multicast) and not any(ip in network for network in allowed)


def _refuse_literal_address(target: URL, allowed: list) -> None:
    try:
        refused = is_refused(target.host, allowed)
    except ValueError:
        return  # a name: the resolver decides
    if refused:
        raise FetchFailed(Reason.REFUSED_ADDRESS, target.host)


class PublicResolver(AbstractResolver):
    """Names to public addresses only. The connection goes to the very address checked here, so that a name which
    changes its answer between check and use (DNS rebinding) gains nothing."""

    def __init__(self, allowed: list):
        self._allowed = allowed
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC):
        answers = await self._resolver.resolve(host, port, family)
        public = [answer for answer in answers if not is_refused(answer["host"], self._allowed)]
        if answers and not public:
            raise RefusedAddress(f"{host} is {answers[0]['host']}")
        return public

    async def close(self) -> None:
        await self._resolver.close()


# --- manners ---------------------------------------------------------------------------------------------------------


class HostGate:
    """At most so many requests to one host at once, and so many a second."""

    def __init__(self, config: FetchConfig):
        self._slots = asyncio.Semaphore(config.per_host_connections)
        self._interval_s = 1 / config.per_host_rate
        self._next_start = 0.0

    @contextlib.asynccontextmanager
    async def slot(self):
        async with self._slots:
            now = time.monotonic()
            start, self._next_start = self._next_start, max(now, self._next_start) + self._interval_s
            if start > now:
                await asyncio.sleep(start - now)
            yield
