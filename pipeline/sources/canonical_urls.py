"""Which spellings of a URL name one image; addresses that are mistyped in a known way."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

from pipeline.sources.hosts import FLICKR_CDN, FLICKR_FARM, FLICKR_LIVE, WIKIMEDIA_THUMBNAIL, WIKIMEDIA_UPLOADS

# Most URLs are canonical already, but for their scheme
_PLAIN_URL = re.compile(r"https?://([a-z0-9.-]*[a-z0-9-])(/[A-Za-z0-9._~/+=,-]*)")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def canonical_url(url: str) -> str:
    """One name for the spellings of a URL: host in lower case; without scheme, default port and fragment; escapes only
    where they are needed (RFC 3986, 6.2.2). The query stays, because it may choose the image. Flickr's hosts
    (`farm8.`, `live.`, `c2.`) are one: they serve the same path. A thumbnail of
    Wikimedia's is its original, and `(` is `%28` there."""
    if (plain := _PLAIN_URL.fullmatch(url)) and "flickr" not in url and plain[1] != WIKIMEDIA_UPLOADS:
        return plain[1] + plain[2]
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # not a valid URL: equal only to itself
        return url.strip()
    path = _normalised_escapes(parts.path) or "/"
    if FLICKR_CDN.fullmatch(host) and path.count("/") > 2:
        host, path = FLICKR_LIVE, path[path.index("/", 1) :]  # without the farm's number
    elif FLICKR_FARM.fullmatch(host):
        host = FLICKR_LIVE
    elif host == WIKIMEDIA_UPLOADS:
        if thumbnail := WIKIMEDIA_THUMBNAIL.fullmatch(path):
            path = f"{thumbnail[1]}{thumbnail[2]}"
        path = quote(unquote(path), errors="surrogatepass")  # a name is one file, however it is escaped
    if port not in (None, 80, 443):
        host = f"{host}:{port}"
    query = f"?{_normalised_escapes(parts.query)}" if parts.query else ""
    return f"{host}{path}{query}"


def _normalised_escapes(text: str) -> str:
    if text.isascii() and text.isprintable() and "%" not in text and " " not in text:
        return text

    def unescape(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return quote(_ESCAPE.sub(unescape, text), safe="%/:?#[]@!$&'()*+,;=~-._|\\^`{}\"<>", errors="surrogatepass")
