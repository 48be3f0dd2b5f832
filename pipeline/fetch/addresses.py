"""Which addresses may be connected to: a URL from the web may point into the local network."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from models.errors import UserError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
RESOLVER_THREADS = 16  # lookups at once: getaddrinfo() blocks, for half a minute where a name server is down
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # the only allocated part of IPv6 (RFC 4291)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses as hosts without IPv4 see them (RFC 6052)
# Not public, whatever Python's tables say: protocol assignments (Oracle's metadata), 6to4 relays, Azure's wire server.
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


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only. The connection goes to the address checked here, so that a name which
    resolves differently between check and use (DNS rebinding) gains nothing."""

    def __init__(self, allowed: Sequence[Network]):
        self._allowed = allowed
        # Separate threads: lookups that hang must delay neither others nor the end of a unit.
        self._threads = concurrent.futures.ThreadPoolExecutor(RESOLVER_THREADS, "resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        resolved = [(kind, str(sockaddr[0])) for kind, _, _, _, sockaddr in found]
        public = [(kind, address) for kind, address in resolved if not is_refused(address, self._allowed)]
        if resolved and not public:
            raise RefusedAddress(f"{host} is {resolved[0][1]}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, address in public
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def parse_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """The values of --allow-address. Raises UserError for a value that is not a network in CIDR form."""
    for text in texts:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise UserError(f"--allow-address {text}: {error}; give a network such as 127.0.0.0/8") from None
    return tuple(texts)
