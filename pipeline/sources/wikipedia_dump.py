"""Wikimedia's dumps, https://dumps.wikimedia.org: `<wiki>-<date>-pages-articles-multistream.xml.bz2`.

Of a Wikipedia a row is an image on a page of the article namespace, as `wikitext.py` finds it; of Commons a file, with
what `commons.py` finds about it, also in `commons-<date>-mediainfo.json.bz2`. URLs are those of `wikimedia_urls.py`.
Of a page with its history (`pages-meta-history*.7z`) the last revision is read.

XML in bzip2 streams of 100 pages each; the index beside it (`...-multistream-index.txt.bz2`, lines of `offset:page
id:title`) says where each starts, so that the file is read in parts. Without its index it is read whole. A row's
number is the page's id times 10,000 plus its position on the page, the same however the file is read."""

from __future__ import annotations

import argparse
import bz2
import functools
import html
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Optional, cast
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from models.errors import UserError
from pipeline.records import Candidate, Damage, Reason, Stage, malformed, reject
from pipeline.sources import commons
from pipeline.sources.commons import MediaInfo
from pipeline.sources.file_kinds import DUMP, MEDIA_INFO, kind_of
from pipeline.sources.paths import base_name, exists, expand, open_raw
from pipeline.sources.readers import MAX_ROW_BYTES, Row, lines, open_source
from pipeline.sources.source import FileRange, Source
from pipeline.sources.unpack import peeked
from pipeline.sources.wikimedia_urls import IMAGES, VIDEOS, WIDTHS, file_name, file_url, image_urls
from pipeline.sources.wikitext import NAMESPACES, ImageLink, links

NAME = "wikipedia-dump"
STREAMS = "streams"  # the kind of a file range of bzip2 streams, in bytes
PART_BYTES = 4 << 20  # of the compressed file, that one worker reads at a time
ROWS_PER_PAGE = 10_000
MAX_PAGE_ID = 2**63 // ROWS_PER_PAGE  # rows are 64-bit integers
NO_ARTICLES = (b"wikidatawiki", b"metawiki", b"specieswiki")  # wikis whose images stand on other pages
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
    starts = [0]
    with open_source(index) as stream:
        for line in lines(stream):
            offset = line.text.partition(":")[0]
            if line.fault or not offset.isdecimal():
                break
            if int(offset) >= size:
                break  # the dump is cut off before: the last part will say so
            if int(offset) - starts[-1] >= PART_BYTES:
                starts.append(int(offset))
    return list(zip(starts, [*starts[1:], size], strict=True)) if size else []


def read(stream: BinaryIO, file: str, settings: DumpSettings = DEFAULT) -> Iterator[Row]:
    """The rows of a whole dump."""
    yield from _rows(_pages(cast(io.BufferedIOBase, stream)), file, None, settings, 0)


def read_part(path: str, file: str, first: int, stop: int, settings: DumpSettings = DEFAULT) -> Iterator[Row]:
    """The rows of the streams in a range of bytes."""
    with open_raw(path) as raw:
        raw.seek(first)
        stream = bz2.BZ2File(cast(BinaryIO, _Limited(raw, stop - first)))
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


