"""The host that a URL names."""

from __future__ import annotations

from urllib.parse import urlsplit


def host_of(url: str) -> str:
    """The host in lower case, without its port; "" of a text that is no URL: lists hold any."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
