"""Which URLs are asked for, as they come from lists and redirects."""

from __future__ import annotations

import ipaddress
import re

from yarl import URL

from pipeline.fetch.addresses import literal_address
from pipeline.fetch.machine_faults import describe
from pipeline.fetch.retry import FetchFailed
from pipeline.records import Reason

WELL_FORMED = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")  # RFC 3986


def parse_url(text: str) -> URL:
    """The URL without credentials. Raises FetchFailed unless it is an http or https URL with a host."""
    try:
        target = _as_written(text)
        if target.scheme not in ("http", "https") or not target.raw_host:
            raise ValueError("not an http(s) URL with a host")
        _check_host(target.raw_host)
        return target.with_user(None)  # credentials in a public list are a mistake or a trap
    except ValueError as error:
        raise FetchFailed(Reason.BAD_URL, str(error)) from error
    except Exception as error:  # yarl raises others as well, such as IndexError, for URLs that it did not foresee
        raise FetchFailed(Reason.BAD_URL, describe(error)) from error


def _check_host(host: str) -> None:
    """Raises ValueError for what is neither a name nor an address, such as the [v1.x:name] of RFC 3986: the client
    library would take it for an address, and connect without asking the resolver that checks it."""
    if ":" in host:
        ipaddress.IPv6Address(host.partition("%")[0])
    elif host.replace(".", "").isdigit() and not literal_address(host):
        raise ValueError(f"{host} is no address")


def _as_written(text: str) -> URL:
    """Well-formed URLs stay as they are, since signed ones don't survive normalising; others are made well-formed."""
    normal = URL(text)  # checks the host, which the other does not
    return URL(text, encoded=True) if WELL_FORMED.fullmatch(text) else normal


def redirect_target(current: URL, location: str) -> URL:
    """The absolute URL of a Location header. Raises FetchFailed if it must not be followed."""
    try:
        target = current.join(_as_written(location))
        if target.scheme in ("http", "https") and target.raw_host:
            _check_host(target.raw_host)
            return target.with_user(None)
    except Exception as error:  # as above
        raise FetchFailed(Reason.BAD_URL, f"redirect to {location[:100]!r}: {describe(error)}") from error
    raise FetchFailed(Reason.REFUSED_ADDRESS, f"redirect to {location[:100]!r}")
