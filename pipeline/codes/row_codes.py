"""The codes of rows: integers from a Parquet column of lists, nested or not, or from an array, and what is wrong with
them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

import numpy as np
import pyarrow as pa

from models.errors import UserError
from models.tokenizers.info import CodeShape

Dimensions = tuple[int, ...]
"""How long the lists of a row are, from the outermost to the innermost."""


class RowCodes(NamedTuple):
    """The codes of a row, as its file has them."""

    values: np.ndarray  # integers of any type [n], in raster order
    dimensions: Dimensions = ()
    fault: str = ""  # why there are none


class CodeForm(NamedTuple):
    """What the codes of each row are to be."""

    dimensions: Dimensions
    draws: int  # crops of an image whose codes a row has
    shape: CodeShape  # of one crop
    vocabulary: int

    def fault(self, codes: RowCodes) -> str:
        """What is wrong with the codes of a row, or ""."""
        if codes.fault:
            return codes.fault
        if codes.dimensions != self.dimensions:
            return f"{in_words(codes.dimensions)} codes, expected {in_words(self.dimensions)}"
        outside = codes.values[(codes.values < 0) | (codes.values >= self.vocabulary)]
        return f"code {outside[0]} of a vocabulary of {self.vocabulary:,}" if len(outside) else ""


def in_words(dimensions: Dimensions) -> str:
    return " x ".join(map(str, dimensions))


def list_depth(kind: pa.DataType) -> int:
    """How many lists of a column's type hold its integers. Raises UserError for a type that is none of integers in
    lists."""
    depth, inner = 0, _plain(kind)
    while pa.types.is_list(inner):
        depth, inner = depth + 1, inner.value_type
    if not depth or not pa.types.is_integer(inner):
        raise UserError(f"is of type {kind}; give lists of integers, one list an image")
    return depth


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type with plain lists in place of the other kinds of lists."""
    if isinstance(kind, pa.BaseExtensionType):  # Array2D of the `datasets` library
        return _plain(kind.storage_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def codes_of_column(column: pa.Array) -> Iterator[RowCodes]:
    """The codes of each row of a column of `list_depth` 1 or more."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    lists = column.cast(_plain(column.type))
    missing = lists.is_null().to_numpy(zero_copy_only=False)
    offsets = []
    while pa.types.is_list(lists.type):
        offsets.append(lists.offsets.to_numpy())
        lists = lists.values
    gaps = lists.is_null().to_numpy(zero_copy_only=False) if lists.null_count else None
    values = lists.fill_null(0).to_numpy(zero_copy_only=False)
    for row, is_missing in enumerate(missing):
        yield _no_codes("no codes") if is_missing else _codes_at(row, offsets, values, gaps)


def _codes_at(row: int, offsets: list[np.ndarray], values: np.ndarray, gaps: Optional[np.ndarray]) -> RowCodes:
    start, stop = offsets[0][row : row + 2].tolist()
    dimensions = [stop - start]
    for inner in offsets[1:]:
        lengths = np.diff(inner[start : stop + 1])
        if not len(lengths):
            return _no_codes("no codes")
        if (lengths != lengths[0]).any():
            return _no_codes("its lists have different lengths")
        dimensions.append(int(lengths[0]))
        start, stop = inner[[start, stop]].tolist()
    if start == stop:
        return _no_codes("no codes")
    if gaps is not None and gaps[start:stop].any():
        return _no_codes("a code is missing")
    return RowCodes(values[start:stop], tuple(dimensions))


def _no_codes(fault: str) -> RowCodes:
    return RowCodes(np.empty(0, np.uint8), (), fault)


def codes_of_array(rows: np.ndarray) -> Iterator[RowCodes]:
    """The codes of each row of an array [N, ...]."""
    for row in rows:
        yield RowCodes(row.reshape(-1), row.shape)


ROWS_TO_JUDGE = 1000


def usual_dimensions(rows: Iterable[RowCodes]) -> Dimensions:
    """The dimensions that most of the first rows have; () if none has any."""
    found = Counter(codes.dimensions for codes in itertools.islice(rows, ROWS_TO_JUDGE) if not codes.fault)
    return min(found, key=lambda dimensions: (-found[dimensions], dimensions), default=())


def shape_of(dimensions: Dimensions, draws: int, given: Optional[CodeShape]) -> CodeShape:
    """The shape of the codes of one crop, where a row has those of `draws` crops, one after the other: the given one;
    else rows and columns of nested lists, or a sequence. Raises UserError if the dimensions leave another number of
    codes, or do not tell."""
    count = math.prod(dimensions)
    if given:
        if count != draws * given.count:
            crops = f"{draws} crops of " if draws > 1 else ""
            raise UserError(f"{in_words(dimensions)} codes a row, expected {crops}{given.count:,} ({given})")
        return given
    if draws > 1 and len(dimensions) > 1 and dimensions[0] == draws:
        dimensions = dimensions[1:]
    elif draws > 1:
        if len(dimensions) > 1 or count % draws:
            raise UserError(
                f"{in_words(dimensions)} codes a row are not those of --draws {draws}; say how by --code-shape"
            )
        dimensions = (count // draws,)
    if len(dimensions) == 1:
        return CodeShape(sequence=dimensions[0])
    if len(dimensions) == 2:
        return CodeShape(grid=(dimensions[0], dimensions[1]))
    raise UserError(
        f"{in_words(dimensions)} codes a row: say by --code-shape how they lie, or by --draws how many crops"
    )
