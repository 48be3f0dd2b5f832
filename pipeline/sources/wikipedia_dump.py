"""Wikipedia's dumps, https://dumps.wikimedia.org: `<wiki>-<date>-pages-articles-multistream.xml.bz2`.

XML in bzip2 streams of 100 pages each; the index beside it (`...-multistream-index.txt.bz2`, lines of `offset:page
id:title`) says where each begins, so that the file is read in parts. Without its index it is read whole. A row is a
picture on a page of the article namespace: a file link (`[[File:Name|options|caption]]`, the namespace in any of its
names), a line of a gallery, an infobox's image with its caption. Its number is the page's id times 10,000 plus its
place on the page, the same however the file is read.

A picture's address follows from its name: the folders are the first digits of the name's MD5. The page does not say
whether it lies on Commons or on the wiki itself, so that the second is a fallback. Thumbnails exist only in the widths
of `WIDTHS`, and none wider than the original; what is no JPEG, PNG or WebP has nothing else."""

from __future__ import annotations

import bz2
import functools
import hashlib
import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Optional
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import mwparserfromhell

from pipeline.records import Candidate, Reason, Stage, reject, unreadable
from pipeline.sources.places import exists, open_raw
from pipeline.sources.tables import MAX_ROW_BYTES, Row, lines, open_source

NAME = "wikipedia-dump"
WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)
PART_BYTES = 4 << 20  # of the compressed file, that one worker reads at a time
ROWS_PER_PAGE = 10_000
MAX_PAGE_BYTES = 4 * MAX_ROW_BYTES

PICTURES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
RENDERED = {  # ending -> (before the width, after the name) of a thumbnail
    "svg": ("", ".png"), "gif": ("", ""), "tif": ("lossy-page1-", ".jpg"), "tiff": ("lossy-page1-", ".jpg"),
    "pdf": ("page1-", ".jpg"), "djvu": ("page1-", ".jpg"), "xcf": ("", ".png"),
}
VIDEOS = frozenset({"webm", "ogv", "mpg", "mpeg"})


@dataclass(frozen=True)
class DumpSettings:
    width: int = 500  # px of the thumbnail that is fetched, one of WIDTHS; 0: the original where there is one


DEFAULT = DumpSettings()


class Wiki(NamedTuple):
    """What the head of a dump says."""

    host: str  # en.wikipedia.org
    file_namespaces: frozenset[str]  # in lower case


MAX_PAGE_ID = 2**63 // ROWS_PER_PAGE  # rows are 64-bit integers


class Link(NamedTuple):
    """A picture on a page."""

    name: str  # of the file, as written
    caption: str  # plain text


_INDEXED = re.compile(r"-multistream(\d*)\.xml(.*)\.bz2$")
# Of the File namespace, beside the name that the dump itself gives.
_NAMESPACES = (
    "file|image|datei|bild|fichier|archivo|imagen|immagine|bestand|afbeelding|plik|grafika|ficheiro|imagem|arquivo|fil|"
    "файл|изображение|ファイル|画像|文件|图像|档案|檔案|圖像|파일|그림|soubor|fájl|kép|tiedosto|kuva|dosya|resim|ملف|صورة|"
    "תמונה|קובץ|tập tin|hình|berkas|fitxer|imatge|датотека|слика|αρχείο|εικόνα|fișier|imagine"
)
_FILE_LINK = re.compile(rf"\s*(?:{_NAMESPACES})\s*:", re.IGNORECASE)
_REFERENCE = re.compile(r"<ref\b[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(
    r"(?:thumb|thumbnail|frame|framed|enframed|frameless|border|left|right|center|centre|none|baseline|middle|sub|super|"
    r"text-top|text-bottom|top|bottom|upright|\d*(?:x\d+)?\s*px|(?:thumb|thumbnail|upright|alt|link|page|lang|class|"
    r"start|end|thumbtime|muted|loop|miniatur|mini|alternativtext|verweis|hochkant|redresse|lien|alternative|verticale|"
    r"enlace|ligação|ссылка|альт)\s*=.*|"
    r"mini|miniatur|gerahmt|rahmenlos|rechts|links|zentriert|ohne|hochkant|rand|vignette|cadre|gauche|droite|centré|"
    r"néant|redresse|miniatura|miniaturadeimagen|miniaturadaimagem|miniaturaimagen|derecha|izquierda|dcha|izda|centro|"
    r"marco|direita|esquerda|dir|esq|destra|sinistra|verticale|miniatuur|gecentreerd|geen|mały|prawo|lewo|centruj|мини|"
    r"миниатюра|справа|слева|центр|безрамки|miniatyr|höger|vänster|サムネイル|右|左|中央|缩略图|縮圖|居中|无)",
    re.IGNORECASE | re.DOTALL)
