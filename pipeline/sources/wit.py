"""WIT, Wikipedia-based Image Text (Srinivasan et al. 2021), https://github.com/google-research-datasets/wit

`wit_v1.train.all-0000X-of-00010.tsv.gz` and its like: a header and 17 columns, 37.6 million rows in 108 languages;
Kaggle's wikipedia-image-caption adds an 18th. CSV with tabs, doubled quotes and real newlines inside quoted fields, so
that a row may span lines. The image's height comes before its width. Attribution texts often name their language
("English: ...", then "Deutsch: ...").

Kaggle's files of pixels have a row of image URL, base64 bytes at 300 px and metadata URL for an image, tabs between
them and no header; some of the URLs are empty."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from models.errors import UserError
from pipeline.output import files
from pipeline.records import Candidate, malformed
from pipeline.sources.canonical_urls import canonical_url
from pipeline.sources.paths import absolute, expand
from pipeline.sources.readers import LineStart, Row, field_count_error, lines, open_source, pixels
from pipeline.sources.table_source import Columns, RecordOrigin, TableSource
from pipeline.sources.tables import CSV, TSV, Layout, Record, csv_rows
from pipeline.sources.url_index import open_index, pack_entries, write_entries
from pipeline.sources.wikimedia_urls import rendering_of
from pipeline.sources.wit_captions import caption_texts
from pipeline.sources.wit_pages import page_candidate

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

RENDERED_TYPES = ("image/svg+xml", "image/gif", "image/tiff")
"""Types of which Wikimedia has renderings, as dumps use them."""
_ROW_START = re.compile(r"[a-z]{2,3}[A-Za-z-]*\thttps?://[a-z-]+\.wikipedia\.org/")
_PLACE = struct.Struct("<IQ")  # the file's number and the row
FILES_PER_PROCESS = 2  # of pixels, at least: a process takes seconds to start


@dataclass(frozen=True)
class WitSettings:
    """What a user may choose of this source."""

    pixels: tuple[str, ...] = ()  # patterns of Kaggle's files of pixels; for `read`, the files
    pixels_index: str = ""  # for `read`: what `index_pixels` wrote


DEFAULT = WitSettings()


def index_pixels(patterns: Sequence[str], index: str) -> WitSettings:
    """Writes where each URL's image is, and returns the settings for `read`. Many files are read by a process
    for each core. Raises UserError for other files."""
    settings = pixel_files(patterns, index)
    with contextlib.ExitStack() as stack:
        each: Callable[..., Iterable[bytes]] = map
        if (workers := min(os.cpu_count() or 1, len(settings.pixels) // FILES_PER_PROCESS)) > 1:
            spawn = multiprocessing.get_context("spawn")  # not forked: this process has threads
            each = stack.enter_context(concurrent.futures.ProcessPoolExecutor(workers, spawn)).map
        write_entries(index, each(_pixel_entries, range(len(settings.pixels)), settings.pixels), _PLACE.size)
    return settings


def pixel_files(patterns: Sequence[str], index: str) -> WitSettings:
    return WitSettings(tuple(absolute(path) for pattern in patterns for path in expand(pattern)), index)


def _pixel_entries(number: int, path: str) -> bytes:
    """The entries of the file of this number."""
    return pack_entries(_pixel_places(number, path))


def _pixel_places(number: int, path: str) -> Iterator[tuple[str, bytes]]:
    with open_source(path) as stream:
        for row, line in enumerate(lines(stream)):
            if line.fault or line.text.count("\t") != 2:
                fault = line.fault or "not a row of image URL, base64 bytes and metadata URL"
                raise UserError(f"{path}, line {row + 1}: {fault}; give the files of pixels as Kaggle has them")
            if url := line.text.partition("\t")[0].strip():
                yield canonical_url(url), _PLACE.pack(number, row)


def read(stream: BinaryIO, file: str, settings: WitSettings = DEFAULT) -> Iterator[Row]:
    """The rows; those whose images the files of pixels hold need no fetching."""
    return (_rendered(_with_pixels(row, settings)) for row in _rows(stream, file))


def _with_pixels(row: Row, settings: WitSettings) -> Row:
    """The row, with the place of its image if a file of pixels holds it."""
    if not settings.pixels_index or not isinstance(row, Candidate):
        return row
    place = open_index(settings.pixels_index, _PLACE.size).get(canonical_url(row.url))
    if not place:
        return row
    number, line = _PLACE.unpack(place)
    return row._replace(stored_at=f"{settings.pixels[number]}#{line}")


def _rendered(row: Row) -> Row:
    """The row with the address of a rendering, where the original can't be fetched as it is: SVG, GIF, TIFF."""
    if not isinstance(row, Candidate) or row.stored_at or row.mime_type.lower() not in RENDERED_TYPES:
        return row
    url = rendering_of(row.url, row.width)
    if not url:
        return row
    width = height = None
    if row.width and row.height and (size := re.search(r"(\d+)px-", url)):
        width = int(size[1])
        height = max(1, round(row.height * width / row.width))
    return row._replace(url=url, width=width, height=height, mime_type="image/png")


