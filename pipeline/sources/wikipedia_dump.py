"""Wikipedia's dumps, https://dumps.wikimedia.org: `<wiki>-<date>-pages-articles-multistream.xml.bz2`.

XML in bzip2 streams of 100 pages each; the index beside it (`...-multistream-index.txt.bz2`, lines of `offset:page
id:title`) says where each begins, so that the file is read in parts. Without its index it is read whole. A row is a
picture on a page of the article namespace, as `wikitext.py` finds it, at the address of `wikimedia.py`. Its number is
the page's id times 10,000 plus its place on the page, the same however the file is read."""

from __future__ import annotations

import argparse
import bz2
import functools
import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Optional
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from pipeline.records import Candidate, Reason, Stage, malformed, reject
from pipeline.sources.paths import base_name, exists, expand, open_raw
from pipeline.sources.readers import MAX_ROW_BYTES, Row, lines, open_source
from pipeline.sources.source import FileRange, Source
from pipeline.sources.wikimedia_urls import IMAGES, VIDEOS, WIDTHS, file_name, file_url, image_urls
from pipeline.sources.wikitext import NAMESPACES, ImageLink, links

NAME = "wikipedia-dump"
STREAMS = "streams"  # the kind of a file range of bzip2 streams, in bytes
PART_BYTES = 4 << 20  # of the compressed file, that one worker reads at a time
ROWS_PER_PAGE = 10_000
MAX_PAGE_ID = 2**63 // ROWS_PER_PAGE  # rows are 64-bit integers
MAX_PAGE_BYTES = 4 * MAX_ROW_BYTES

_INDEXED = re.compile(r"-multistream(\d*)\.xml(.*)\.bz2$")


@dataclass(frozen=True)
class DumpSettings:
    width: int = 500  # px of the thumbnail that is fetched, one of WIDTHS; 0: the original where there is one


DEFAULT = DumpSettings()


class Wiki(NamedTuple):
    """What the head of a dump says."""

    host: str  # en.wikipedia.org
    file_namespaces: frozenset[str]  # in lower case


def index_of(path: str) -> Optional[str]:
    """The index that belongs to a dump by its name, if it is there."""
    folder, slash, name = path.rpartition("/")
    index = folder + slash + _INDEXED.sub(r"-multistream-index\1.txt\2.bz2", name)
    return index if index != path and exists(index) else None


def is_index(path: str) -> bool:
    return "-multistream-index" in path.rpartition("/")[2]


def parts(path: str) -> list[tuple[int, int]]:
    """Ranges of bytes, each of whole streams, as the index has them; [] without an index or for a file that is not what
    the index speaks of."""
    index = index_of(path)
    if not index:
        return []
    with open_raw(path) as file:
        size = file.seek(0, os.SEEK_END) if file.seekable() else 0
    begins = [0]
    with open_source(index) as stream:
        for line in lines(stream):
            offset = line.text.partition(":")[0]
            if line.fault or not offset.isdecimal():
                break
            if int(offset) >= size:
                break  # the dump is cut off before: the last part will say so
            if int(offset) - begins[-1] >= PART_BYTES:
                begins.append(int(offset))
    return list(zip(begins, [*begins[1:], size], strict=True)) if size else []


def read(stream: BinaryIO, file: str, settings: DumpSettings = DEFAULT) -> Iterator[Row]:
    """The rows of a whole dump."""
    yield from _rows(_pages(stream), file, None, settings, 0)


def read_part(path: str, file: str, first: int, stop: int, settings: DumpSettings = DEFAULT) -> Iterator[Row]:
    """The rows of the streams in a range of bytes."""
    with open_raw(path) as raw:
        raw.seek(first)
        stream = bz2.BZ2File(_Limited(raw, stop - first))
        yield from _rows(_pages(stream), file, read_wiki(path) if first else None, settings, first)


@functools.lru_cache(4)
def read_wiki(path: str) -> Wiki:
    """What the first stream of a dump says of its wiki."""
    with open_source(path) as stream:
        return _wiki(stream.read(1 << 20))