_ALT = re.compile(r"(?:alt|alternativtext|alternative|альт)\s*=(.*)", re.IGNORECASE | re.DOTALL)
_HIDDEN = re.compile(r"<!--.*?-->|<(nowiki|pre|syntaxhighlight|source|math)\b[^<>]*(?<!/)>.*?</\1\s*>",
                     re.IGNORECASE | re.DOTALL)
_GALLERY = re.compile(r"<gallery\b[^<>]*(?<!/)>(.*?)</gallery\s*>", re.IGNORECASE | re.DOTALL)
_INFOBOX = re.compile(r"\{\{\s*(?:[\w -]*infobox|taxobox|speciesbox|automatic taxobox)\b", re.IGNORECASE)
_IMAGE_PARAMETER = re.compile(
    r"(?:image|photo|picture|img|bild|imagen|immagine|imagem|afbeelding|grafika|изображение)[ _]?(?:name|file|skyline)?"
    r"[ _]?(\d*)", re.IGNORECASE)
_CAPTIONS = ("caption{}", "image_caption{}", "imagecaption{}", "image caption{}", "photo_caption{}", "bildtext{}",
             "bildbeschreibung{}", "légende{}", "pie de imagen{}", "pie{}", "didascalia{}", "legenda{}",
             "onderschrift{}", "alt{}", "image_alt{}")
_KEPT_TEMPLATES = frozenset({"nowrap", "nobr", "lang", "small", "nobold", "noitalics", "langue", "lien", "ill", "sc",
                             "smallcaps", "transl", "lang-de", "lang-fr", "visible anchor", "abbr"})


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
        yield from _rows(_pages(stream), file, head(path) if first else None, settings, first)


@functools.lru_cache(4)
def head(path: str) -> Wiki:
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


class _Page(NamedTuple):
    """A piece of the file: the head, a page, or where reading ended too early."""

    data: bytes
    fault: str


def _pages(stream: BinaryIO) -> Iterator[_Page]:
    """The head and the pages, each as it lies in the file."""
    rest = b""
    while True:
        try:
            chunk = stream.read1(1 << 18)
        except (EOFError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield _Page(rest, f"the dump is cut off or damaged from here on: {error}")
            return
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"</page>")
        for page in whole:
            yield _Page(page + b"</page>", "")
        if len(rest) > MAX_PAGE_BYTES:
            yield _Page(b"", f"a page of more than {MAX_PAGE_BYTES} bytes")
            rest = b""
    if b"<page>" in rest:
        yield _Page(rest, "the dump ends inside of a page")


def _wiki(data: bytes) -> Wiki:
    text = data.decode("utf-8", "replace")
    base = re.search(r"<base>\s*([^<\s]+)", text)
    own = re.search(r'<namespace key="6"[^>]*>([^<]+)</namespace>', text)
    names = {*_NAMESPACES.split("|"), *([html.unescape(own[1]).strip().lower()] if own else [])}
    return Wiki((urlsplit(html.unescape(base[1])).hostname if base else "") or "en.wikipedia.org", frozenset(names))


