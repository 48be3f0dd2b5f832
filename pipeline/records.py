"""The record of each stage, and the reasons for which rows are rejected.

`pipeline.output.schemas` derives the Parquet columns from the fields: their names, types and order are the files'."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Optional

from apache_beam.coders import RowCoder, registry

from models.hashing import in_share, stable_hash

SPLIT_SALT = "pairmill split 1"
MAX_REJECT_TEXT = 500
"""Characters of a caption or a detail that a reject keeps: as many as language detection reads."""
KEY_BYTES = 16
KEY_DIGITS = 2 * KEY_BYTES
"""A key is text: two hex digits for each of its bytes."""
IMG2DATASET = "img2dataset"
"""The source of images that img2dataset has fetched: keys are made of it."""


def split_of(key: str, val_share: float) -> str:
    """`val` for about that share of the keys, else `train`. The same keys every time; those of a smaller share
    are among those of a larger one."""
    return "val" if in_share(stable_hash(SPLIT_SALT, key), val_share) else "train"


class Stage(str, enum.Enum):
    SELECT = "select"
    FETCH = "fetch"
    ENCODE = "encode"


class Reason(str, enum.Enum):
    """Why a row was rejected: machine-readable, stable names, as in `rejects/*.parquet` and `ledger.json`."""

    MALFORMED_ROW = "malformed_row"
    DAMAGED_FILE = "damaged_file"  # nothing of the file can be read from this row on
    NO_URL = "no_url"
    BAD_URL = "bad_url"
    VIDEO = "video"
    UNSUPPORTED_TYPE = "unsupported_type"
    NO_CAPTION = "no_caption"
    UNKNOWN_TEMPLATE = "unknown_template"  # wikitext of the caption whose words are not known
    CAPTION_TOO_SHORT = "caption_too_short"
    NOT_ENGLISH = "not_english"
    BOILERPLATE = "boilerplate"
    FILE_NAME = "file_name"
    ASPECT_RATIO = "aspect_ratio"
    TOO_SMALL = "too_small"
    LICENCE = "licence"
    MACHINE_TAG = "machine_tag"
    NOT_IN_SUBSET = "not_in_subset"
    REPETITION = "repetition"
    CAPITALISATION = "capitalisation"
    PERSONAL_DATA = "personal_data"  # an e-mail address or a telephone number in the caption
    DUPLICATE_URL = "duplicate_url"
    DUPLICATE_PAIR = "duplicate_pair"
    DUPLICATE_IMAGE = "duplicate_image"
    EXCLUDED = "excluded"
    HTTP_404 = "http_404"
    HTTP_410 = "http_410"
    HTTP_403 = "http_403"
    HTTP_429 = "http_429"
    HTTP_5XX = "http_5xx"
    HTTP_OTHER = "http_other"
    DNS = "dns"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    REFUSED_ADDRESS = "refused_address"
    OPTED_OUT = "opted_out"
    PLACEHOLDER = "placeholder"
    NOT_STORED = "not_stored"  # the source's own file lacks the image that it should hold
    HASH_MISMATCH = "hash_mismatch"
    NOT_AN_IMAGE = "not_an_image"
    CORRUPT_IMAGE = "corrupt_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    BAD_CODES = "bad_codes"  # codes from elsewhere: missing, of another shape or not in the vocabulary
    UNEXPECTED = "unexpected"  # an exception that nothing foresaw; the detail has its name
    SAMPLED_OUT = "sampled_out"  # not among the pairs that `pairmill repack` was asked for
    BALANCED_OUT = "balanced_out"  # no concept, host or source of the pair kept it
    NO_CONCEPT = "no_concept"  # the caption has none of those that are balanced
    FILTERED_OUT = "filtered_out"  # the condition of `pairmill filter` does not hold
    # what bounds on scores leave out
    LOW_SIMILARITY = "low_similarity"  # of image and caption
    UNSAFE = "unsafe"
    WATERMARK = "watermark"
    TEXT_IN_IMAGE = "text_in_image"
    SEMANTIC_DUPLICATE = "semantic_duplicate"  # of an image that fits its caption better
    LOW_QUALITY = "low_quality"
    FACE = "face"  # the image shows one, and --faces reject
    DAMAGED_SHARD = "damaged_shard"  # the pair was in a shard that `pairmill verify --repair` dropped


TRANSIENT_REASONS = frozenset(
    {Reason.HTTP_429, Reason.HTTP_5XX, Reason.DNS, Reason.CONNECTION, Reason.TIMEOUT, Reason.UNEXPECTED}
)
"""Failures that may not happen again: a second run fetches these rows once more."""


class Candidate(NamedTuple):
    """One row as a source's file states it, before any check."""

    source: str
    file: str  # base name of the file, as published; the folder is the user's own
    row: int  # from 0, in the file's own order
    url: str
    fallback_urls: Sequence[str]  # other URLs of the same bytes
    raw_caption: str
    width: Optional[int]  # px, if the source states it
    height: Optional[int]
    licence: str
    page_url: str
    mime_type: str
    expected_sha256: str = ""  # of the image's bytes, if the source knows: 64 hex digits
    stored_at: str = ""  # PATH#PLACE of the image in a file of the source: see pipeline.sources.stored_images
    alternatives: Sequence[str] = ()  # further texts, in the order in which they are tried as the caption
    parts: Sequence[str] = ()  # the texts that raw_caption joins: each must pass, or an alternative is taken


