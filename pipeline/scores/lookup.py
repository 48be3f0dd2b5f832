"""The scores of any key, for jobs that meet pairs in another order than that of the files of scores.

One file has all keys, sorted, then the numbers of each score. Processes of a machine share it through the page cache: a
look-up touches some pages of it, whatever the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.dataset.existing import packed_keys
from pipeline.output import files
from pipeline.output.names import LOOKUP_FILE, WORK_FOLDER
from pipeline.records import KEY_BYTES
from pipeline.scores.score_files import KEY, Scores


class Lookup(NamedTuple):
    """Where the scores of all keys lie."""

    path: str
    pairs: int
    names: tuple[str, ...]

    def open(self) -> OpenLookup:
        """Maps the file into memory, or reads it from a store."""
        can_map = files.is_local(self.path) and self.pairs > 0
        data: np.ndarray = np.memmap(self.path, np.uint8, "r") if can_map else _read(self.path)
        end = KEY_BYTES * self.pairs
        numbers_NP = data[end:].view("<f4").reshape(len(self.names), self.pairs)
        return OpenLookup(data[:end].view(f"S{KEY_BYTES}"), dict(zip(self.names, numbers_NP, strict=True)))


def _read(path: str) -> np.ndarray:
    return np.frombuffer(files.read(path), np.uint8)


class OpenLookup(NamedTuple):
    keys: np.ndarray  # S16 [P], sorted
    numbers: dict[str, np.ndarray]  # score -> float32 [P], NaN where a pair has none

    def scores_of(self, key: str) -> dict[str, float]:
        """The scores of a key of 32 hex digits; NaN where it has none."""
        target = np.bytes_(bytes.fromhex(key).rstrip(b"\0"))  # as numpy hands out what it stores in 16 bytes
        position = int(np.searchsorted(self.keys, target))
        if position == len(self.keys) or self.keys[position] != target:
            return dict.fromkeys(self.numbers, float("nan"))
        return {name: float(numbers_P[position]) for name, numbers_P in self.numbers.items()}


def write_lookup(scores: Scores, names: tuple[str, ...], output: str) -> Lookup:
    """Writes the scores of these names into the output's work folder, one file of scores in memory at a time."""
    path = files.join(output, WORK_FOLDER, LOOKUP_FILE)
    pairs = 0
    with files.atomic_writer(path) as file:
        for table in scores.tables([KEY]):
            file.write(packed_keys(table[KEY]).tobytes())
            pairs += len(table)
        for name in names:
            for numbers in numbers_of(scores, name):
                file.write(numbers.astype("<f4").tobytes())
    return Lookup(path, pairs, names)


def numbers_of(scores: Scores, name: str) -> Iterator[np.ndarray]:
    """The numbers of a score, float32, file by file; NaN where a pair has none."""
    for table in scores.tables([name]):
        yield table[name].cast(pa.float32()).to_numpy()
