"""A dataset's shards to batches of tensors, in an order that follows from (seed, epoch), resumable at the exact pair.

Training goes through the epochs without end. Each epoch shuffles the shards, takes as many at a time as fill a buffer,
and shuffles the pairs of those. The manifest says how many pairs a shard holds, so that a place in an epoch is a
number: to resume there, only the shards of its buffer are read. Validation goes once through, in the order on disk.

Every shard is checked against the manifest each time it is read: a damaged dataset ends the run with its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from models.dataset import SAMPLE_SUFFIX, SPLITS, Sample, Shard, read_manifest, unpack_sample
from models.errors import UserError
from models.transformer import NO_TOKEN

STATE_VERSION = 1
BUFFER = 16_384  # pairs shuffled together, about 50 MB
TAR_BLOCK = 512  # bytes


class Batch(NamedTuple):
    keys: list[str]
    text_BT: torch.Tensor  # int64, NO_TOKEN after the caption's end
    codes_BN: torch.Tensor  # int64, row by row


class Stream:
    """Iterating yields batches; `state_dict()` then says what comes after the last one that was yielded."""

    def __init__(self, directory: str | Path, split: str, batch_size: int, seed: int = 0,
                 max_tokens: int | None = None, buffer: int = BUFFER):
        """Captions are cut to `max_tokens`, by default the length of the dataset's own. Reads the manifest only.
        Raises UserError for a split without pairs and for a missing shard."""
        if split not in SPLITS:
            raise UserError(f"split {split!r}: a dataset has {' and '.join(SPLITS)}")
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: give 1 or more")
        self.directory, self.split, self.batch_size = Path(directory), split, batch_size
        self.seed, self.buffer = seed, buffer
        self.manifest = read_manifest(directory)
        self.max_tokens = max_tokens or self.manifest.text_tokenizer.max_tokens
        self.shards = [shard for shard in self.manifest.shards if shard.split == split and shard.pairs]
        if not self.shards:
            raise UserError(f"{self.directory} has no pairs in split {split!r}: build it from more rows")
        for shard in self.shards:
            if not (self.directory / shard.path).is_file():
                raise UserError(f"{self.directory / shard.path} is missing, but the manifest names it; "
                                "copy it again or build the dataset again")
        self.pairs = sum(shard.pairs for shard in self.shards)  # in an epoch
        self._epoch, self._place = 0, 0

    def __iter__(self) -> Iterator[Batch]:
        samples: list[Sample] = []
        draws: list[int] = []
        for epoch, place, sample in self._walk(self._epoch, self._place):
            samples.append(sample)
            draws.append(epoch % self.manifest.draws)
            if len(samples) == self.batch_size:
                self._epoch, self._place = epoch, place + 1
                yield self._batch(samples, draws)
                samples, draws = [], []
        if samples:
            yield self._batch(samples, draws)

    def state_dict(self) -> dict:
        return {"version": STATE_VERSION, "split": self.split, "seed": self.seed, "buffer": self.buffer,
                "shards": _digest(self.shards), "epoch": self._epoch, "place": self._place}

    def load_state_dict(self, state: dict) -> None:
        """Raises UserError for a state that means another order than this stream's."""
        mine = self.state_dict()
        for name in ("version", "split", "seed", "buffer", "shards"):
            if state.get(name) != mine[name]:
                what = "its shards are others" if name == "shards" else f"{name} {state.get(name)} is now {mine[name]}"
                raise UserError(f"cannot go on in {self.directory} at the same pair: {what}; start a new run")
        self._epoch, self._place = state["epoch"], state["place"]

    # --- the order ---------------------------------------------------------------------------------------------------

    def _walk(self, epoch: int, place: int) -> Iterator[tuple[int, int, Sample]]:
        """(epoch, place in the epoch, pair) from there on."""
        while True:
            start = 0
            for number, shards in enumerate(self._groups(epoch)):
                pairs = sum(shard.pairs for shard in shards)
                if place < start + pairs:
                    samples = [sample for shard in shards for sample in read_pairs(self.directory, shard)]
                    order = self._permutation(f"{epoch}/{number}", pairs)
                    for here in range(max(place - start, 0), pairs):
                        yield epoch, start + here, samples[order[here]]
                start += pairs
            if self.split == "val":
                return
            epoch, place = epoch + 1, 0

    def _groups(self, epoch: int) -> list[list[Shard]]:
        """The epoch's shards in its order, as many together as fill the buffer."""
        groups: list[list[Shard]] = []
        room = 0
        for index in self._permutation(f"{epoch}", len(self.shards)):
            shard = self.shards[index]
            if room < shard.pairs:
                groups.append([])
                room = self.buffer
            groups[-1].append(shard)
            room -= shard.pairs
        return groups

    def _permutation(self, what: str, n: int) -> np.ndarray:
        if self.split == "val":
            return np.arange(n)
        seed = hashlib.sha256(f"{self.seed}/{what}".encode()).digest()
        # RandomState, because NumPy keeps its numbers the same for ever; those of default_rng may change.
        return np.random.RandomState(np.frombuffer(seed, np.uint32)).permutation(n)

    # --- tensors -----------------------------------------------------------------------------------------------------

    def _batch(self, samples: list[Sample], draws: list[int]) -> Batch:
        text_BT = np.full((len(samples), self.max_tokens), NO_TOKEN, np.int64)
        for row, sample in zip(text_BT, samples, strict=True):
            tokens = sample.tokens[: self.max_tokens]
            row[: len(tokens)] = tokens
        image, text = self.manifest.image_tokenizer, self.manifest.text_tokenizer
        rows = [sample.codes[draw] for sample, draw in zip(samples, draws, strict=True)]
        for sample, row in zip(samples, rows, strict=True):
            if len(row) != image.grid**2:
                raise UserError(f"{self.directory}: pair {sample.key} has {len(row)} codes, not {image.grid**2}; "
                                "build the dataset again")
        codes_BN = np.stack(rows).astype(np.int64)
        for name, ids, vocabulary in (("token", text_BT, text.vocabulary), ("code", codes_BN, image.vocabulary)):
            if ids.max() >= vocabulary:
                key = samples[int(ids.max(axis=1).argmax())].key
                raise UserError(f"{self.directory}: pair {key} has {name} {ids.max()}, but the vocabulary has "
                                f"{vocabulary}; build the dataset again")
        return Batch([sample.key for sample in samples], torch.from_numpy(text_BT), torch.from_numpy(codes_BN))


