"""What a manifest records about the tokenizers, and the check that two tokenizers are the same."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Annotated, Any

import msgspec
import numpy as np

from models.errors import UserError

TEXT_TOKENIZER_FILE = "text_tokenizer.json"
"""Name of a byte-pair encoding's file, in a dataset, a checkpoint and the package."""

MAX_VOCABULARY = 1 << 32
UINT16, UINT32 = np.dtype("<u2"), np.dtype("<u4")  # how codes are stored, by the size of their vocabulary

Side = Annotated[int, msgspec.Meta(ge=1)]


@dataclasses.dataclass(frozen=True)
class CodeShape:
    """How the codes of an image lie; one of the three. Raises ValueError for none or several."""

    grid: tuple[Side, Side] | None = None  # rows and columns, in raster order
    sequence: Side | None = None  # number of codes, which have no place in the image
    scales: tuple[tuple[Side, Side], ...] | None = None  # rows and columns of several grids, one after the other

    def __post_init__(self) -> None:
        if len(self.to_json()) != 1 or not self.count:
            raise ValueError(f"shape {self.to_json()}: give one of grid, sequence and scales")

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each scale; a grid is one, a sequence is one row."""
        return self.scales or (self.grid or (1, self.sequence or 0),)

    @property
    def count(self) -> int:
        """Number of codes of an image."""
        return sum(map(math.prod, self.parts))

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Dimensions of the codes as a tensor: [rows, columns] of a grid, else [codes]."""
        return self.grid or (self.count,)

    @property
    def rows(self) -> int:
        """Rows of a grid; 1 if the codes are not one grid."""
        return self.grid[0] if self.grid else 1

    @property
    def columns(self) -> int:
        """Codes of a row."""
        return self.count // self.rows

    @property
    def is_square(self) -> bool:
        """Whether the codes are a grid with as many rows as columns."""
        return self.grid is not None and self.rows == self.columns

    def __str__(self) -> str:
        if self.sequence:
            return f"a sequence of {self.sequence:,}"
        return " + ".join(f"{rows} x {columns}" for rows, columns in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The one field that is given."""
        return {name: value for name, value in vars(self).items() if value is not None}


_PART = re.compile(r"([1-9][0-9]{0,8})(?:x([1-9][0-9]{0,8}))?")


def parse_shape(text: str) -> CodeShape:
    """The shape that a text states: `16x32` (rows and columns of a grid), `256` (a sequence) or `1x1+2x2+4x4` (scales).
    Raises ValueError."""
    parts = [_PART.fullmatch(part) for part in text.replace(" ", "").split("+")]
    sides = [tuple(int(side) for side in part.groups() if side) for part in parts if part]
    if len(sides) < len(parts) or (len(sides) > 1 and {*map(len, sides)} != {2}):
        raise ValueError(f"{text}: give 16x16 (rows and columns), 256 (a sequence) or 1x1+2x2+4x4 (scales)")
    if len(sides) > 1:
        return CodeShape(scales=tuple((rows, columns) for rows, columns in sides))
    return CodeShape(grid=(sides[0][0], sides[0][1])) if len(sides[0]) == 2 else CodeShape(sequence=sides[0][0])


@dataclasses.dataclass(frozen=True)
class FixedConfig:
    """Sizes of a tokenizer that has images of one size alone."""

    vocabulary: int
    shape: CodeShape
    image_size: int  # px a side


@dataclasses.dataclass(frozen=True)
class ImageTokenizerInfo:
    """Identifies an image tokenizer by its weights and describes its codes."""

    spec: str
    fingerprint: str  # SHA-256 of weights and configuration
    vocabulary: Annotated[int, msgspec.Meta(ge=1, le=MAX_VOCABULARY)]  # number of codes
    shape: CodeShape
    image_size: int  # px a side

    @property
    def code_type(self) -> np.dtype:
        """How shards store a code: uint16 little-endian if that holds the vocabulary, else uint32."""
        return UINT16 if self.vocabulary <= 1 << 16 else UINT32

    @property
    def fits_version_1(self) -> bool:
        """Whether version 1 of the format can say it: codes in 16 bits, in a square grid."""
        return self.code_type == UINT16 and self.shape.is_square

    def to_json(self) -> dict[str, Any]:
        """The fields as files have them: `grid`, codes a side, where version 1 suffices, else `shape`."""
        lies = {"grid": self.shape.rows} if self.fits_version_1 else {"shape": self.shape.to_json()}
        size = {"image_size": self.image_size} | ({} if self.fits_version_1 else {"code_type": self.code_type.name})
        return {"spec": self.spec, "fingerprint": self.fingerprint, "vocabulary": self.vocabulary} | lies | size


def square(side: int) -> CodeShape:
    """A grid of `side` x `side` codes."""
    return CodeShape(grid=(side, side))


def upgrade_info(fields: Any) -> Any:
    """Turns the `grid` of version 1, codes a side, into the `shape` of version 2; anything else stays as it is."""
    if not isinstance(fields, dict) or "grid" not in fields:
        return fields
    side = fields["grid"]
    return {name: value for name, value in fields.items() if name != "grid"} | {"shape": {"grid": [side, side]}}


@dataclasses.dataclass(frozen=True)
class TextTokenizerInfo:
    """Identifies a text tokenizer by its file and describes its tokens."""

    fingerprint: str  # SHA-256 of the tokenizer.json
    vocabulary: int  # number of tokens
    max_tokens: int  # of a caption


def require_same_tokenizer(actual: str, expected: str, problem: str, fix: str) -> None:
    """Raises UserError "PROBLEM (expected ..., got ...); FIX" unless both fingerprints are the same."""
    if actual != expected:
        raise UserError(f"{problem} (expected {expected[:12]}, got {actual[:12]}); {fix}")
