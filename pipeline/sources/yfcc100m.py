"""YFCC100M (Thomee et al. 2016), https://multimediacommons.wordpress.com: 99.2 million photos, 0.8 million videos.

One row a photo or video, no header, tab-separated, as one bz2 or ten parts; 23 fields, or 25 in the later
`yfcc100m_dataset.bz2`, which puts a line number before the photo id and the photo's hash behind it.
`yfcc100m_dataset.sql` (65.6 GB) is a sqlite database of one table with the 23 columns.
Nickname, device, title, description and tags are form-encoded: '+' is a space."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import itertools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Optional
from urllib.parse import quote, unquote_plus

import numpy as np

from models.errors import UserError
from pipeline.records import Candidate, Damage, Reason, Stage, malformed, reject
from pipeline.sources.file_kinds import PARQUET, SQLITE_MAGIC, TEXT
from pipeline.sources.file_kinds import SQLITE as SQLITE_KIND
from pipeline.sources.hosts import FLICKR_URL
from pipeline.sources.paths import base_name
from pipeline.sources.readers import WHOLE_FILE, LineStart, Row, field_count_error, lines, open_seekable, open_source
from pipeline.sources.source import FileRange, StartsAt
from pipeline.sources.table_source import Columns, RecordOrigin, TableSource
from pipeline.sources.tables import TSV, Layout, Record
from pipeline.sources.unpack import head_of
from pipeline.text.captions import is_file_name

NAME = "yfcc100m"
CAPTIONS = ("title_and_description", "title", "description")
"""Forms of the caption. The first is the default: a title alone is often only a name, a description is missing from
most rows, and OpenAI kept rows by their titles and descriptions alike."""
TABLE = "yfcc100m_dataset"
SQLITE = "sqlite"  # the kind of a file range of row ids
SQLITE_ROWS = 500_000  # of one file range
COLUMNS = (
    "photoid",
    "uid",
    "unickname",
    "datetaken",
    "dateuploaded",
    "capturedevice",
    "title",
    "description",
    "usertags",
    "machinetags",
    "longitude",
    "latitude",
    "accuracy",
    "pageurl",
    "downloadurl",
    "licensename",
    "licenseurl",
    "serverid",
    "farmid",
    "secret",
    "secretoriginal",
    "ext",
    "marker",
)
WHOLE_CAPTIONS = ("final_caption", "caption", "text")  # of copies: what somebody made of title and description
CAPTION_NAMES = (*WHOLE_CAPTIONS, "title_clean", "description_clean", "title", "description")
URL_NAMES = ("downloadurl", "url", "image_url")
# those that are used
PHOTO_ID, TITLE, DESCRIPTION, MACHINE_TAGS, PAGE_URL, URL, LICENCE, MARKER = 0, 6, 7, 9, 13, 14, 15, 22


@dataclass(frozen=True)
class YfccSettings:
    """What a user may choose of this source."""

    caption: str = CAPTIONS[0]
    subset: str = ""  # path or URL of a list of photo ids, such as OpenAI's: the other rows go
    refused_machine_tags: tuple[str, ...] = ()  # rows with a machine tag that begins like one of these go


DEFAULT = YfccSettings()
LINES_OF_LIST = 100_000_000  # and about as many rows; ids of photos are larger
NUMPY_MAGIC = b"\x93NUMPY"
CHECKED_IDS = 1000  # of a subset, before the job starts


def read(stream: BinaryIO, file: str, start: LineStart = WHOLE_FILE, settings: YfccSettings = DEFAULT) -> Iterator[Row]:
    """The rows of a text part."""
    for row, line in enumerate(lines(stream), start.line):
        if row == 0 and line.text.startswith(SQLITE_MAGIC.decode()):
            yield malformed(NAME, file, row, "", "a sqlite database is read from a local path only: copy it first")
            return
        if line.fault:
            yield malformed(NAME, file, row, line.text, line.fault)
        else:
            yield _parse(line.text.split("\t"), line.text, file, row, settings)


def is_sqlite(path: str) -> bool:
    """Whether a local file is the sqlite form."""
    with open(path, "rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def sqlite_ranges(path: str, rows: int) -> list[tuple[int, int]]:
    """Ranges [first, stop) of row ids, each of at most `rows` rows, that cover the table; [(0, 0)] if it can't be read,
    so that one read of that range says why."""
    try:
        with contextlib.closing(_connect(path)) as database:
            low, high = database.execute(f"SELECT min(rowid), max(rowid) FROM {TABLE}").fetchone()
    except sqlite3.Error:
        return [(0, 0)]
    if low is None:
        return []
    return [(first, min(first + rows, high + 1)) for first in range(low, high + 1, rows)]


def read_sqlite(path: str, file: str, first: int, stop: int, settings: YfccSettings = DEFAULT) -> Iterator[Row]:
    """The rows whose ids are in [first, stop). A row's number is its id less one: the same however the ranges lie."""
    row = max(first - 1, 0)
    query = f"SELECT rowid, {', '.join(COLUMNS)} FROM {TABLE} WHERE rowid >= ? AND rowid < ? ORDER BY rowid"
    try:
        with contextlib.closing(_connect(path)) as database:
            for rowid, *values in database.execute(query, (first, stop)):
                row = rowid - 1
                fields = ["" if value is None else str(value) for value in values]
                yield _parse(fields, "\t".join(fields), file, row, settings)
                row += 1
    except sqlite3.Error as error:
        yield malformed(NAME, file, row, "", Damage(f"the sqlite database can't be read from here on: {error}"))