class Pair(NamedTuple):
    """A row that was kept: what `pairs/*.parquet` holds."""

    key: str  # 32 hex digits
    source: str
    file: str
    row: int
    url: str
    fallback_urls: Sequence[str]
    caption: str  # clean, case kept
    raw_caption: str
    width: Optional[int]
    height: Optional[int]
    licence: str
    page_url: str
    split: str  # train or val
    expected_sha256: str = ""  # of the bytes to be fetched, if the source knows; others are a hash_mismatch
    stored_at: str = ""  # PATH#PLACE of the image in a file of the source: see pipeline.sources.stored_images
    other_captions: Sequence[str] = ()  # clean; the row's further texts that pass all checks, in the source's order


class Rejected(NamedTuple):
    """A row that was dropped: what `rejects/*.parquet` holds."""

    key: str
    source: str
    file: str
    row: int
    url: str
    stage: str  # a Stage's value
    reason: str  # a Reason's value, or what a check from elsewhere names
    detail: str  # for people: the measure that failed, the status, the other row's key; at most MAX_REJECT_TEXT
    raw_caption: str = ""  # as published, cut; the clean one of rows that were encoded before they were rejected


class EncodedPair(NamedTuple):
    """A finished pair: what a shard and a row of `index/*.parquet` hold."""

    key: str
    split: str
    source: str
    file: str
    row: int
    url: str
    caption: str
    width: int  # px, of the upright image as fetched; 0 of codes from elsewhere whose file does not state it
    height: int
    licence: str
    page_url: str
    sha256: str  # of the bytes as fetched; of the codes if they are from elsewhere and their file does not state it
    phash: str  # 64-bit perceptual hash, 16 hex digits; "" of codes from elsewhere
    codes: bytes  # uint16 or uint32 little-endian, draws x codes of an image
    tokens: bytes  # uint16 little-endian
    boxes: Sequence[int]  # draws x the six numbers of models.pixels.CropBox; none of codes from elsewhere
    signature: bytes = b""  # of pipeline.dataset.image_signature, if near-duplicates are searched; not written
    other_captions: Sequence[str] = ()  # of the Pair


for _record in (Candidate, Pair, Rejected, EncodedPair):
    registry.register_coder(_record, RowCoder)


def row_key(source: str, url: str, raw_caption: str) -> str:
    """32 hex digits that depend on what the source states, not on its file's folder or order."""
    text = "\0".join((source, url, raw_caption))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


def shortened(text: str) -> str:
    """The first MAX_REJECT_TEXT characters, as Parquet can hold them: half a surrogate pair becomes "?"."""
    text = text[:MAX_REJECT_TEXT]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def reject(row: Candidate | Pair | EncodedPair, stage: Stage, reason: str, detail: str = "") -> Rejected:
    """The reject of a row at a stage, for a Reason or one that a check brings along. A Pair or an EncodedPair may have
    Beam's own type for rows of the same fields."""
    raw_caption = getattr(row, "raw_caption", None)
    if raw_caption is None:
        raw_caption = getattr(row, "caption")  # noqa: B009 (an encoded pair's, whatever its class)
    return Rejected(
        key=row_key(row.source, row.url, row.raw_caption) if isinstance(row, Candidate) else row.key,
        source=row.source,
        file=row.file,
        row=row.row,
        url=row.url,
        stage=stage.value,
        reason=reason.value if isinstance(reason, Reason) else reason,
        detail=shortened(detail),
        raw_caption=shortened(raw_caption),
    )


_KEPT = "kept "


def kept_instead(key: str) -> str:
    """The detail of a duplicate: names the pair that is kept instead."""
    return f"{_KEPT}{key}"


def key_kept_instead(detail: str) -> str:
    """The key that `kept_instead` was given."""
    return detail.removeprefix(_KEPT)


class Damage(str):
    """A fault of a file, not of a row: what follows in it can't be read."""


def malformed(source: str, file: str, row: int, text: str, fault: str) -> Rejected:
    """The reject of a row that does not parse. Its text stands in for URL and caption in the key, and follows the fault
    in the detail. A Damage has a reason of its own."""
    return Rejected(
        key=row_key(source, "", text),
        source=source,
        file=file,
        row=row,
        url="",
        stage=Stage.SELECT.value,
        reason=(Reason.DAMAGED_FILE if isinstance(fault, Damage) else Reason.MALFORMED_ROW).value,
        detail=shortened(f"{fault}: {text[:MAX_REJECT_TEXT]}" if text else fault),
    )


REJECTED_TAG = "rejected"
"""The output of a step that holds its rejects."""