def _rows(pages: Iterator[_Page], file: str, wiki: Optional[Wiki], settings: DumpSettings, first: int) -> Iterator[Row]:
    row = first
    for data, fault in pages:
        begin = data.find(b"<page>")
        if wiki is None and begin >= 0:
            wiki = _wiki(data[:begin])
        if fault or begin < 0:
            yield unreadable(NAME, file, row, data[:200].decode("utf-8", "replace"), fault or "no page")
            continue
        *endless, data = data[begin + len(b"<page>") :].split(b"<page>")  # in texts it is escaped
        for text in endless:
            yield unreadable(NAME, file, row, text.decode("utf-8", "replace"), "a page has no end")
        data = b"<page>" + data
        try:
            page = ElementTree.fromstring(data)
            number = int(page.findtext("id") or "")
            if not 0 <= number < MAX_PAGE_ID:
                raise ValueError(f"page id {number}")
        except (ElementTree.ParseError, ValueError) as error:
            yield unreadable(NAME, file, row, data.decode("utf-8", "replace"), f"not readable as XML: {error}")
            continue
        row = number * ROWS_PER_PAGE
        if page.findtext("ns") != "0" or page.find("redirect") is not None:
            continue
        title, text = page.findtext("title") or "", page.findtext("revision/text") or ""
        page_url = f"https://{wiki.host}/wiki/{quote(title.replace(' ', '_'), safe='/:@!$()*,;~')}"
        for link in links(text, wiki):
            yield _row(link, wiki, file, row, page_url, settings)
            row += 1


def _row(link: Link, wiki: Wiki, file: str, row: int, page_url: str, settings: DumpSettings) -> Row:
    name = file_name(link.name)
    ending = name.rpartition(".")[2].lower()
    urls = picture_urls(name, wiki, settings.width)
    url, *fallback_urls = urls or (file_url(name, "commons"),)
    mime_type = PICTURES.get(ending, "image/png")
    candidate = Candidate(NAME, file, row, url, tuple(fallback_urls), link.caption, None, None, "", page_url, mime_type)
    if ending in VIDEOS:
        return reject(candidate, Stage.SELECT, Reason.VIDEO)
    return candidate if urls else reject(candidate, Stage.SELECT, Reason.UNSUPPORTED_TYPE, ending)


# --- addresses -------------------------------------------------------------------------------------------------------


def file_name(text: str) -> str:
    """The name that MediaWiki gives to a file as written in a link: underscores, the first letter upper-case."""
    name = re.sub(r"[\s_]+", "_", unquote(html.unescape(text)).strip().strip("_ \u200e\u200f"))
    return name[:1].upper() + name[1:]


def file_url(name: str, project: str) -> str:
    folder = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return f"https://upload.wikimedia.org/wikipedia/{project}/{folder[0]}/{folder[:2]}/{_quoted(name)}"


def thumbnail_url(name: str, project: str, width: int) -> str:
    folder = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    before, after = RENDERED.get(name.rpartition(".")[2].lower(), ("", ""))
    # A longer name would not fit into the file system together with its width.
    short = "thumbnail." + name.rpartition(".")[2] if len(name.encode()) > 160 else name
    return (f"https://upload.wikimedia.org/wikipedia/{project}/thumb/{folder[0]}/{folder[:2]}/{_quoted(name)}/"
            f"{before}{width}px-{_quoted(short)}{after}")


def picture_urls(name: str, wiki: Wiki, width: int) -> list[str]:
    """Where the picture may be, the likeliest first; [] for what no picture can be made of."""
    ending = name.rpartition(".")[2].lower()
    if ending not in PICTURES and ending not in RENDERED:
        return []
    urls = []
    for project in ("commons", wiki.host.partition(".")[0]):
        if width or ending in RENDERED:
            urls.append(thumbnail_url(name, project, width or 960))
        if ending in PICTURES:  # also where a picture is narrower than the thumbnail
            urls.append(file_url(name, project))
    return urls


def _quoted(name: str) -> str:
    return quote(name, safe="!$()*,;:@~'")


