"""Duplicates by URL: which spellings name one picture, and which of its pairs stays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow as pa

from pipeline.records import Pair, Reason, Record
from pipeline.sources import RANK

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_FLICKR_FARM = re.compile(r"(?:farm\d+|live|static)\.(?:staticflickr|static\.flickr|flickr)\.com")
_WIKIMEDIA_THUMBNAIL = re.compile(r"(/wikipedia/[^/]+)/thumb(/./../[^/]+)/[^/]+")
_FLICKR_CDN = re.compile(r"c\d+\.staticflickr\.com")


def normalised_url(url: str) -> str:
    """One name for the spellings of a URL: host in lower case; without scheme, default port and fragment; escapes only
    where they are needed (RFC 3986, 6.2.2). The query stays, because it may choose the picture. Flickr's hosts
    (`farm8.`, `live.`, `c2.`) are one: they serve the same path; a thumbnail of Wikimedia's is its original."""
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # no URL at all: it equals nothing but itself
        return url.strip()
    path = _normalised_escapes(parts.path) or "/"
    if _FLICKR_CDN.fullmatch(host) and path.count("/") > 2:
        host, path = "live.staticflickr.com", path[path.index("/", 1) :]  # without the farm's number
    elif _FLICKR_FARM.fullmatch(host):
        host = "live.staticflickr.com"
    elif host == "upload.wikimedia.org" and (thumbnail := _WIKIMEDIA_THUMBNAIL.fullmatch(path)):
        path = f"{thumbnail[1]}{thumbnail[2]}"
    if port not in (None, 80, 443):
        host = f"{host}:{port}"
    query = f"?{_normalised_escapes(parts.query)}" if parts.query else ""
    return f"{host}{path}{query}"


def first_of(pairs: Iterable[Pair | Record]) -> Pair | Record:
    """The pair that stays of several with one picture: of the first source, there of the first file, there the first
    row. Independent of the order in which they come."""
    return min(pairs, key=lambda pair: (RANK[pair.source], pair.file, pair.row, pair.key))


def keep_first_of_url(rows: pa.Table) -> pa.Table:
    """Of the pairs (rows of `spill.ROWS`) with one URL, the first as `first_of` has it stays; the others get a reason
    and the key of the one that stays. In the order of source, file and row."""
    source, file = (rows[name].to_pylist() for name in ("source", "file"))
    file_rank = {name: rank for rank, name in enumerate(sorted(set(file)))}
    source_rank = {name: rank for rank, name in enumerate(sorted(set(source)))}
    key = np.array(rows["key"].to_pylist(), dtype="S32")
    row, files = rows["row"].to_numpy(), np.array([file_rank[name] for name in file], np.int64)
    by_rank = np.array([RANK[name] for name in source], np.int64)
    high, low = rows["high"].to_numpy(), rows["low"].to_numpy()

    pairs = np.flatnonzero(np.array([not reason for reason in rows["reason"].to_pylist()], bool))
    order = pairs[np.lexsort([column[pairs] for column in (key, row, files, by_rank, low, high)])]
    repeated = np.zeros(len(order), bool)
    repeated[1:] = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    kept = order[np.maximum.accumulate(np.where(repeated, 0, np.arange(len(order))))] if len(order) else order

    reasons, details = rows["reason"].to_pylist(), rows["detail"].to_pylist()
    for place, first in zip(order[repeated].tolist(), kept[repeated].tolist(), strict=True):
        reasons[place], details[place] = Reason.DUPLICATE_URL.value, f"kept {key[first].decode()}"
    rows = rows.set_column(rows.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string()))
    rows = rows.set_column(rows.schema.get_field_index("detail"), "detail", pa.array(details, pa.string()))
    by_name = np.array([source_rank[name] for name in source], np.int64)
    return rows.take(np.lexsort((key, row, files, by_name)))


def _normalised_escapes(text: str) -> str:
    if text.isascii() and text.isprintable() and "%" not in text and " " not in text:
        return text

    def unescape(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return quote(_ESCAPE.sub(unescape, text), safe="%/:?#[]@!$&'()*+,;=~-._|\\^`{}\"<>", errors="surrogatepass")
