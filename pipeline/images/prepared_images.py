"""Prepared images of one unit, in a file of the work folder between the step that fetches and the step that encodes.

The file holds one msgpack array after another, an outcome each: an image with its crops as they go into the image
tokenizer (196 kB a crop of 256 x 256 px), or a reject. Writing and reading take the memory of one outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgpack
import numpy as np

from models.pixels import CropBox
from pipeline.output import files
from pipeline.output.names import PREPARED_FOLDER, WORK_FOLDER
from pipeline.output.work_folder import digest_of
from pipeline.records import Pair, Rejected

READ_BYTES = 1 << 20


class PreparedImage(NamedTuple):
    """An image reduced to what its record needs."""

    pair: Pair
    width: int  # px, upright
    height: int
    sha256: str
    phash: str
    boxes: list[CropBox]  # draws
    views: np.ndarray  # uint8 [draws, size, size, 3]
    signature: bytes  # of image_signature; empty unless near-duplicates are searched


def prepared_path(output: str, unit: str, pairs: Sequence[Pair]) -> str:
    """Where the outcomes of these pairs of a unit wait. A later run, which tries some pairs again, has another file."""
    return files.join(output, WORK_FOLDER, PREPARED_FOLDER, f"{unit}-{digest_of(pairs)}.msgpack")


def write_prepared(path: str, outcomes: Iterable[PreparedImage | Rejected]) -> None:
    """Writes the outcomes of a unit, in their order. Raises UserError if the file can't be written."""
    with files.atomic_writer(path) as file:
        for outcome in outcomes:
            file.write(msgpack.packb(_packable(outcome)))
            del outcome  # else this name would hold its memory until the next outcome arrives


def _packable(outcome: PreparedImage | Rejected) -> tuple:
    if isinstance(outcome, Rejected):
        return (outcome,)
    return (*outcome._replace(views=outcome.views.tobytes()), outcome.views.shape)  # type: ignore[arg-type]  # packed


def read_prepared(path: str) -> Iterator[PreparedImage | Rejected]:
    """The outcomes of a file of `write_prepared`, in its order; views are uint8 [draws, size, size, 3]. Raises the file
    system's errors, FileNotFoundError among them."""
    with files.open_read(path) as file:
        for row in msgpack.Unpacker(file, read_size=READ_BYTES, max_buffer_size=0):
            yield Rejected._make(row[0]) if len(row) == 1 else _prepared(row)


def _prepared(row: list) -> PreparedImage:
    *fields, shape = row
    image = PreparedImage._make(fields)
    return image._replace(
        pair=Pair._make(image.pair),
        boxes=[CropBox._make(box) for box in image.boxes],
        views=np.frombuffer(bytearray(image.views), np.uint8).reshape(shape),  # writable, as PyTorch wants it
    )
