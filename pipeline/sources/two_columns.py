"""Text of two fields a line, a URL and a caption, as Conceptual Captions is published: no header, no quoting.

What circulates beside it is read as well: a header line, the fields in the other order, a column of numbers before
them, a tab behind them, and fields that pandas has quoted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.records import Candidate, malformed
from pipeline.sources.readers import WHOLE_FILE, Line, LineStart, Row, field_count_error, has_http_scheme, lines
from pipeline.sources.tables import unquoted


def caption_and_url(
    stream: BinaryIO, file: str, source: str, caption_first: bool, start: LineStart = WHOLE_FILE
) -> Iterator[Row]:
    """Rows of two fields, split at the first tab; quote characters are text. `caption_first` is the published order: a
    header line `caption<TAB>url` or `url<TAB>caption` overrules it, and so does a row in which only one field is a
    URL."""
    row, header = start.line, _header(start.first_line)
    if header:
        row -= 1
        caption_first = header.startswith("caption")
    for number, line in enumerate(lines(stream), start.line):
        if number == 0 and (header := _header(line.text)):
            caption_first = header.startswith("caption")
            continue
        yield _caption_and_url(line, file, row, source, caption_first)
        row += 1


_INDEX = re.compile(r"\d+\t(?=https?://[^\t]*\t|[^\t]*\thttps?://[^\t]*$)", re.IGNORECASE)  # pandas' column of numbers


def _header(text: str) -> str:
    """The line in lower case if it names the two columns, else ""."""
    text = text.strip().lower().replace('"', "")
    return text if text in ("caption\turl", "url\tcaption") else ""


def _caption_and_url(line: Line, file: str, row: int, source: str, caption_first: bool) -> Row:
    if line.fault:
        return malformed(source, file, row, line.text, line.fault)
    text = line.text.rstrip("\t") if "\t" in line.text.strip("\t") else line.text
    if text[:1].isdigit() and (index := _INDEX.match(text)):
        text = text[index.end() :]
    if '"' in text:
        text = "\t".join(unquoted(text.split("\t")))
    first, tab, second = text.partition("\t")
    if not tab:
        return malformed(source, file, row, line.text, field_count_error(1, "2"))
    if has_http_scheme(first) != has_http_scheme(second):
        caption_first = has_http_scheme(second)
    caption, url = (first, second) if caption_first else (second, first)
    if caption_first and url.count("\t") == 3:
        url = url.partition("\t")[0]  # the labels file: caption, URL, labels, machine ids, confidences
    if "\t" in url:
        return malformed(source, file, row, line.text, field_count_error(line.text.count("\t") + 1, "2"))
    return Candidate(
        source=source,
        file=file,
        row=row,
        url=url.strip(),
        fallback_urls=(),
        raw_caption=caption,
        width=None,
        height=None,
        licence="",
        page_url="",
        mime_type="",
    )