def _pages(stream: io.BufferedIOBase) -> Iterator[_DumpPage]:
    """The head and the pages, each as it lies in the file."""
    remainder = b""
    while True:
        try:
            chunk = stream.read1(1 << 18)
        except (EOFError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield _DumpPage(remainder, Damage(f"the dump is cut off or damaged from here on: {error}"))
            return
        if not chunk:
            break
        *pages, remainder = (remainder + chunk).split(b"</page>")
        for page in pages:
            yield _DumpPage(page + b"</page>", "")
        if len(remainder) > MAX_PAGE_BYTES:
            remainder = _with_last_revision(remainder)
        if len(remainder) > MAX_PAGE_BYTES:
            yield _DumpPage(b"", f"a page of more than {MAX_PAGE_BYTES} bytes")
            remainder = b""
    if b"<page>" in remainder:
        yield _DumpPage(remainder, Damage("the dump ends inside of a page"))


def _with_last_revision(page: bytes) -> bytes:
    """A page, or the beginning of one, without all revisions but the last."""
    first, last = page.find(b"<revision>"), page.rfind(b"<revision>")
    return page[:first] + page[last:] if first < last else page


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
        start = data.find(b"<page>")
        if wiki is None and start >= 0:
            wiki = _wiki(data[:start])
        if wiki is None or fault or start < 0:
            yield malformed(NAME, file, row, data[:200].decode("utf-8", "replace"), fault or "no page")
            continue
        *unfinished, data = data[start + len(b"<page>") :].split(b"<page>")  # in texts it is escaped
        for page_data in unfinished:
            yield malformed(NAME, file, row, page_data.decode("utf-8", "replace"), "a page has no end")
        data = b"<page>" + _with_last_revision(data)
        try:
            page = ElementTree.fromstring(data)
            number = int(page.findtext("id") or "")
            if not 0 <= number < MAX_PAGE_ID:
                raise ValueError(f"page id {number}")
        except (ElementTree.ParseError, ValueError) as error:
            yield malformed(NAME, file, row, data.decode("utf-8", "replace"), f"not readable as XML: {error}")
            continue
        row = number * ROWS_PER_PAGE
        is_commons = wiki.host == commons.HOST
        namespace = commons.FILE_NAMESPACE if is_commons else "0"
        if page.findtext("ns") != namespace or page.find("redirect") is not None:
            continue
        title, text = page.findtext("title") or "", page.findtext("revision/text") or ""
        if is_commons:
            yield _file_row(title, _captions(page), list(commons.descriptions(text)), file, row, settings)
            continue
        page_url = _page_url(wiki.host, title)
        for link in links(text, wiki.file_namespaces):
            yield _row(link, wiki.host, file, row, page_url, settings)
            row += 1


def _page_url(host: str, title: str) -> str:
    return f"https://{host}/wiki/{quote(title.replace(' ', '_'), safe='/:@!$()*,;~')}"


def _captions(page: ElementTree.Element) -> list[commons.Text]:
    """The structured captions that a page of Commons has beside its text; [] for a slot of another form."""
    for slot in page.iterfind("revision/content"):
        if slot.findtext("role") == "mediainfo":
            try:
                return commons.media_info(slot.findtext("text") or "").captions
            except ValueError:
                return []
    return []


def read_media_info(stream: BinaryIO, file: str, settings: DumpSettings = DEFAULT) -> Iterator[Row]:
    """The rows of the dump of Commons' structured data: a JSON array, an entity a line."""
    for number, line in enumerate(lines(stream)):
        text = line.text.strip().rstrip(",")
        if text in ("", "[", "]") and not line.fault:
            continue
        try:
            entity = commons.media_info(text)
        except ValueError as error:
            yield malformed(NAME, file, number, line.text, line.fault or f"not readable as JSON: {error}")
            continue
        yield _entity_row(entity, file, settings)


def _entity_row(entity: MediaInfo, file: str, settings: DumpSettings) -> Row:
    return _file_row(entity.title, entity.captions, [], file, entity.page_id * ROWS_PER_PAGE, settings)


def _file_row(
    title: str,
    captions: list[commons.Text],
    descriptions: list[commons.Text],
    file: str,
    row: int,
    settings: DumpSettings,
) -> Row:
    """The row of a file of Commons."""
    texts = commons.best_first(captions, descriptions)
    unrenderable = next((text.unrenderable for text in texts if text.unrenderable), "")
    plain = [text.text for text in texts if text.text]
    link = ImageLink(title.partition(":")[2], plain[0] if plain else "", "" if plain else unrenderable)
    return _row(link, commons.HOST, file, row, _page_url(commons.HOST, title), settings, tuple(plain[1:]))


def _row(
    link: ImageLink,
    host: str,
    file: str,
    row: int,
    page_url: str,
    settings: DumpSettings,
    alternatives: tuple[str, ...] = (),
) -> Row:
    name = file_name(link.name)
    ending = name.rpartition(".")[2].lower()
    urls = image_urls(name, host, settings.width)
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
        alternatives=alternatives,
    )
    if ending in VIDEOS:
        return reject(candidate, Stage.SELECT, Reason.VIDEO)
    if not urls:
        return reject(candidate, Stage.SELECT, Reason.UNSUPPORTED_TYPE, ending)
    if link.unrenderable:
        return reject(candidate, Stage.SELECT, Reason.UNKNOWN_TEMPLATE, link.unrenderable)
    return candidate


class WikipediaDump(Source[DumpSettings]):
    """A dump of a Wikipedia or of Commons as a source of select."""

    name = NAME
    settings = DEFAULT
    kinds = frozenset({DUMP, MEDIA_INFO})
    checks_rows = False  # many a page has no image

    def files(self, pattern: str) -> list[str]:
        return [path for path in expand(pattern) if not is_index(path)]  # a dump's pattern may well match its index

    def split(self, path: str) -> list[FileRange]:
        ranges = [
            FileRange(source=NAME, path=path, kind=STREAMS, first=first, stop=stop) for first, stop in parts(path)
        ]
        return ranges or [FileRange(NAME, path)]

    def check_head(self, path: str, head: bytes) -> None:
        name = re.search(rb"<dbname>([^<]*)</dbname>", head)
        if name and name[1] in NO_ARTICLES:
            raise UserError(
                f"{path} is the dump of {name[1].decode()}, which has no articles: name that of a Wikipedia, or of "
                "Commons"
            )

    def read_range(self, file_range: FileRange, settings: DumpSettings, first_line_number: int = 0) -> Iterator[Row]:
        path, file = file_range.path, base_name(file_range.path)
        if file_range.kind == STREAMS:
            yield from read_part(path, file, file_range.first, file_range.stop, settings)
        else:
            with open_source(path) as stream:
                head, whole = peeked(stream)
                is_media_info = kind_of(head)[0] == MEDIA_INFO
                yield from (read_media_info if is_media_info else read)(whole, file, settings)

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--wikipedia-width",
            type=int,
            default=DEFAULT.width,
            metavar="W",
            choices=(0, *WIDTHS),
            help="width of the thumbnails of a dump's images in px, one of those that Wikimedia serves; 0 takes "
            "originals",
        )

    def settings_from(self, args: argparse.Namespace) -> DumpSettings:
        return DumpSettings(width=args.wikipedia_width)
