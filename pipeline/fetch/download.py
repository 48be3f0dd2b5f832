"""One attempt at one URL: bounded in time and bytes, checked at every redirect, polite to the host."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import ipaddress
import socket
import ssl
import tempfile
import time
from collections.abc import Awaitable
from functools import partial
from typing import BinaryIO, NamedTuple, TypeVar, cast

import aiohttp  # asynchronous, pooled, and its resolver can be replaced, which the address check needs
from yarl import URL

from models.errors import UserError
from pipeline.fetch.addresses import (
    NoAnswer,
    PublicResolver,
    RefusedAddress,
    address_key,
    is_refused,
    literal_address,
    registrable_domain,
)
from pipeline.fetch.costs import costs
from pipeline.fetch.dead_hosts import UNKNOWN_NAME, host_memory
from pipeline.fetch.framing_watch import FramingWatch
from pipeline.fetch.machine_faults import machine_fault
from pipeline.fetch.network_watch import Endpoint, NetworkGate, can_connect, network_watch
from pipeline.fetch.opt_out import OPT_OUTS, opt_out
from pipeline.fetch.politeness import GroupLimiter, HostLimiter, asks_for_pause, shared_host
from pipeline.fetch.retry import FetchFailed, retry_after_s
from pipeline.fetch.shared_folder import warn_once
from pipeline.fetch.slots import ActiveRows, SilentDownloads, Slot
from pipeline.fetch.urls import parse_url, redirect_target
from pipeline.images.fetched import Size
from pipeline.images.validate import ImageConfig, ImageRejected, check_header
from pipeline.output.counts import DOWNLOAD_S
from pipeline.output.files import machine_fault_of
from pipeline.records import TRANSIENT_REASONS, Reason
from pipeline.sources.hosts import HostLimits, is_placeholder, lacks_contact, limits_for
from pipeline.version import VERSION

MAX_REDIRECTS = 5
HEADER_SIZES = (1_024, 8_192, 65_536)  # bytes after which the image header is parsed: long EXIF data may come before it
SPOOLED_BYTES = 1 << 18  # of one body in memory; a longer one waits on disk until there is memory to decode it
REASONS = {403: Reason.HTTP_403, 404: Reason.HTTP_404, 408: Reason.TIMEOUT, 410: Reason.HTTP_410, 429: Reason.HTTP_429}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Error numbers of the system for a host that does not answer, or of a network that is down.
UNREACHABLE = frozenset(
    {
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
    }
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """How to download. The defaults are meant not to get their user blocked."""

    timeout_s: float = 30.0  # for one attempt, redirects included
    connect_timeout_s: float = 5.0  # of these, to connect: long enough for two packets that are lost
    retries: int = 2  # after a transient reason
    max_bytes: int = 50_000_000
    connections: int = 128  # at once in one worker process; hosts that answer late keep most of them waiting
    per_host_connections: int = 4  # at once
    per_host_rate: float = 20.0  # requests/s
    machines: int = 1  # that share the limits of a host; each has a part of them
    user_agent: str = f"pairmill/{VERSION} (image-caption dataset builder)"
    obey: tuple[str, ...] = OPT_OUTS  # directives of X-Robots-Tag, and TDM-Reservation
    allow_addresses: tuple[str, ...] = ()  # networks in CIDR form that are allowed though not public
    memory_bytes: int = 400_000_000  # of images being decoded or waiting, in one process
    shared_folder: str = ""  # in which the workers of one machine share a host's limits; if empty, each has its own


class Body(NamedTuple):
    """The complete body of a response."""

    file: BinaryIO  # in memory, or on disk if it is long
    length: int  # bytes
    size: Size | None  # (width, height) in px, if the first bytes hold them


class Downloads:
    """What the downloads of one worker share: the connection pool, the limiters of the hosts, and connection slots.

    A download acquires a slot before it connects. One that ends with a body keeps its slot until the caller releases
    it, so a slow caller slows the downloads. While a host is silent, its slot is given to others.
    """

    def __init__(self, config: FetchConfig, image_config: ImageConfig, rows: int = 1):
        self._config, self._image_config = config, image_config
        self._allowed = [ipaddress.ip_network(network) for network in config.allow_addresses]
        self._limiters: dict[str, HostLimiter] = {}
        self._groups: dict[bytes | str, GroupLimiter] = {}  # by address and by registrable domain
        self.rows = ActiveRows(rows)
        self._memory = host_memory(config.shared_folder)
        self._network = NetworkGate(network_watch, config.shared_folder)
        self._resolver = PublicResolver(self._allowed)
        self.slots = asyncio.Semaphore(config.connections)
        self._silent = SilentDownloads()

    def busy_rows(self) -> int:
        """The rows that take, or wait for, a connection: neither done, nor of a host that is silent."""
        return self.rows.number - self._silent.number

    async def __aenter__(self) -> Downloads:
        config = self._config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=self._resolver, use_dns_cache=False),  # ours, and slots
            headers={"User-Agent": config.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),  # nothing is remembered, so nothing is sent
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=config.connect_timeout_s
            ),  # _in_time bounds the rest
        )
        return self

    async def __aexit__(self, *exception) -> None:
        await self._session.close()
        await self._resolver.close()

    async def get(self, url: str) -> Body:
        """Follows redirects by hand, so that each target is checked. All requests together have `timeout_s`, which does
        not include waiting for slots and name servers. Raises FetchFailed, ImageRejected, and UserError for a fault of
        this machine."""
        target, left_s = parse_url(url), self._config.timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            if is_placeholder(target):
                raise FetchFailed(Reason.PLACEHOLDER, str(target))
            answer, left_s = await self._ask(target, left_s)
            if isinstance(answer, Body):
                return answer
            target = answer
        raise FetchFailed(Reason.HTTP_OTHER, f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, target: URL, left_s: float) -> tuple[Body | URL, float]:
        """The body, or the URL that the server redirects to; and the seconds left. Asks again if it was the network
        that was down, and while it is not known whether the host ever answers."""
        host = (target.raw_host or "").lower()
        limiter = self._limiter(host)
        while True:
            await limiter.ready()
            started, is_trial = time.monotonic(), not limiter.has_answered
            try:
                address = await self._address(host, limiter)
            except FetchFailed as failure:
                await self._handle_failure(failure, target, limiter, started, is_trial)
                continue
            answer, left_s = await self._in_slot(target, limiter, address, left_s)
            if answer is not None:
                return answer, left_s

    async def _handle_failure(
        self, failure: FetchFailed, target: URL, limiter: HostLimiter, started: float, is_trial: bool
    ) -> None:
        """Raises the failure, or returns if the row is to be asked for again: after silence of the network, once that
        is back, or of a host that had never answered before the request."""
        if not failure.silent:
            raise failure
        host = (target.raw_host or "").lower()
        if await self._network.blames(host, started, partial(self._answers, target, limiter)):
            limiter.failed(failure, started)
            if not is_trial:
                raise failure

    async def _answers(self, target: URL, limiter: HostLimiter) -> bool:
        """Whether a host that was silent answers now."""
        try:
            address = await self._address((target.raw_host or "").lower(), limiter)
        except FetchFailed as failure:
            return not failure.silent
        return await can_connect(address, target.port or 80)

    async def _in_slot(
        self, target: URL, limiter: HostLimiter, address: str, left_s: float
    ) -> tuple[Body | URL | None, float]:
        """The answer, and the seconds left; None if the host is to be asked again. A failure is counted before the
        host's next row may have the slot."""
        endpoint = Endpoint(str(target.raw_host), address, target.port or 80)
        async with limiter.slot(self._groups_of(endpoint), self.slots):
            slot = Slot(self.slots, self._silent)
            started, is_trial = time.monotonic(), not limiter.has_answered
            answer: Body | URL | None = None
            try:
                try:  # waiting for a slot does not count against the deadline
                    answer = await self._request(target, limiter, endpoint, started + left_s, slot)
                finally:
                    costs.add(DOWNLOAD_S, time.monotonic() - started - slot.waited_s)
                    slot.end(is_kept=isinstance(answer, Body))
            except FetchFailed as failure:
                await self._handle_failure(failure, target, limiter, started, is_trial)
                return None, left_s
            return answer, left_s - (time.monotonic() - started - slot.waited_s)

    async def _address(self, host: str, limiter: HostLimiter) -> str:
        """The address to which the first connection goes. Raises FetchFailed if there is none that is public."""
        started = time.monotonic()
        if address := literal_address(host):
            if is_refused(address, self._allowed):
                raise FetchFailed(Reason.REFUSED_ADDRESS, f"{host} is {address}")
            return address
        try:
            found = await self._resolver.addresses(host)
        except Exception as error:  # the resolver's own, the system's, and what Python's encoding of names raises
            failure = self._failure(error)
            if failure.final:
                network_watch.resolved()
                limiter.failed(failure, started)
            raise failure from error
        network_watch.resolved()
        return found[0].address if found else host

    def _groups_of(self, endpoint: Endpoint) -> list[GroupLimiter]:
        """The domain's before the address's: who waits for a slot of an address holds up its own domain alone."""
        host, address = endpoint.host.lower(), endpoint.address
        return [self._group(key) for key in (registrable_domain(host), address_key(address)) if key]

    def _group(self, key: bytes | str) -> GroupLimiter:
        if key not in self._groups:
            limits = HostLimits(self._config.per_host_connections, self._config.per_host_rate)
            self._groups[key] = GroupLimiter(key, limits.share(self._config.machines))
        return self._groups[key]

    def _limiter(self, host: str) -> HostLimiter:
        if host not in self._limiters:
            if lacks_contact(host, self._config.user_agent):
                warn_once(
                    f"{host} blocks clients that name no contact: give --contact, a URL or an e-mail address",
                    self._config.shared_folder,
                )
            limits = HostLimits(self._config.per_host_connections, self._config.per_host_rate)
            shared = shared_host(host, self._config.shared_folder)
            limits = limits_for(host, limits).share(self._config.machines)
            health = self._memory.health(host)
            self._limiters[host] = HostLimiter(health, limits, self.rows, self._config.timeout_s, shared)
        return self._limiters[host]

    async def _request(
        self, target: URL, limiter: HostLimiter, endpoint: Endpoint, ends_at: float, slot: Slot
    ) -> Body | URL:
        """Sends one request. Returns the body, or the URL that the server redirects to."""
        started = time.monotonic()
        speaks_by = min(ends_at, started + limiter.timeout_s)
        try:
            response = await self._in_time(speaks_by, self._session.get(target, allow_redirects=False))
        except FetchFailed as failure:
            if failure.reason in TRANSIENT_REASONS and not failure.silent:
                network_watch.answered(endpoint)
                limiter.failed(failure, started)
            raise
        network_watch.answered(endpoint)
        if response.status != 429 and "Retry-After" not in response.headers:
            limiter.answered(time.monotonic() - started)
        try:
            await slot.take_back()
            answer = await self._in_time(ends_at + slot.waited_s, self._read_response(target, response))
            if isinstance(answer, Body):
                limiter.count_bytes(answer.length)
            return answer
        except FetchFailed as failure:
            failure.silent = False
            if asks_for_pause(failure):
                limiter.failed(failure, started)
            raise
        finally:
            response.release()  # closes the connection if part of the body is unread

    async def _in_time(self, ends_at: float, awaitable: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(awaitable, ends_at - time.monotonic())
        except (FetchFailed, ImageRejected, UserError):
            raise
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> FetchFailed:
        """The failure for which an exception of the client library stands. Raises UserError for a fault of this
        machine, and the exception itself if it is not a known one."""
        if fault := machine_fault(error):
            raise fault from error
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return FetchFailed(Reason.TIMEOUT, f"not connected after {self._config.connect_timeout_s:g} s", silent=True)
        if isinstance(error, asyncio.TimeoutError):  # before OSError, a base class of it since Python 3.11
            return FetchFailed(Reason.TIMEOUT, f"not done after {self._config.timeout_s:g} s", silent=True)
        if isinstance(error, RefusedAddress):
            return FetchFailed(Reason.REFUSED_ADDRESS, str(error))
        if isinstance(error, NoAnswer):
            return FetchFailed(Reason.DNS, str(error), silent=True)
        if isinstance(error, (aiohttp.ClientConnectorDNSError, socket.gaierror)):
            return FetchFailed(Reason.DNS, UNKNOWN_NAME, final=True)
        if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):  # UnicodeError: an impossible host name
            return FetchFailed(Reason.BAD_URL, str(error))
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return FetchFailed(Reason.CONNECTION, f"TLS: {error.certificate_error}", final=True)
        if isinstance(error, (aiohttp.ClientError, ssl.SSLError, OSError, ValueError, RuntimeError)):
            # ValueError: what the client raises for header lines that are not HTTP; RuntimeError: for a connection
            # that was closed, on broken chunks for example, before the body is waited for.
            silent = getattr(error, "errno", None) in UNREACHABLE
            return FetchFailed(Reason.CONNECTION, f"{type(error).__name__}: {error}", silent=silent)
        raise error

    async def _read_response(self, target: URL, response: aiohttp.ClientResponse) -> Body | URL:
        if response.status in REDIRECTS and "Location" in response.headers:
            return redirect_target(target, response.headers["Location"])
        _check_response(response, self._config)
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(SPOOLED_BYTES))  # noqa: SIM115 (the caller closes it)
        try:
            length, size = await self._read(target, response, file)
        except BaseException:
            file.close()
            raise
        return Body(file, length, size)

    async def _read(self, target: URL, response: aiohttp.ClientResponse, file: BinaryIO) -> tuple[int, Size | None]:
        """Writes the body to the file. Returns its length in bytes, and the image's (width, height) in px if the first
        bytes hold them. Raises FetchFailed or ImageRejected as soon as either is out of bounds."""
        length, size, start, check_at = 0, None, bytearray(), list(HEADER_SIZES)
        with FramingWatch(response):
            async for chunk in response.content.iter_chunked(1 << 16):
                length += len(chunk)
                costs.downloaded(len(chunk))
                if length > self._config.max_bytes:
                    raise FetchFailed(Reason.TOO_LARGE, f"more than {self._config.max_bytes} bytes")
                try:
                    file.write(chunk)
                except OSError as error:
                    raise machine_fault_of(error) from error
                if check_at and not size:
                    start += chunk
                    if is_placeholder(target, bytes(start[:8])):
                        raise FetchFailed(Reason.PLACEHOLDER, f"{bytes(start[:8])!r} under the name of a JPEG")
                    if length >= check_at[0]:
                        check_at = [position for position in check_at if position > length]
                        size = check_header(bytes(start[: HEADER_SIZES[-1]]), self._image_config)
        if not length:
            raise FetchFailed(Reason.NOT_AN_IMAGE, "empty reply")
        return length, size


def _check_response(response: aiohttp.ClientResponse, config: FetchConfig) -> None:
    status = response.status
    if status != 200:
        reason = REASONS.get(status, Reason.HTTP_5XX if status >= 500 else Reason.HTTP_OTHER)
        raise FetchFailed(reason, f"status {status}", retry_after_s(response.headers.get("Retry-After")))
    if header := opt_out(response.headers, config.obey):
        raise FetchFailed(Reason.OPTED_OUT, header)
    if (response.content_length or 0) > config.max_bytes:
        raise FetchFailed(Reason.TOO_LARGE, f"{response.content_length} bytes announced")
