"""A row of codes and captions to its record, or to its reject."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.tokenizers.text import TextTokenizer
from pipeline.codes.code_files import CAPTIONS, KEY_COLUMNS, SOURCE, SPLIT, CodeRow
from pipeline.codes.row_codes import CodeForm
from pipeline.filters import Check, SelectConfig, check_presence, filter_candidate
from pipeline.records import (
    Candidate,
    EncodedPair,
    Reason,
    Rejected,
    Stage,
    malformed,
    reject,
    row_key,
    split_of,
)
from pipeline.sources.table_source import RecordOrigin, candidate_of
from pipeline.sources.tables import URL, Record

NAME = "codes"
"""The source of rows that name none."""
SPLITS = {"train": "train", "val": "val", "validation": "val"}
_OWN_KEY = re.compile("[0-9a-f]{32}")
_SOURCE_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}")  # what the header of a tar member holds


def encode_row(
    row: CodeRow, file: str, form: CodeForm, code_type: np.dtype, text: TextTokenizer
) -> EncodedPair | Rejected:
    """The record of a row of a file, or its reject. The caption is cleaned as those of images are; a row without one
    is rejected."""
    candidate = _candidate(row, file)
    if isinstance(candidate, Rejected):
        return candidate
    key = key_of(row, candidate)
    pair = filter_candidate(candidate, SelectConfig(), checks=(Check(check_presence),))
    if isinstance(pair, Rejected):
        return pair._replace(key=key)
    if fault := form.fault(row.codes):
        return reject(candidate, Stage.ENCODE, Reason.BAD_CODES, fault)._replace(key=key)
    codes = row.codes.values.astype(code_type).tobytes()
    return EncodedPair(
        key=key,
        split=SPLITS.get(row.record.values.get(SPLIT) or "", split_of(key, SelectConfig.val_share)),
        source=pair.source,
        file=pair.file,
        row=pair.row,
        url=pair.url,
        caption=pair.caption,
        width=pair.width or 0,
        height=pair.height or 0,
        licence=pair.licence,
        page_url=pair.page_url,
        sha256=candidate.expected_sha256 or hashlib.sha256(codes).hexdigest(),
        phash="",
        codes=codes,
        tokens=np.asarray(text.encode(pair.caption), "<u2").tobytes(),
        boxes=(),
        other_captions=pair.other_captions,
    )


def key_of(row: CodeRow, candidate: Candidate) -> str:
    """A key of pairmill's own form stays; else it follows from the caption and the URL, the row's own key, or its
    codes, whichever is there first."""
    stated = _stated_key(row.record.values)
    if _OWN_KEY.fullmatch(stated):
        return stated
    of_codes = hashlib.sha256(row.codes.values.astype("<i8").tobytes()).hexdigest()
    return row_key(candidate.source, candidate.url or stated or f"sha256:{of_codes}", candidate.raw_caption)


def _candidate(row: CodeRow, file: str) -> Candidate | Rejected:
    values = row.record.values
    source, split = values.get(SOURCE) or NAME, values.get(SPLIT)
    fault = row.record.fault
    if not isinstance(source, str) or not _SOURCE_NAME.fullmatch(source):
        source, fault = NAME, fault or f"source {source!r}: give up to 31 letters, digits, '_', '-' and '.'"
    if split and split not in SPLITS:
        fault = fault or f"split {split!r}: give {', '.join(SPLITS)} or nothing"
    if fault:
        return malformed(source, file, row.number, row.record.text, fault)
    if {*CAPTIONS.url}.isdisjoint(values):
        values = {**values, URL: ""}
    return candidate_of(Record(values, "", row.record.text), CAPTIONS, RecordOrigin(source, file, row.number))


def _stated_key(values: Mapping[str, Any]) -> str:
    key = next((values[name] for name in KEY_COLUMNS if values.get(name) is not None), "")
    return key if isinstance(key, str) else str(key)
