"""WIT, Wikipedia-based Image Text (Srinivasan et al. 2021), https://github.com/google-research-datasets/wit

`wit_v1.train.all-0000X-of-00010.tsv.gz` and its like: a header and 17 columns, 37.6 million rows in 108 languages;
Kaggle's wikipedia-image-caption adds an 18th. CSV with tabs, doubled quotes and real newlines inside quoted fields, so
that a row may span lines. The image's height comes before its width. Attribution texts often name their language
("English: ...", then "Deutsch: ...").

Kaggle's files of pixels have a row of image URL, base64 bytes at 300 px and metadata URL for a picture, tabs between
them and no header; some of the URLs are empty."""

from __future__ import annotations

import argparse
import csv
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from models.errors import UserError
from pipeline.output import files
from pipeline.records import Candidate, malformed
from pipeline.sources.paths import absolute, base_name, expand
from pipeline.sources.readers import MAX_ROW_BYTES, Line, Row, field_count_fault, lines, open_source, pixels
from pipeline.sources.source import FileRange, Source
from pipeline.sources.url_index import open_index, write_index

NAME = "wit"
COLUMNS = (
    "language",
    "page_url",
    "image_url",
    "page_title",
    "section_title",
    "hierarchical_section_title",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
    "is_main_image",
    "attribution_passes_lang_id",
    "page_changed_recently",
    "context_page_description",
    "context_section_description",
    "caption_title_and_reference_description",
)
REQUIRED_COLUMNS = {
    "image_url",
    "page_url",
    "language",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
}

_ROW_START = re.compile(r"[a-z]{2,3}[A-Za-z-]*\thttps?://[a-z-]+\.wikipedia\.org/")
_LABEL = (
    "English|Deutsch|Français|Español|Italiano|Nederlands|Português|Português do Brasil|Русский|Українська|Беларуская|"
    "Български|Македонски|Српски / srpski|Српски|Srpski|Hrvatski|Slovenščina|Slovenčina|Čeština|Polski|Magyar|Română|"
    "Svenska|Norsk|Norsk bokmål|Norsk nynorsk|Dansk|Suomi|Eesti|Latviešu|Lietuvių|Íslenska|Ελληνικά|Türkçe|"
    "Azərbaycanca|Հայերեն|ქართული|العربية|فارسی|עברית|हिन्दी|বাংলা|தமிழ்|తెలుగు|ไทย|Tiếng Việt|Bahasa Indonesia|"
    "Bahasa Melayu|日本語|中文|中文（简体）|中文（繁體）|한국어|Català|"
    "Euskara|Galego|Esperanto|Latina|Gaeilge|Cymraeg|Brezhoneg"
)
_LEADING_LABEL = re.compile(rf"\s*(?:{_LABEL})\s*[:：]\s*")
_ANY_LABEL = re.compile(rf"(?:^|(?<=\s))({_LABEL})\s*[:：]\s*")


_PLACE = struct.Struct("<IQ")  # the file's number and the row


@dataclass(frozen=True)
class WitSettings:
    """What a user may choose of this source."""

    pixels: tuple[str, ...] = ()  # patterns of Kaggle's files of pixels; for `read`, the files
    pixels_index: str = ""  # for `read`: what `index_pixels` wrote


DEFAULT = WitSettings()


class CsvRow(NamedTuple):
    fields: list[str]
    fault: str  # "", or why these can't be a row


def index_pixels(patterns: Sequence[str], index: str) -> WitSettings:
    """Writes where each URL's picture is, and returns the settings for `read`. Raises UserError for other files."""
    settings = pixel_files(patterns, index)
    write_index(index, _pixel_places(settings.pixels), _PLACE.size)
    return settings


def pixel_files(patterns: Sequence[str], index: str) -> WitSettings:
    return WitSettings(tuple(absolute(path) for pattern in patterns for path in expand(pattern)), index)


