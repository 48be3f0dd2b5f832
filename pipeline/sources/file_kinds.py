"""Files that are no list of a source: told by their first bytes, and named in the error with what to do."""

from __future__ import annotations

import re

from pipeline.sources.unpack import TAR_MAGIC, TAR_MAGIC_AT

SQLITE_MAGIC = b"SQLite format 3\0"

HEAD_BYTES = 1 << 16
MAX_BINARY_SHARE = 0.1  # of bytes that no text has

PARQUET, SQLITE, DUMP, TAR, TEXT = "Parquet", "a sqlite database", "a MediaWiki dump", "a tar archive", "text"
MEDIA_INFO = "a dump of Commons' structured data"
"""Kinds that some source reads; the others are names in `_BY_MAGIC`, `_BY_TEXT`."""

_BY_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", PARQUET, ""),
    (SQLITE_MAGIC, SQLITE, ""),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it and name the file in it"),
    (b"\x93NUMPY", "a NumPy array", "it holds numbers; name the list itself"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save its table as Parquet or CSV"),
    (b"%PDF-", "a PDF", "name the list itself"),
    (b"\x89PNG\r\n\x1a\n", "an image", "name the list of images"),
    (b"\xff\xd8\xff", "an image", "name the list of images"),
    (b"GIF8", "an image", "name the list of images"),
    (b"\x80\x04\x95", "a Python pickle", "save its table as Parquet or CSV"),
    (b"\x80\x03", "a Python pickle", "save its table as Parquet or CSV"),
    (b"\x80\x02", "a Python pickle", "save its table as Parquet or CSV"),
    (b"\x7fELF", "a program", "name the list itself"),
    (b"version https://git-lfs", "a pointer of Git LFS", "run `git lfs pull` where it comes from"),
)
_BY_TEXT: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), name, remedy)
    for pattern, name, remedy in (
        (r"<mediawiki\b", DUMP, ""),
        (r'\[?\s*\{"type":\s*"mediainfo"', MEDIA_INFO, ""),
        (
            r"<!doctype html|<html\b",
            "a web page",
            "the download gave a page instead of the file; open its URL in a browser",
        ),
        (r"<\?xml[^>]*>\s*<error>", "a store's error message", "download the file again"),
        (r"<\?xml\b|<abstract\b|<feed\b", "XML", "name the list itself"),
        (
            r"(?:--|/\*)[^\n]*(?:dump|mysql|mariadb)|(?:create table|insert into|drop table|set names)\b",
            "an SQL dump",
            "name the list itself; of a Wikipedia that is ...-pages-articles-multistream.xml.bz2",
        ),
    )
)
_NO_TEXT = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1b")) + b"\x7f"


def kind_of(head: bytes) -> tuple[str, str]:
    """(kind, remedy) of a file by its first bytes, unpacked. The remedy is "" for a kind that some source reads."""
    for magic, name, remedy in _BY_MAGIC:
        if head.startswith(magic):
            return name, remedy
    if head[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        return TAR, ""
    if _is_binary(head):
        return "binary data", "name the list itself, as it was published"
    text = head[:2000].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    for pattern, name, remedy in _BY_TEXT:
        if pattern.match(text):
            return name, remedy
    return TEXT, ""


def _is_binary(head: bytes) -> bool:
    """Whether more than a few bytes are none of a text's: control characters, or no UTF-8 nor an older encoding's
    letters between ASCII."""
    if len(head.translate(None, _NO_TEXT)) < (1 - MAX_BINARY_SHARE) * len(head):
        return True
    wrong = head.decode("utf-8", "replace").count("\ufffd")
    ascii_bytes = sum(map(head.count, map(bytes, zip(range(32, 127)))))
    return wrong > MAX_BINARY_SHARE * len(head) and ascii_bytes < len(head) / 2


SIDE_FILES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\d+\t[0-9a-f]{16,32}$", "YFCC100M's list of hashes (yfcc100m_hash)"),
        (r"\d+\t(?:[^\t:,]+:[01](?:\.\d+)?(?:,|$))+$", "YFCC100M's machine labels (yfcc100m_autotags)"),
        (r"\d+\t(?:Exif|Jpeg|JFIF|Gps|Iptc|[A-Za-z+]+\.[A-Za-z+]+).*[:%]", "YFCC100M's EXIF data (yfcc100m_exif)"),
        (
            r"\d+\t(?:\d+:[^\t]*:(?:Country|State|Town|County|Suburb|Timezone|Zip)\b|.*Timezone)",
            "YFCC100M's places (yfcc100m_places)",
        ),
        (
            r"\d+\t\d{6,}\t[0-9a-f]{16,32}$",
            "OpenAI's subset of YFCC100M; give it as --yfcc-subset, beside yfcc100m=the full list",
        ),
        (r"https?://\S+\t[0-9a-f]{64}\t[0-9a-f]{32}$", "CC12M's file of hashes; give it as --cc12m-hashes"),
        (r"https?://\S*\t[A-Za-z0-9+/=]{40,}\thttps?://", "Kaggle's file of pixels; give it as --wit-pixels"),
        (r"\d+:\d+:.", "the index of a Wikipedia dump; name the dump beside it"),
    )
)
"""First lines of files that go along with a list."""


def side_file(line: str) -> str:
    """What a file is that goes along with a list, by its first line; "" for another."""
    return next((name for pattern, name in SIDE_FILES if pattern.match(line)), "")