def photo_hash(url: str) -> str:
    """The photo's hash: MD5 of the download URL as stored, each byte in hex without zero padding (so that most hashes
    have fewer than 32 characters)."""
    return "".join(f"{byte:x}" for byte in hashlib.md5(url.encode(), usedforsecurity=False).digest())


def bucket_url(photo: str) -> str:
    """The photo in Multimedia Commons' public bucket, which keeps what Flickr has lost."""
    return f"https://multimedia-commons.s3-us-west-2.amazonaws.com/data/images/{photo[:3]}/{photo[3:6]}/{photo}.jpg"


_NO_TITLE = re.compile(
    r"\W*(?:untitled|no title|sans titre|ohne titel|sin t[ií]tulo|senza titolo)?[\W_]*\d{0,4}\W*", re.IGNORECASE
)
"""Titles that say that there is none."""


def caption_parts(title: str, description: str) -> list[str]:
    """The texts that `caption_from` joins: each is judged by itself."""
    title, description = title.strip(), description.strip()
    joined = caption_from(title, description)
    return [title, description] if joined not in (title, description) else [joined]


def caption_from(title: str, description: str, form: str = CAPTIONS[0]) -> str:
    """The caption from decoded texts. A title that is only a file name, or says that
    there is none, counts as none, unless there is nothing else."""
    title, description = title.strip(), description.strip()
    words = "" if is_file_name(title) or _NO_TITLE.fullmatch(title) else title
    if form == "title":
        return words or description or title
    if form == "description":
        return description or title
    if not words or description.casefold().startswith(words.casefold()):
        return description or title
    if not description:
        return words
    return f"{words}{'' if words[-1] in '.,:;!?…' else '.'} {description}"


class PhotoSubset(NamedTuple):
    """The rows that a list names."""

    numbers: np.ndarray  # sorted, uint64
    are_lines: bool  # numbers of lines of the whole list, from 0, rather than photo ids


@functools.lru_cache(2)
def read_subset(path: str) -> PhotoSubset:
    """The photos of a subset's list: 8 bytes a photo (119 MB for OpenAI's 14,829,396).

    `yfcc100m_subset_data.tsv.bz2`, by which OpenAI named the photos that CLIP saw, has a line number, a photo id and a
    photo hash in each row and no caption; a list of ids alone will do as well, and so will an array of ids or of line
    numbers (`.npy`, packed or not). Raises UserError for another file.
    """
    array = read_array(path)
    if array is not None:
        return PhotoSubset(np.sort(array), bool(len(array)) and int(array.max()) < LINES_OF_LIST)
    return PhotoSubset(subset_ids(path), False)


