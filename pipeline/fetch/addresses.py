"""Which addresses may be connected to, since a URL from the web may point into the local network; and which names and
addresses count as one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult
from publicsuffixlist import PublicSuffixList

from models.errors import UserError
from pipeline.fetch.per_process import per_process

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
RESOLVER_THREADS = 128  # lookups at once in one process: getaddrinfo() blocks until a name server answers
LOOKUP_TIMEOUT_S = 5.0  # of one lookup, from its start
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # the only allocated part of IPv6 (RFC 4291)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses as hosts without IPv4 see them (RFC 6052)
# Not public, whatever Python's tables have: protocol assignments (Oracle's metadata), 6to4 relays, Azure's wire server.
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))


class RefusedAddress(Exception):
    """Not an OSError on purpose: the client library would take that for a failed connection."""


def is_refused(address: str, allowed: Sequence[Network]) -> bool:
    """Whether an address is private, loopback, link-local (metadata services), multicast or otherwise not public."""
    ip = _inner(ipaddress.ip_address(address.partition("%")[0]))
    if any(ip in network for network in allowed):
        return False
    if ip.version == 6 and ip not in _GLOBAL_UNICAST:
        return True
    return not ip.is_global or ip.is_multicast or any(ip in network for network in _NOT_PUBLIC)


def _inner(ip: Address) -> Address:
    """The IPv4 address inside an IPv6 one to which a gateway or the kernel would connect; else the address itself."""
    if ip.version == 4:
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)


@functools.lru_cache(1 << 12)
def literal_address(host: str) -> str | None:
    """The address that a URL's host spells (127.0.0.1, 127.1, 2130706433, 0x7f.1, ::1), or None for a name."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    except (OSError, UnicodeEncodeError):
        return None


@functools.lru_cache(1 << 12)
def address_key(address: str) -> bytes:
    """What counts as one address: a whole one of IPv4, the first 64 bits of IPv6, which one machine may have."""
    return ipaddress.ip_address(address.partition("%")[0]).packed[:8]


@functools.lru_cache(1 << 16)
def registrable_domain(host: str) -> str | None:
    """The part of a name that one owner has registered, by the public suffix list: example.co.uk for a.example.co.uk,
    a.github.io for itself. None for an address, and for a name of which nobody has registered a part."""
    return None if ":" in host or literal_address(host) else _public_suffixes().privatesuffix(host)


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """The list inside the package, parsed in 0.1 s."""
    return PublicSuffixList()


class Found(NamedTuple):
    """A public address of a name."""

    family: int
    address: str


class NoAnswer(Exception):
    """No name server has answered, as against: a name server knows no such name."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only, each name once. The connection goes to the address checked here, so that
    a name which resolves differently between check and use (DNS rebinding) gains nothing."""

    def __init__(self, allowed: Sequence[Network]):
        self._allowed = allowed
        self._lookups: dict[str, asyncio.Future[list[Found]]] = {}

    async def addresses(self, host: str) -> list[Found]:
        """The public addresses of a name. Raises NoAnswer, socket.gaierror for a name that does not exist, and
        RefusedAddress for one that has no public address. A lookup that fails is made again when it is asked for again.
        """
        if host not in self._lookups:
            self._lookups[host] = asyncio.ensure_future(self._look_up(host))
        lookup = self._lookups[host]
        try:
            return await asyncio.shield(lookup)  # other rows wait for it as well
        finally:
            if lookup.done() and (lookup.cancelled() or lookup.exception()) and self._lookups.get(host) is lookup:
                del self._lookups[host]

    async def _look_up(self, host: str) -> list[Found]:
        loop, started = asyncio.get_running_loop(), asyncio.Event()

        def look_up() -> list[Found]:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(started.set)
            found = socket.getaddrinfo(host, 0, socket.AF_UNSPEC, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            return [Found(kind, str(place[0])) for kind, _, _, _, place in found]

        answer = loop.run_in_executor(_resolver_threads(), look_up)
        await started.wait()  # that all threads are busy is not the name's fault
        try:
            found = await asyncio.wait_for(answer, LOOKUP_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise NoAnswer(f"{host}: no answer of a name server after {LOOKUP_TIMEOUT_S:g} s") from None
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
                raise
            raise NoAnswer(f"{host}: {error.strerror}") from error
        public = [each for each in found if not is_refused(each.address, self._allowed)]
        if found and not public:
            raise RefusedAddress(f"{host} is {found[0].address}")
        return public

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=found.address,
                port=port,
                family=found.family,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found in await self.addresses(host)
        ]

    async def close(self) -> None:
        for lookup in self._lookups.values():
            lookup.cancel()


@per_process
def _resolver_threads() -> concurrent.futures.ThreadPoolExecutor:
    """Threads for all lookups of this process. glibc would wait 5 s for each name server, twice."""
    os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")
    return concurrent.futures.ThreadPoolExecutor(RESOLVER_THREADS, "resolve")


def parse_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """The values of --allow-address. Raises UserError for a value that is not a network in CIDR form."""
    for text in texts:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise UserError(f"--allow-address {text}: {error}; give a network such as 127.0.0.0/8") from None
    return tuple(texts)