# --- wikitext --------------------------------------------------------------------------------------------------------


def links(text: str, wiki: Wiki) -> Iterator[Link]:
    """The pictures of a page: file links and galleries in the order of the text, then infoboxes."""
    text = _HIDDEN.sub("", text)
    names = "|".join(map(re.escape, sorted(wiki.file_namespaces)))
    for match in re.finditer(rf"\[\[\s*(?:{names})\s*:|<gallery\b", text, re.IGNORECASE):
        if match[0].startswith("<"):
            if gallery := _GALLERY.match(text, match.start()):
                yield from _gallery_links(gallery[1], names)
        elif inside := _balanced(text, match.start(), "[[", "]]"):
            yield _link(inside.partition(":")[2])
    for match in _INFOBOX.finditer(text):
        if inside := _balanced(text, match.start(), "{{", "}}"):
            yield from _infobox_links("{{" + inside + "}}")


def _balanced(text: str, start: int, opening: str, closing: str) -> str:
    """What stands between an opening and its closing; "" if it is never closed."""
    depth = 0
    for match in re.compile(re.escape(opening) + "|" + re.escape(closing)).finditer(text, start, start + 100_000):
        depth += 1 if match[0] == opening else -1
        if not depth:
            return text[start + len(opening) : match.start()]
    return ""


def _link(text: str) -> Link:
    """`Name|options|caption`."""
    name, *rest = _split(text)
    said = [part for part in rest if part.strip() and not _OPTION.fullmatch(part.strip())]
    alt = next((found[1] for part in rest if (found := _ALT.fullmatch(part.strip()))), "")
    return Link(name.strip(), plain_text(said[-1]) if said else plain_text(alt))


def _split(text: str) -> list[str]:
    """Parts between bars that are in no link and no template."""
    parts, depth, begin = [], 0, 0
    for match in re.finditer(r"\[\[|\]\]|\{\{|\}\}|\|", text):
        if match[0] in ("[[", "{{"):
            depth += 1
        elif match[0] in ("]]", "}}"):
            depth -= 1
        elif depth <= 0:
            parts.append(text[begin : match.start()])
            begin = match.end()
    return [*parts, text[begin:]]


def _gallery_links(text: str, names: str) -> Iterator[Link]:
    for line in text.splitlines():
        line = re.sub(rf"^\s*(?:{names})\s*:", "", line, flags=re.IGNORECASE).strip()
        if "." in line.partition("|")[0]:
            yield _link(line)


def _infobox_links(text: str) -> Iterator[Link]:
    for template in mwparserfromhell.parse(text).filter_templates(recursive=False)[:1]:
        values = {str(each.name).strip().lower(): str(each.value).strip() for each in template.params}
        for name, value in values.items():
            match = _IMAGE_PARAMETER.fullmatch(name)
            if not match or not re.fullmatch(r"[^\[\]{}<>|\n]+\.\w{3,4}", value):
                continue  # a link in full has been found already
            captions = (values.get(each.format(match[1]), "") for each in _CAPTIONS)
            yield Link(_FILE_LINK.sub("", value, count=1), plain_text(next((each for each in captions if each), "")))


def plain_text(wikitext: str) -> str:
    """The text that a reader sees: links by their words, no references, no templates but those around text."""
    if not re.search(r"[\[{<']|&", wikitext):
        return wikitext.strip()
    code = mwparserfromhell.parse(_REFERENCE.sub("", wikitext))
    for link in code.filter_wikilinks(recursive=False):
        if _FILE_LINK.match(str(link.title)):
            code.remove(link)
    for template in code.filter_templates(recursive=False):
        positional = [each for each in template.params if not each.showkey]
        kept = str(template.name).strip().lower() in _KEPT_TEMPLATES and positional
        code.replace(template, str(positional[-1].value) if kept else "")
    return re.sub(r"\s+", " ", mwparserfromhell.parse(str(code)).strip_code(keep_template_params=False)).strip()
