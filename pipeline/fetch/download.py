"""One attempt at one URL: bounded in time and bytes, checked at every redirect, polite to the host."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import re
import ssl
import tempfile
import time
from collections.abc import Awaitable
from typing import BinaryIO, NamedTuple, TypeVar, cast

import aiohttp  # asynchronous, pooled, and its resolver can be replaced, which the address check needs
from yarl import URL

from pipeline.fetch.addresses import PublicResolver, RefusedAddress, is_refused, literal_address
from pipeline.fetch.framing_watch import FramingWatch
from pipeline.fetch.opt_out import OPT_OUTS, opt_out
from pipeline.fetch.politeness import HostLimiter, shared_host, warn_once
from pipeline.fetch.retry import FetchFailed, retry_after_s
from pipeline.images.fetched import Size
from pipeline.images.validate import ImageConfig, check_header
from pipeline.records import TRANSIENT_REASONS, Reason
from pipeline.sources.hosts import HostLimits, is_placeholder, lacks_contact, limits_for
from pipeline.version import VERSION

MAX_REDIRECTS = 5
HEADER_SIZES = (1_024, 8_192, 65_536)  # bytes after which the image header is parsed: long EXIF data may come before it
SPOOLED_BYTES = 1 << 18  # of one body in memory; a longer one waits on disk until there is memory to decode it
REASONS = {403: Reason.HTTP_403, 404: Reason.HTTP_404, 408: Reason.TIMEOUT, 410: Reason.HTTP_410, 429: Reason.HTTP_429}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
WELL_FORMED = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")  # RFC 3986
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """How to download. The defaults are meant not to get their user blocked."""

    timeout_s: float = 30.0  # for one attempt, redirects included
    retries: int = 2  # after a transient reason
    max_bytes: int = 50_000_000
    connections: int = 128  # at once in one worker process; hosts that answer late keep most of them waiting
    per_host_connections: int = 4  # at once
    per_host_rate: float = 20.0  # requests/s
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
    it, so a slow caller slows the downloads.
    """

    def __init__(self, config: FetchConfig, image_config: ImageConfig):
        self._config, self._image_config = config, image_config
        self._allowed = [ipaddress.ip_network(network) for network in config.allow_addresses]
        self._limiters: dict[str, HostLimiter] = {}
        self.slots = asyncio.Semaphore(config.connections)

    async def __aenter__(self) -> Downloads:
        config = self._config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=config.connections, resolver=PublicResolver(self._allowed), ttl_dns_cache=300
            ),
            headers={"User-Agent": config.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),  # nothing is remembered, so nothing is sent
            timeout=aiohttp.ClientTimeout(total=None),  # _in_time bounds the time
        )
        return self

    async def __aexit__(self, *exception) -> None:
        await self._session.close()

    async def get(self, url: str) -> Body:
        """Follows redirects by hand, so that each target is checked. All requests together have `timeout_s`, which does
        not include waiting for slots. Raises FetchFailed, ImageRejected."""
        target, left_s = parse_url(url), self._config.timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            if is_placeholder(target):
                raise FetchFailed(Reason.PLACEHOLDER, str(target))
            host = target.raw_host or ""
            address = literal_address(host)
            if address and is_refused(address, self._allowed):
                raise FetchFailed(Reason.REFUSED_ADDRESS, f"{host} is {address}")
            limiter = self._limiter(host.lower())
            async with limiter.slot(self.slots):  # waiting for a slot does not count against the deadline
                started = time.monotonic()
                answer: Body | URL | None = None
                try:
                    answer = await self._request(target, limiter, started + left_s)
                finally:
                    if not isinstance(answer, Body):
                        self.slots.release()
                left_s -= time.monotonic() - started
            if isinstance(answer, Body):
                return answer
            target = answer
        raise FetchFailed(Reason.HTTP_OTHER, f"more than {MAX_REDIRECTS} redirects")

    def _limiter(self, host: str) -> HostLimiter:
        if host not in self._limiters:
            if lacks_contact(host, self._config.user_agent):
                warn_once(
                    f"{host} blocks clients that name no contact: give --contact, a URL or an e-mail address",
                    self._config.shared_folder,
                )
            limits = HostLimits(self._config.per_host_connections, self._config.per_host_rate)
            shared = shared_host(host, self._config.shared_folder)
            self._limiters[host] = HostLimiter(host, limits_for(host, limits), shared)
        return self._limiters[host]

    async def _request(self, target: URL, limiter: HostLimiter, ends_at: float) -> Body | URL:
        """Sends one request. Returns the body, or the URL that the server redirects to."""
        try:
            response = await self._in_time(ends_at, self._session.get(target, allow_redirects=False))
        except FetchFailed as failure:
            if failure.reason in TRANSIENT_REASONS:
                limiter.failed(failure)
            raise
        try:
            if response.status != 429:
                limiter.answered()
            answer = await self._in_time(ends_at, self._read_response(target, response))
            if isinstance(answer, Body):
                limiter.count_bytes(answer.length)
            return answer
        except FetchFailed as failure:
            if failure.reason is Reason.HTTP_429:
                limiter.failed(failure)
            raise
        finally:
            response.release()  # closes the connection if part of the body is unread

    async def _in_time(self, ends_at: float, awaitable: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(awaitable, ends_at - time.monotonic())
        except asyncio.TimeoutError as error:  # before OSError, a base class of it since Python 3.11
            raise FetchFailed(Reason.TIMEOUT, f"not done after {self._config.timeout_s:g} s") from error
        except RefusedAddress as error:
            raise FetchFailed(Reason.REFUSED_ADDRESS, str(error)) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise FetchFailed(Reason.DNS, f"{error.host}: name does not resolve") from error
        except (aiohttp.InvalidURL, UnicodeError) as error:  # UnicodeError: an impossible host name
            raise FetchFailed(Reason.BAD_URL, str(error)) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise FetchFailed(Reason.CONNECTION, f"TLS: {error.certificate_error}", final=True) from error
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError, RuntimeError) as error:
            # ValueError: what the client raises for header lines that are not HTTP; RuntimeError: for a connection
            # that was closed, on broken chunks for example, before the body is waited for.
            raise FetchFailed(Reason.CONNECTION, f"{type(error).__name__}: {error}") from error

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
                if length > self._config.max_bytes:
                    raise FetchFailed(Reason.TOO_LARGE, f"more than {self._config.max_bytes} bytes")
                file.write(chunk)
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


