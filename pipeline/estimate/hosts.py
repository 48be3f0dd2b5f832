"""The least time that the limits of hosts leave for downloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from pipeline.fetch.addresses import registrable_domain
from pipeline.sources.hosts import HostLimits, limits_for


class SlowestHost(NamedTuple):
    """The host, or domain, whose limits allow the fewest downloads for what it has."""

    name: str = ""
    share: float = 0.0  # of the pairs to fetch
    seconds_per_pair: float = 0.0  # for each of its own


def slowest_host(urls: Mapping[str, float], limits: HostLimits, bytes_per_pair: float) -> SlowestHost:
    """From URLs and the number of pairs that each stands for, and the limits of a host that asks for no others."""
    total = sum(urls.values())
    pairs: Counter[str] = Counter()
    for url, number in urls.items():
        for name in _names(url):
            pairs[name] += number  # type: ignore[assignment]  # numbers of pairs are estimates
    hosts = (
        SlowestHost(name, number / total, _seconds(name, limits, bytes_per_pair)) for name, number in pairs.items()
    )
    return max(hosts, key=lambda host: host.share * host.seconds_per_pair, default=SlowestHost())


def _names(url: str) -> Iterable[str]:
    try:
        host = (urlsplit(url).hostname or "").lower()
        return {host, registrable_domain(host) or host} if host else ()
    except (ValueError, UnicodeError):  # no URL: it is rejected when it is fetched
        return ()


def _seconds(name: str, limits: HostLimits, bytes_per_pair: float) -> float:
    allowed = limits_for(name, limits)
    return max(1 / allowed.rate, bytes_per_pair / allowed.bytes_per_s)