def read_array(path: str) -> Optional[np.ndarray]:
    """The numbers of a NumPy file, uint64; None for another file. Raises UserError for an array of something else."""
    with open_source(path) as stream:
        if head_of(stream, len(NUMPY_MAGIC)) != NUMPY_MAGIC:
            return None
    with open_seekable(path) as stream:
        try:
            array = np.load(stream, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise UserError(f"{path}: not readable as an array: {error}; copy it again") from error
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or (len(array) and array.min() < 0):
        raise UserError(
            f"{path}: an array of {array.dtype} {array.shape}; a subset is one of photo ids or line numbers"
        )
    numbers: np.ndarray = array.astype(np.uint64)
    return numbers


def subset_ids(path: str) -> np.ndarray:
    """The photo ids of a subset's text, sorted, uint64."""
    numbers = photo_ids(path)
    parts = iter(lambda: list(itertools.islice(numbers, 1_000_000)), [])
    return np.sort(np.concatenate([np.array(part, np.uint64) for part in parts] or [np.empty(0, np.uint64)]))


def photo_ids(path: str) -> Iterator[str]:
    """The ids of a subset's list, in its order. Raises UserError at a line without one."""
    with open_source(path) as stream:
        for number, line in enumerate(lines(stream), 1):
            fields = line.text.split("\t")
            identity = fields[1 if len(fields) > 1 else 0].strip()
            if not line.fault and identity.isdecimal() and len(identity) <= 19:
                yield identity
            elif number > 1 or line.fault:  # else it is a header
                raise UserError(
                    f"{path}, line {number}: no photo id there; a subset has rows of line number, photo "
                    "id and hash, or of ids alone"
                )


def contains(identity: int, ids: np.ndarray) -> bool:
    position = int(np.searchsorted(ids, np.uint64(identity)))
    return position < len(ids) and int(ids[position]) == identity


def refused_machine_tag(tags: str, refused: Sequence[str]) -> str:
    """The first of a row's machine tags (still form-encoded, comma-separated) that begins like a refused one."""
    for tag in tags.split(",") if tags else ():
        decoded = unquote_plus(tag).strip().casefold()
        if any(decoded.startswith(prefix.casefold()) for prefix in refused):
            return decoded
    return ""


def _parse(fields: Sequence[str], text: str, file: str, row: int, settings: YfccSettings) -> Row:
    stored_hash, line = "", None
    if len(fields) == len(COLUMNS) + 2:
        line, stored_hash = int(fields[0]) if fields[0].isdecimal() and len(fields[0]) < 19 else None, fields[2]
        fields = [fields[1], *fields[3:]]
    if len(fields) != len(COLUMNS):
        return malformed(NAME, file, row, text, field_count_error(len(fields), "23 or 25"))
    if not fields[PHOTO_ID].isdecimal() or len(fields[PHOTO_ID]) > 19 or fields[MARKER] not in ("0", "1"):
        return malformed(NAME, file, row, text, "the photo id or the marker of a photo or video is not a number")
    if "\0" in text:
        return malformed(NAME, file, row, text, "the row holds a NUL byte")
    texts = (unquote_plus(fields[TITLE]), unquote_plus(fields[DESCRIPTION]))
    photo = Photo(
        identity=int(fields[PHOTO_ID]),
        title=texts[0],
        description=texts[1],
        machine_tags=fields[MACHINE_TAGS],
        page_url=fields[PAGE_URL],
        url=fields[URL],
        licence=fields[LICENCE],
        is_video=fields[MARKER] == "1",
        stored_hash=stored_hash,
        line=line,
    )
    return _row(photo, file, row, settings)


class Photo(NamedTuple):
    """The fields of a row of any form."""

    title: str  # decoded
    description: str
    url: str
    identity: Optional[int] = None
    line: Optional[int] = None  # in the whole list, from 0, where the row states it
    machine_tags: str = ""  # form-encoded
    page_url: str = ""
    licence: str = ""
    is_video: bool = False
    stored_hash: str = ""


def _row(photo: Photo, file: str, row: int, settings: YfccSettings) -> Row:
    name = photo.stored_hash if re.fullmatch("[0-9a-f]{16,32}", photo.stored_hash) else photo_hash(photo.url)
    caption = caption_from(photo.title, photo.description, settings.caption)
    parts = tuple(caption_parts(photo.title, photo.description)) if settings.caption == CAPTIONS[0] else ()
    candidate = Candidate(
        source=NAME,
        file=file,
        row=row,
        url=photo.url,
        # A list whose URLs lead elsewhere is somebody's copy: the bucket knows only Flickr's own.
        fallback_urls=(bucket_url(name),) if FLICKR_URL.match(photo.url) else (),
        raw_caption=caption,
        width=None,
        height=None,
        licence=photo.licence,
        page_url=photo.page_url,
        mime_type="",
        alternatives=parts if len(parts) > 1 else (),
        parts=parts if len(parts) > 1 else (),
    )
    if settings.subset and not _is_in_subset(photo, row, settings.subset):
        return reject(candidate, Stage.SELECT, Reason.NOT_IN_SUBSET)
    if photo.is_video:
        return reject(candidate, Stage.SELECT, Reason.VIDEO)
    if tag := refused_machine_tag(photo.machine_tags, settings.refused_machine_tags):
        return reject(candidate, Stage.SELECT, Reason.MACHINE_TAG, tag)
    return candidate


def _is_in_subset(photo: Photo, row: int, subset: str) -> bool:
    """Whether a list of ids or of lines names a photo."""
    chosen = read_subset(subset)
    number = photo.line if chosen.are_lines and photo.line is not None else row if chosen.are_lines else photo.identity
    return number is not None and contains(number, chosen.numbers)


def _of_record(record: Record, origin: RecordOrigin, settings: YfccSettings) -> Row:
    """The row of a record with the columns' names, or of a copy that has a caption only."""
    values = {name: "" if value is None else str(value) for name, value in record.values.items()}
    url = next((values[name] for name in URL_NAMES if name in values), None)
    texts = [name for name in CAPTION_NAMES if name in values]
    if record.fault or url is None or not texts:
        fault = record.fault or f"no column {' or '.join(URL_NAMES if url is None else CAPTION_NAMES)}"
        return malformed(NAME, origin.file, origin.row, record.text, fault)
    clean = "title_clean" in values or "description_clean" in values
    is_published = not clean and "downloadurl" in values
    title = values.get("title_clean" if clean else "title", "")
    description = values.get("description_clean" if clean else "description", "")
    photo = Photo(
        title=unquote_plus(title) if is_published else title,
        description=unquote_plus(description) if is_published else description,
        url=url.strip(),
        identity=int(values["photoid"]) if values.get("photoid", "").isdecimal() else None,
        machine_tags=values.get("machinetags", ""),
        page_url=values.get("pageurl", ""),
        licence=values.get("licensename", ""),
        is_video=values.get("marker") == "1",
        stored_hash=values.get("key") or values.get("hash") or "",
    )
    if whole := next((values[name] for name in WHOLE_CAPTIONS if values.get(name, "").strip()), ""):
        photo = photo._replace(title="", description=whole)
    return _row(photo, origin.file, origin.row, settings)


def _connect(path: str) -> sqlite3.Connection:
    # immutable: sqlite then neither locks nor writes beside a file on a read-only disk
    database = sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)
    database.text_factory = lambda value: value.decode("utf-8", "replace")
    return database


