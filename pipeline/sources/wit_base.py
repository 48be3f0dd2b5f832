"""WIT base, Wikimedia's own release of WIT's pictures: https://huggingface.co/datasets/wikimedia/wit_base

Parquet with one row an image: `image_url`, `original_height`, `original_width`, `mime_type`,
`caption_attribution_description`, the picture at 300 px in `image`, and `wit_features`, the texts of the pages that
show it, as lists side by side or as a list of records. The picture's bytes are read later, from where they lie: see
pipeline/stored.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from pipeline.records import Candidate, malformed
from pipeline.sources.paths import absolute, base_name
from pipeline.sources.readers import Row, open_seekable, parquet_columns, parquet_records, pixels
from pipeline.sources.source import FileRange, NoSettings, Source
from pipeline.sources.wit import caption_from

NAME = "wit-base"
COLUMNS = (
    "image_url",
    "original_height",
    "original_width",
    "mime_type",
    "caption_attribution_description",
    "wit_features",
)
TEXTS = ("language", "page_url", "caption_reference_description", "caption_alt_text_description")


def read(stream: BinaryIO, file: str, path: str = "") -> Iterator[Row]:
    """The rows; `stream` must be able to seek. `path`: where a later stage finds the file."""
    holds_images = bool(path) and "image" in parquet_columns(stream)
    for row, (record, fault) in enumerate(parquet_records(stream, COLUMNS, (("image_url",), ("wit_features",)))):
        stored_at = f"{absolute(path)}#{row}" if holds_images else ""
        yield malformed(NAME, file, row, "", fault) if fault else _candidate(record, file, row, stored_at)


def page_texts(features: Any) -> list[dict[str, str]]:
    """The texts of each page, by name; missing ones are empty."""
    if isinstance(features, Mapping):  # lists side by side
        columns = {name: values for name in TEXTS if isinstance(values := features.get(name), list)}
        pages = [
            {name: values[index] for name, values in columns.items() if index < len(values)}
            for index in range(max(map(len, columns.values()), default=0))
        ]
    else:
        pages = [page for page in features or () if isinstance(page, Mapping)]
    return [{name: _text(page.get(name)) for name in TEXTS} for page in pages]


def _candidate(record: Mapping[str, Any], file: str, row: int, stored_at: str) -> Candidate:
    """The page in English comes first, then one that has a caption at all."""
    pages = page_texts(record["wit_features"])
    attribution = _text(record.get("caption_attribution_description"))
    page = min(
        pages,
        key=lambda page: (page["language"] != "en", not page["caption_reference_description"]),
        default=dict.fromkeys(TEXTS, ""),
    )
    caption = caption_from(
        page["language"], page["caption_reference_description"], attribution, page["caption_alt_text_description"]
    )
    width, height = pixels(record.get("original_width")), pixels(record.get("original_height"))
    url, mime_type = _text(record["image_url"]).strip(), _text(record.get("mime_type"))
    return Candidate(
        source=NAME,
        file=file,
        row=row,
        url=url,
        fallback_urls=(),
        raw_caption=caption,
        width=width,
        height=height,
        licence="",
        page_url=page["page_url"],
        mime_type=mime_type,
        stored_at=stored_at,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class WitBase(Source[NoSettings]):
    """Wikimedia's release of WIT's images as a source of select."""

    name = NAME
    settings = NoSettings()

    def read_range(self, file_range: FileRange, settings: NoSettings, lines_before: int = 0) -> Iterator[Row]:
        with open_seekable(file_range.path) as stream:
            yield from read(stream, base_name(file_range.path), file_range.path)