def _pixel_places(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for number, path in enumerate(paths):
        with open_source(path) as stream:
            for row, line in enumerate(lines(stream)):
                if line.fault or line.text.count("\t") != 2:
                    fault = line.fault or "not a row of image URL, base64 bytes and metadata URL"
                    raise UserError(f"{path}, line {row + 1}: {fault}; give the files of pixels as Kaggle has them")
                if url := line.text.partition("\t")[0].strip():
                    yield url, _PLACE.pack(number, row)


def read(stream: BinaryIO, file: str, settings: WitSettings = DEFAULT) -> Iterator[Row]:
    """The rows; those whose pictures the files of pixels hold need no fetching."""
    index = open_index(settings.pixels_index, _PLACE.size) if settings.pixels_index else None
    for row in _rows(stream, file):
        if index and isinstance(row, Candidate) and (place := index.get(row.url)):
            number, line = _PLACE.unpack(place)
            row = row._replace(stored_at=f"{settings.pixels[number]}#{line}")
        yield row


def _rows(stream: BinaryIO, file: str) -> Iterator[Row]:
    columns: Mapping[str, int] = {name: index for index, name in enumerate(COLUMNS)}
    expected = (len(COLUMNS) - 1, len(COLUMNS))
    row = 0
    for number, (fields, fault) in enumerate(csv_rows(stream)):
        if number == 0 and set(fields) >= REQUIRED_COLUMNS:
            columns, expected = {name: index for index, name in enumerate(fields)}, (len(fields),)
            continue
        if not fault and len(fields) not in expected:
            fault = field_count_fault(len(fields), " or ".join(map(str, expected)))
        if fault:
            yield malformed(NAME, file, row, "\t".join(fields), fault)
        else:
            yield _candidate({name: fields[columns[name]] for name in REQUIRED_COLUMNS}, file, row)
        row += 1


def csv_rows(stream: BinaryIO) -> Iterator[CsvRow]:
    """Rows of CSV with tabs. A quote that is never closed takes no more than its own row: where a line inside quotes
    begins as only a row can, the open row ends."""
    # csv's limit is the whole process's and 131,072 by default, less than a page's text
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    feed = _RowLines(lines(stream))
    while feed.more():
        reader = csv.reader(feed, delimiter="\t")
        while feed.start_row():
            try:
                yield CsvRow(next(reader), feed.fault)
            except csv.Error as error:
                yield CsvRow([], feed.fault or str(error))
            if feed.cut:
                break  # this reader has been told that its input ended


class _RowLines:
    """Lines for a csv reader that know where a row began."""

    def __init__(self, source: Iterator[Line]):
        self._source = source
        self._next = next(source, None)
        self._inside = False  # a row's first line has been handed out
        self.fault = ""  # of the lines of this row
        self.cut = False  # the row was ended although its quotes are open

    def more(self) -> bool:
        return self._next is not None

    def start_row(self) -> bool:
        self._inside, self.fault, self.cut = False, "", False
        return self.more()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._next
        if line is None or (self._inside and _ROW_START.match(line.text)):
            self.cut = True
            self.fault = self.fault or "a quote is not closed"
            raise StopIteration
        self._inside = True
        self.fault = self.fault or line.fault
        self._next = next(self._source, None)
        # csv refuses NUL before Python 3.11; the fault tells of it
        return line.text.replace("\0", "\ufffd") + "\n"


def english_part(text: str) -> str:
    """What an attribution says in English, "" if it marks no text as English."""
    begin = None
    for label in _ANY_LABEL.finditer(text):
        if begin is not None:
            return text[begin : label.start()].strip()
        if label[1] == "English":
            begin = label.end()
    return "" if begin is None else text[begin:].strip()


def caption_from(language: str, reference: str, attribution: str, alt: str) -> str:
    """The reference caption, else the attribution, else the alt-text; on a page in another language the attribution's
    English part comes first, because all the rest is in the page's language."""
    english = english_part(attribution)
    page_is_english = language in ("", "en", "simple")
    choices = (reference, english, attribution, alt) if page_is_english else (english, reference, attribution, alt)
    return next((_LEADING_LABEL.sub("", text, count=1) for text in choices if text.strip()), "")


def _candidate(row: Mapping[str, str], file: str, number: int) -> Candidate:
    caption = caption_from(
        row["language"],
        row["caption_reference_description"],
        row["caption_attribution_description"],
        row["caption_alt_text_description"],
    )
    width, height = pixels(row["original_width"]), pixels(row["original_height"])
    url = row["image_url"].strip()
    return Candidate(
        source=NAME,
        file=file,
        row=number,
        url=url,
        fallback_urls=(),
        raw_caption=caption,
        width=width,
        height=height,
        licence="",
        page_url=row["page_url"],
        mime_type=row["mime_type"],
    )


class Wit(Source[WitSettings]):
    """WIT as a source of select."""

    name = NAME
    settings = DEFAULT

    def read_range(self, file_range: FileRange, settings: WitSettings, lines_before: int = 0) -> Iterator[Row]:
        with open_source(file_range.path) as stream:
            yield from read(stream, base_name(file_range.path), settings)

    def prepare(self, settings: WitSettings, folder: str) -> WitSettings:
        if not settings.pixels:
            return settings
        index = files.join(folder, "wit_pixels.index")
        return (pixel_files if files.exists(index) else index_pixels)(settings.pixels, index)

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--wit-pixels",
            action="append",
            default=[],
            metavar="PATTERN",
            help="repeatable: Kaggle's files of pixels (URL, base64 bytes, metadata URL); images that they hold are "
            "read from there instead of fetched",
        )

    def settings_from(self, args: argparse.Namespace) -> WitSettings:
        return WitSettings(tuple(args.wit_pixels))