def _rows(stream: BinaryIO, file: str) -> Iterator[Row]:
    columns: Mapping[str, int] = {name: index for index, name in enumerate(COLUMNS)}
    expected: tuple[int, ...] = (len(COLUMNS) - 1, len(COLUMNS))
    row = 0
    for number, (fields, fault) in enumerate(csv_rows(lines(stream), "\t", _ROW_START.match)):
        if number == 0 and set(fields) >= REQUIRED_COLUMNS:
            columns, expected = {name: index for index, name in enumerate(fields)}, (len(fields),)
            continue
        if not fault and len(fields) not in expected:
            fault = field_count_error(len(fields), " or ".join(map(str, expected)))
        if fault:
            yield malformed(NAME, file, row, "\t".join(fields), fault)
        else:
            yield candidate_of({name: fields[columns[name]] for name in REQUIRED_COLUMNS}, file, row)
        row += 1


def candidate_of(values: Mapping[str, Any], file: str, row: int) -> Candidate:
    """The row of values by WIT's names, of which any may be missing."""
    texts = caption_texts(
        _text(values.get("language")),
        _text(values.get("caption_reference_description")),
        _text(values.get("caption_attribution_description")),
        _text(values.get("caption_alt_text_description")),
    )
    return Candidate(
        source=NAME,
        file=file,
        row=row,
        url=_text(values.get("image_url")).strip(),
        fallback_urls=(),
        raw_caption=texts[0] if texts else "",
        width=pixels(values.get("original_width")),
        height=pixels(values.get("original_height")),
        licence="",
        page_url=_text(values.get("page_url")),
        mime_type=_text(values.get("mime_type")),
        alternatives=tuple(texts[1:]),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class Wit(TableSource[WitSettings]):
    """WIT as a source of select."""

    name = NAME
    settings = DEFAULT
    columns = Columns(
        url=("image_url",),
        captions=(
            "caption_reference_description",
            "caption_attribution_description",
            "caption_alt_text_description",
            "wit_features",
        ),
        width=("original_width",),
        height=("original_height",),
        further=("language",),
    )
    lines_are_rows = False
    member_pattern = re.compile(
        r"(?:^|/)(?:train|wit_v1)[^/]*\.tsv(?:\.gz)?$"
    )  # Kaggle's zip holds test and pixels, too

    def is_own(self, layout: Layout) -> bool:
        return layout.kind in (TSV, CSV)

    def row_of(self, record: Record, origin: RecordOrigin, settings: WitSettings) -> Row:
        if record.fault or "image_url" not in record.values:
            fault = record.fault or "no image_url"
            return malformed(NAME, origin.file, origin.row, record.text, fault)
        if "wit_features" in record.values:
            return page_candidate(record.values, origin)
        return _rendered(_with_pixels(candidate_of(record.values, origin.file, origin.row), settings))

    def read(self, stream: BinaryIO, file: str, start: LineStart, settings: WitSettings) -> Iterator[Row]:
        return read(stream, file, settings)

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
            help="files of pixels that Kaggle has (URL, base64 bytes, metadata URL); images that they hold are read "
            "from there instead of fetched; repeatable",
        )

    def settings_from(self, args: argparse.Namespace) -> WitSettings:
        return WitSettings(tuple(args.wit_pixels))