class Yfcc100m(TableSource[YfccSettings]):
    """YFCC100M as a source of select."""

    name = NAME
    settings = DEFAULT
    kinds = frozenset({TEXT, SQLITE_KIND, PARQUET})
    columns = Columns(
        url=URL_NAMES,
        captions=CAPTION_NAMES,
        width=(),
        height=(),
        licence=("licensename",),
        page_url=("pageurl",),
        further=("photoid", "key", "hash", "machinetags", "marker"),
    )

    def is_own(self, layout: Layout) -> bool:
        return layout.kind == TSV and not layout.columns

    def row_of(self, record: Record, origin: RecordOrigin, settings: YfccSettings) -> Row:
        return _of_record(record, origin, settings)

    def split(self, path: str) -> list[FileRange]:
        if "://" in path or not is_sqlite(path):
            return super().split(path)
        return [
            FileRange(source=NAME, path=path, kind=SQLITE, first=first, stop=stop)
            for first, stop in sqlite_ranges(path, SQLITE_ROWS)
        ]

    def read_range(self, file_range: FileRange, settings: YfccSettings, first_line_number: int = 0) -> Iterator[Row]:
        if file_range.kind != SQLITE:
            return super().read_range(file_range, settings, first_line_number)
        path = file_range.path
        return read_sqlite(path, base_name(path), file_range.first, file_range.stop, settings)

    def starts_at(self, file_range: FileRange) -> StartsAt:
        return StartsAt.POSITIONS if file_range.kind == SQLITE else super().starts_at(file_range)

    def read(self, stream: BinaryIO, file: str, start: LineStart, settings: YfccSettings) -> Iterator[Row]:
        return read(stream, file, start, settings)

    def prepare(self, settings: YfccSettings, folder: str) -> YfccSettings:
        """Reads the first lines of the subset, so that another file is found before the job starts."""
        if settings.subset and read_array(settings.subset) is None:
            for _ in itertools.islice(photo_ids(settings.subset), CHECKED_IDS):
                pass
        return settings

    def add_arguments(self, group: argparse._ArgumentGroup) -> None:
        group.add_argument(
            "--yfcc-caption",
            default=CAPTIONS[0],
            choices=CAPTIONS,
            help="text of a YFCC100M row to take as its caption",
        )
        group.add_argument(
            "--yfcc-subset",
            metavar="FILE",
            help="keep only the photos that a list names, such as OpenAI's yfcc100m_subset_data.tsv.bz2",
        )
        group.add_argument(
            "--yfcc-refuse-machine-tag",
            action="append",
            default=[],
            metavar="TEXT",
            help="reject rows with a machine tag that starts with TEXT, for example uploaded:by=instagram; repeatable",
        )

    def settings_from(self, args: argparse.Namespace) -> YfccSettings:
        return YfccSettings(
            caption=args.yfcc_caption,
            subset=args.yfcc_subset or "",
            refused_machine_tags=tuple(args.yfcc_refuse_machine_tag),
        )