class _Limited:
    """The next bytes of a file, and no more."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class _DumpPage(NamedTuple):
    """A piece of the file: the head, a page, or where reading ended too early."""

    data: bytes
    fault: str


def _pages(stream: BinaryIO) -> Iterator[_DumpPage]:
    """The head and the pages, each as it lies in the file."""
    rest = b""
    while True:
        try:
            chunk = stream.read1(1 << 18)
        except (EOFError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield _DumpPage(rest, f"the dump is cut off or damaged from here on: {error}")
            return
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"</page>")
        for page in whole:
            yield _DumpPage(page + b"</page>", "")
        if len(rest) > MAX_PAGE_BYTES:
            yield _DumpPage(b"", f"a page of more than {MAX_PAGE_BYTES} bytes")
            rest = b""
    if b"<page>" in rest:
        yield _DumpPage(rest, "the dump ends inside of a page")


def _wiki(data: bytes) -> Wiki:
    text = data.decode("utf-8", "replace")
    base = re.search(r"<base>\s*([^<\s]+)", text)
    own = re.search(r'<namespace key="6"[^>]*>([^<]+)</namespace>', text)
    names = NAMESPACES | ({html.unescape(own[1]).strip().lower()} if own else set())
    return Wiki((urlsplit(html.unescape(base[1])).hostname if base else "") or "en.wikipedia.org", names)


def _rows(
    pages: Iterator[_DumpPage], file: str, wiki: Optional[Wiki], settings: DumpSettings, first: int
) -> Iterator[Row]:
    row = first
    for data, fault in pages:
        begin = data.find(b"<page>")
        if wiki is None and begin >= 0:
            wiki = _wiki(data[:begin])
        if fault or begin < 0:
            yield malformed(NAME, file, row, data[:200].decode("utf-8", "replace"), fault or "no page")
            continue
        *endless, data = data[begin + len(b"<page>") :].split(b"<page>")  # in texts it is escaped
        for text in endless:
            yield malformed(NAME, file, row, text.decode("utf-8", "replace"), "a page has no end")
        data = b"<page>" + data
        try:
            page = ElementTree.fromstring(data)
            number = int(page.findtext("id") or "")
            if not 0 <= number < MAX_PAGE_ID:
                raise ValueError(f"page id {number}")
        except (ElementTree.ParseError, ValueError) as error:
            yield malformed(NAME, file, row, data.decode("utf-8", "replace"), f"not readable as XML: {error}")
            continue
        row = number * ROWS_PER_PAGE
        if page.findtext("ns") != "0" or page.find("redirect") is not None:
            continue
        title, text = page.findtext("title") or "", page.findtext("revision/text") or ""
        page_url = f"https://{wiki.host}/wiki/{quote(title.replace(' ', '_'), safe='/:@!$()*,;~')}"
        for link in links(text, wiki.file_namespaces):
            yield _row(link, wiki, file, row, page_url, settings)
            row += 1


def _row(link: ImageLink, wiki: Wiki, file: str, row: int, page_url: str, settings: DumpSettings) -> Row:
    name = file_name(link.name)
    ending = name.rpartition(".")[2].lower()
    urls = image_urls(name, wiki.host, settings.width)
    url, *fallback_urls = urls or (file_url(name, "commons"),)
    mime_type = IMAGES.get(ending, "image/png")
    candidate = Candidate(
        source=NAME,
        file=file,
        row=row,
        url=url,
        fallback_urls=tuple(fallback_urls),
        raw_caption=link.caption,
        width=None,
        height=None,
        licence="",
        page_url=page_url,
        mime_type=mime_type,
    )
    if ending in VIDEOS:
        return reject(candidate, Stage.SELECT, Reason.VIDEO)
    return candidate if urls else reject(candidate, Stage.SELECT, Reason.UNSUPPORTED_TYPE, ending)


class WikipediaDump(Source[DumpSettings]):
    """A Wikipedia's dump as a source of select."""

    name = NAME
    settings = DEFAULT

    def files(self, pattern: str) -> list[str]:
        return [path for path in expand(pattern) if not is_index(path)]  # a dump's pattern may well match its index

    def split(self, path: str) -> list[FileRange]:
        return [FileRange(NAME, path, STREAMS, *ends) for ends in parts(path)] or [FileRange(NAME, path)]

    def read_range(self, file_range: FileRange, settings: DumpSettings, lines_before: int = 0) -> Iterator[Row]:
        path, file = file_range.path, base_name(file_range.path)
        if file_range.kind == STREAMS:
            yield from read_part(path, file, file_range.first, file_range.stop, settings)
        else:
            with open_source(path) as stream:
                yield from read(stream, file, settings)

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--wikipedia-width",
            type=int,
            default=DEFAULT.width,
            metavar="W",
            choices=(0, *WIDTHS),
            help="px, width of the thumbnails of a dump's images, one of those that Wikimedia serves; 0: originals",
        )

    def settings_from(self, args: argparse.Namespace) -> DumpSettings:
        return DumpSettings(width=args.wikipedia_width)
