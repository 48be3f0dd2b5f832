"""The texts of the pages that show one image: `wit_features` in Wikimedia's releases of WIT, lists side by side or
records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.records import Candidate
from pipeline.sources.paths import absolute
from pipeline.sources.readers import pixels
from pipeline.sources.table_source import RecordOrigin
from pipeline.sources.wit_captions import ENGLISH_PAGES, english_parts, other_parts, unique

TEXTS = ("language", "page_url", "caption_reference_description", "caption_alt_text_description")
IMAGES = ("image", "b64_bytes")
"""Columns of the image's bytes, in Parquet and in JSON."""


def page_texts(features: Any) -> list[dict[str, str]]:
    """The texts of each page, by name; missing ones are empty."""
    if isinstance(features, Mapping):  # lists side by side
        columns = {name: values for name in TEXTS if isinstance(values := features.get(name), list)}
        pages: list[Mapping[str, Any]] = [
            {name: values[index] for name, values in columns.items() if index < len(values)}
            for index in range(max(map(len, columns.values()), default=0))
        ]
    else:
        pages = [page for page in features or () if isinstance(page, Mapping)]
    return [{name: _text(page.get(name)) for name in TEXTS} for page in pages]


def page_candidate(record: Mapping[str, Any], origin: RecordOrigin) -> Candidate:
    """The row of an image and its pages. Its texts: captions of pages in English, what the attribution says in English,
    captions of the other pages in their order, the rest of the attribution, alt-texts. The page is that of the first
    caption."""
    pages = page_texts(record["wit_features"])
    pages.sort(key=lambda page: (page["language"] not in ENGLISH_PAGES, not page["caption_reference_description"]))
    attribution = _text(record.get("caption_attribution_description"))
    english = [page["caption_reference_description"] for page in pages if page["language"] in ENGLISH_PAGES]
    others = [page["caption_reference_description"] for page in pages if page["language"] not in ENGLISH_PAGES]
    alts = [page["caption_alt_text_description"] for page in pages]
    texts = unique([*english, *english_parts(attribution), *others, *other_parts(attribution), *alts])
    holds_image = bool(origin.path) and any(record.get(name) is not None for name in IMAGES)
    return Candidate(
        source=origin.source,
        file=origin.file,
        row=origin.row,
        url=_text(record.get("image_url")).strip(),
        fallback_urls=(),
        raw_caption=texts[0] if texts else "",
        width=pixels(record.get("original_width")),
        height=pixels(record.get("original_height")),
        licence="",
        page_url=pages[0]["page_url"] if pages else "",
        mime_type=_text(record.get("mime_type")),
        stored_at=f"{absolute(origin.path)}#{origin.row}" if holds_image else "",
        alternatives=tuple(texts[1:]),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