def read_pairs(directory: Path, shard: Shard) -> list[Sample]:
    """All pairs of a shard, which must be the one that the manifest names. Raises UserError."""
    path = directory / shard.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; copy it again or build the dataset again") from None
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        raise UserError(f"{path} is not the file that the manifest names (its sha256 differs); "
                        "copy it again or build the dataset again")
    try:
        samples = [unpack_sample(key, member) for key, member in _members(data)]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; build the dataset again") from None
    if len(samples) != shard.pairs:
        raise UserError(f"{path} holds {len(samples)} pairs, the manifest says {shard.pairs}; build the dataset again")
    return samples


def _members(tar: bytes) -> Iterator[tuple[str, bytes]]:
    """(key, content) of each member. tarfile reads the same at a fifth of the speed, as it parses every field."""
    place = 0
    while place < len(tar) and tar[place]:  # the end is marked by blocks of zeros
        header = tar[place : place + TAR_BLOCK]
        name = header[:100].rstrip(b"\0").decode("ascii", "replace")
        if not name.endswith(SAMPLE_SUFFIX):
            raise ValueError(f"unexpected member {name}")
        size = int(header[124:136].rstrip(b"\0 "), 8)
        place += TAR_BLOCK
        yield name.removesuffix(SAMPLE_SUFFIX), tar[place : place + size]
        place += -(-size // TAR_BLOCK) * TAR_BLOCK


def _digest(shards: list[Shard]) -> str:
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
