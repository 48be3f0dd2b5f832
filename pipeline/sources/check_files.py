"""Is a file one of its source's? Looked at before a job starts, so that another kind of file is one line of error
instead of a million rejects."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from models.errors import UserError
from pipeline.records import Reason, Rejected
from pipeline.sources.file_kinds import HEAD_BYTES, TAR, TEXT, kind_of, side_file
from pipeline.sources.hosts import WIKIMEDIA_UPLOADS
from pipeline.sources.paths import map_files
from pipeline.sources.readers import Row, has_http_scheme, open_source
from pipeline.sources.registry import SOURCES, SourceSettings
from pipeline.sources.source import FileRange, Source
from pipeline.sources.unpack import head_of

CHECKED_ROWS = 1000
OTHERS_ROWS = 20  # that are read as another source's, to name it
_UNUSABLE = (Reason.MALFORMED_ROW.value, Reason.DAMAGED_FILE.value)


def check_files(ranges: Sequence[FileRange], settings: SourceSettings) -> None:
    """Raises UserError for a file of a kind that its source does not read, for one without a usable row among its first
    CHECKED_ROWS, and for a source all of whose files are empty."""
    rows: Counter[str] = Counter()
    first = {(each.source, each.path, each.member): each for each in reversed(ranges)}
    chosen = list(reversed(first.values()))
    for file_range, number in zip(chosen, map_files(partial(_check_file, settings=settings), chosen), strict=True):
        rows[file_range.source] += number
    for name, number in rows.items():
        if not number:
            paths = ", ".join(dict.fromkeys(each.path for each in ranges if each.source == name))
            raise UserError(f"{name}: no row in {paths}: the file is empty; download it again")


def _check_file(file_range: FileRange, settings: SourceSettings) -> int:
    """More than 0 if the file holds anything. Raises UserError as `check_files`."""
    source = SOURCES[file_range.source]
    head = _head(file_range, source)
    _check_kind(file_range, source, head)
    source.check_head(file_range.path, head)
    if not source.checks_rows:
        return len(head)
    return _check_rows(file_range, source, source.settings_of_check(settings.get(source.name, source.settings)))


def _head(file_range: FileRange, source: Source[Any]) -> bytes:
    with open_source(file_range.path, file_range.member, TAR not in source.kinds) as stream:
        return head_of(stream, HEAD_BYTES)


def _check_kind(file_range: FileRange, source: Source[Any], head: bytes) -> None:
    kind, remedy = kind_of(head)
    if kind == TEXT and (what := side_file(_first_line(head))):
        raise UserError(f"{_named(file_range)} is no list of {source.name}: it is {what}")
    if not head or kind in source.kinds:
        return
    if not remedy:
        readers = [name for name, other in SOURCES.items() if kind in other.kinds]
        remedy = f"it is read as {' or '.join(f'{name}=' for name in readers)}"
    raise UserError(f"{_named(file_range)} is {kind}, not a list of {source.name}: {remedy}")


def _check_rows(file_range: FileRange, source: Source[Any], settings: Any) -> int:
    """How many rows were looked at: up to CHECKED_ROWS, or up to the first usable one."""
    fault, number = "", 0
    for row in itertools.islice(source.read_range(file_range, settings), CHECKED_ROWS):
        if is_usable(row):
            return number + 1
        number += 1
        fault = fault or _fault_of(row)
    if not number:
        return 0
    if what := _other_source(file_range, source):
        raise UserError(f"{_named(file_range)} is no list of {source.name}: it is {what}")
    raise UserError(
        f"{_named(file_range)} is no list of {source.name}: none of its first {number:,} rows is one ({fault}); "
        "docs/recipes.md has the forms that are read"
    )


def is_usable(row: Row) -> bool:
    """Whether a row says where an image is, or why it is left out."""
    if isinstance(row, Rejected):
        return row.reason not in _UNUSABLE
    return bool(row.stored_at) or has_http_scheme(row.url) or row.url.startswith(f"//{WIKIMEDIA_UPLOADS}/")


def _fault_of(row: Row) -> str:
    return row.detail[:160] if isinstance(row, Rejected) else "no http or https URL"


def _other_source(file_range: FileRange, source: Source[Any]) -> str:
    """Another source whose list the file is; "" if there is none."""
    for name, other in SOURCES.items():
        if name == source.name or TEXT not in other.kinds or not other.checks_rows:
            continue
        rows = _rows(file_range._replace(source=name, kind="file", first=0, stop=0), other)
        if rows and sum(map(is_usable, rows)) * 2 > len(rows):
            return f"one of {name}: give --source {name}={file_range.path}"
    return ""


def _rows(file_range: FileRange, source: Source[Any]) -> Sequence[Row]:
    return list(itertools.islice(source.read_range(file_range, source.settings), OTHERS_ROWS))


def _first_line(head: bytes) -> str:
    return head.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")


def _named(file_range: FileRange) -> str:
    return f"{file_range.path}{f' ({file_range.member})' if file_range.member else ''}"