def parse_url(text: str) -> URL:
    """The URL without credentials. Raises FetchFailed unless it is an http or https URL with a host."""
    try:
        target = _as_written(text)
        if target.scheme not in ("http", "https") or not target.raw_host:
            raise ValueError("not an http(s) URL with a host")
        return target.with_user(None)  # credentials in a public list are a mistake or a trap
    except ValueError as error:
        raise FetchFailed(Reason.BAD_URL, str(error)) from error


def _as_written(text: str) -> URL:
    """Well-formed URLs stay as they are, since signed ones don't survive normalising; others are made well-formed."""
    normal = URL(text)  # checks the host, which the other does not
    return URL(text, encoded=True) if WELL_FORMED.fullmatch(text) else normal


def redirect_target(current: URL, location: str) -> URL:
    """The absolute URL of a Location header. Raises FetchFailed if it must not be followed."""
    try:
        target = current.join(_as_written(location))
    except ValueError as error:
        raise FetchFailed(Reason.BAD_URL, f"redirect to {location[:100]!r}: {error}") from error
    if target.scheme not in ("http", "https") or not target.raw_host:
        raise FetchFailed(Reason.REFUSED_ADDRESS, f"redirect to {location[:100]!r}")
    return target.with_user(None)


def _check_response(response: aiohttp.ClientResponse, config: FetchConfig) -> None:
    status = response.status
    if status != 200:
        reason = REASONS.get(status, Reason.HTTP_5XX if status >= 500 else Reason.HTTP_OTHER)
        raise FetchFailed(reason, f"status {status}", retry_after_s(response.headers.get("Retry-After")))
    if header := opt_out(response.headers, config.obey):
        raise FetchFailed(Reason.OPTED_OUT, header)
    if (response.content_length or 0) > config.max_bytes:
        raise FetchFailed(Reason.TOO_LARGE, f"{response.content_length} bytes announced")
