"""Batches of tensors from a dataset's shards, in an order that follows from seed and epoch, resumable at each batch.

Training goes over the epochs without end, in the order of models.data.epoch_order, and each iteration continues where
the last one ended. A step takes the next `batch_size` positions; each of R ranks reads every R-th of them, and each of
W workers makes every W-th batch. So the pairs of a step do not depend on these numbers, unless there are more than 8
ranks at the start (the order then has as many lanes), and a resumed run may change them. Each iteration over the
validation split reads it once, in the order on disk.

    stream = Stream("dataset", "train", batch_size=512, rank=rank, ranks=ranks)
    for batch in stream.loader(workers=2):
        ...
        state = stream.state_dict()

Each shard is checked against the manifest when it is opened; a damaged shard ends the run with an error naming it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from models import files as models_files
from models.data import shard_cache
from models.data.batch import NO_TOKEN, Batch
from models.data.epoch_order import SHUFFLE_BUFFER, EpochOrder, ShuffleBlock, lanes_for
from models.data.format import REBUILD_HINT, SPLITS, Shard, read_manifest, unpack_sample
from models.data.retry import read_patiently
from models.data.shard_cache import ShardCache
from models.data.shard_file import KEY_BYTES, SOURCE_BYTES, TAR_HEADER_BYTES, ShardFile
from models.data.source_weights import SourceWeights
from models.errors import UserError
from models.tokenizers.bpe_dropout import BPEDropout
from models.tokenizers.info import TEXT_TOKENIZER_FILE

STATE_VERSION = 2


class BlockLocations(NamedTuple):
    """Files, offsets and sizes of a block's pairs, in their shuffled order."""

    block: ShuffleBlock
    files: list[ShardFile]
    file: np.ndarray  # int64 [pairs], indices into `files`
    offsets: np.ndarray  # int64 [pairs]
    sizes: np.ndarray  # int32 [pairs]


class Stream(IterableDataset):
    """Yields batches; `state_dict()` holds the position after the last one."""

    def __init__(
        self,
        directory: str | Path,
        split: str,
        batch_size: int,
        seed: int = 0,
        max_tokens: int | None = None,
        buffer: int = SHUFFLE_BUFFER,
        *,
        lanes: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        weights: Mapping[str, float] | None = None,
        bpe_dropout: float = 0.0,
        cache: str | Path | None = None,
        cache_bytes: int = shard_cache.DEFAULT_CACHE_BYTES,
        captions: bool = False,
        sources: bool = False,
    ):
        """Reads only the manifest. `batch_size` counts the pairs of all ranks. Captions are cut to `max_tokens`
        (default: the dataset's length). `lanes`, which decide the order: by default 8, or one for each of more ranks.
        `weights`: how often an epoch contains a pair of a source (default 1). A directory that is a URL needs a
        `cache`, a local folder. `captions`: batches also have the texts of each image, for other encoders of text.
        `sources`: and the source of each pair.

        Raises UserError for invalid numbers, a split without pairs and a missing shard.
        """
        if split not in SPLITS:
            raise UserError(f"split {split!r}: a dataset has {' and '.join(SPLITS)}")
        given = ("batch size", batch_size), ("lanes", lanes), ("buffer", buffer), ("ranks", ranks)
        for name, value in given:
            if value is not None and value < 1:
                raise UserError(f"{name} {value}: give 1 or more")
        if not 0 <= rank < ranks:
            raise UserError(f"rank {rank}: give 0 to {ranks - 1} for {ranks} ranks")
        if batch_size % ranks:
            raise UserError(f"batch size {batch_size} counts the pairs of all ranks: give a multiple of {ranks}")
        self.directory, self.split, self.batch_size, self.seed = os.fspath(directory), split, batch_size, seed
        self.rank, self.ranks = rank, ranks
        self.manifest = read_manifest(directory)
        self.max_tokens = max_tokens or self.manifest.text_tokenizer.max_tokens
        self.shards = [shard for shard in self.manifest.shards if shard.split == split and shard.pairs]
        if not self.shards:
            raise UserError(f"{self.directory} has no pairs in split {split!r}: build it from more rows")
        self._weights = SourceWeights(self.directory, self.shards, weights, seed) if weights else None
        self._keeps_lanes = lanes is not None
        self._order = self._make_order(lanes or lanes_for(ranks), buffer)
        self.pairs = self._order.total  # in an epoch
        self._dropout = self._make_dropout(bpe_dropout)
        self._cache = self._make_cache(cache, cache_bytes)
        self._with_captions, self._with_sources = captions, sources
        self._position = 0  # after the last batch
        self._start = 0  # where the next iteration starts
        self._files: weakref.WeakValueDictionary[int, ShardFile] = weakref.WeakValueDictionary()
        self._blocks: dict[int, BlockLocations] = {}  # lane -> its current block

    def loader(self, workers: int = 0, ahead: int = 2) -> StreamLoader:
        """Loads batches in `workers` processes, each up to `ahead` batches in advance; 0 loads them in this process.

        A plain `DataLoader(stream, batch_size=None, ...)` gives the same batches, a little more slowly. With workers it
        starts each iteration where the stream was loaded, and `state_dict` needs the batch.
        """
        prefetch = ahead if workers else None
        return StreamLoader(self, batch_size=None, num_workers=workers, collate_fn=_identity, prefetch_factor=prefetch)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        start = self.start_iteration()
        for number in itertools.count(worker, workers):
            first = start + number * self.batch_size
            end = first + self.batch_size
            if self.split == "val":
                if first >= self.pairs:
                    return
                end = min(end, self.pairs)
            batch = self._batch(np.arange(first + self.rank, max(end, first + self.rank), self.ranks), end)
            self.passed(batch)
            yield batch

    def start_iteration(self) -> int:
        """Where an iteration that starts now has its first pair. After it, validation starts at its first pair."""
        start = self._start
        if self.split == "val":
            self._start = 0
        return start

    def passed(self, batch: Batch) -> None:
        """Takes note of the last batch that was handed out."""
        self._position = batch.next_position
        if self.split == "train":
            self._start = self._position

    def state_dict(self, after: Batch | None = None) -> dict:
        """The state to resume after a batch: the given one, or the last one that the stream or its loader yielded."""
        position = self._position if after is None else after.next_position
        return {"version": STATE_VERSION, **self._identity(), "place": position}

    def load_state_dict(self, state: dict) -> None:
        """Resumes at a state of `state_dict`, with its lanes unless the stream was given others. Raises UserError if
        its order is not this stream's."""
        if (
            not self._keeps_lanes
            and self.split == "train"
            and isinstance(lanes := state.get("lanes"), int)
            and lanes > 0
        ):
            self._order = self._make_order(lanes, self._order.buffer)
            self._blocks.clear()
        expected = {"version": STATE_VERSION, **self._identity()}
        for name, value in expected.items():
            if state.get(name) != value:
                change = "its shards differ" if name == "shards" else f"{name} was {state.get(name)}, now is {value}"
                raise UserError(f"cannot resume in {self.directory} at the same pair: {change}; start a new run")
        self._position = self._start = state["place"]

    def _make_order(self, lanes: int, buffer: int) -> EpochOrder:
        pairs = self._weights.pairs if self._weights else [shard.pairs for shard in self.shards]
        return EpochOrder(pairs, self.seed, lanes, buffer, shuffled=self.split == "train")

    def __getstate__(self) -> dict:
        """For worker processes that are not forked: without the open files."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_blocks")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _files=weakref.WeakValueDictionary(), _blocks={})

    def _identity(self) -> dict:
        return {
            "split": self.split,
            "seed": self.seed,
            "lanes": self._order.lanes,
            "buffer": self._order.buffer,
            "weights": self._weights.weights if self._weights else {},
            "shards": _digest(self.shards),
        }

    # --- shards ------------------------------------------------------------------------------------------------------

    def _make_dropout(self, probability: float) -> BPEDropout | None:
        if not probability:
            return None
        return BPEDropout(read_patiently(models_files.join(self.directory, TEXT_TOKENIZER_FILE)).decode(), probability)

    def _make_cache(self, folder: str | Path | None, max_bytes: int) -> ShardCache | None:
        if models_files.is_url(self.directory):
            if folder is None:
                raise UserError(
                    f"{self.directory} is remote: give a local folder for its shards (`train --cache`, Stream's cache=)"
                )
            return ShardCache(folder, max_bytes)
        folders = {os.path.join(self.directory, name) for name in map(os.path.dirname, (s.path for s in self.shards))}
        present = {path for folder in folders if os.path.isdir(folder) for path in _files_in(folder)}
        for shard in self.shards:
            if os.path.join(self.directory, shard.path) not in present:
                raise UserError(
                    f"{os.path.join(self.directory, shard.path)} is missing, but the manifest names it; {REBUILD_HINT}"
                )
        return None

    def sources(self) -> Iterator[str]:
        """The source of each pair, in the order on disk."""
        opener = ShardFile if self._cache is None else self._cached_file
        for shard in self.shards:
            members = opener(models_files.join(self.directory, shard.path), shard, True).members
            assert members.sources is not None  # requested above
            yield from (source.decode() for source in members.sources.tolist())

    def _file(self, number: int) -> ShardFile:
        """Opens a shard; blocks that need the same shard share it."""
        file = self._files.get(number)
        if file is None:
            shard = self.shards[number]
            path, with_sources = models_files.join(self.directory, shard.path), self._weights is not None
            opener = ShardFile if self._cache is None else self._cached_file
            file = self._files[number] = opener(path, shard, with_sources)
        return file

    def _cached_file(self, url: str, shard: Shard, with_sources: bool) -> ShardFile:
        """Opens a remote shard; a copy in the cache that has been damaged is fetched again."""
        assert self._cache is not None
        path = self._cache.fetch(url, shard.bytes, shard.sha256)
        try:
            return ShardFile(path, shard, with_sources, keep_open=True)
        except UserError:
            self._cache.discard(shard.sha256)
        path = self._cache.fetch(url, shard.bytes, shard.sha256)
        return ShardFile(path, shard, with_sources, keep_open=True)

    def _open(self, block: ShuffleBlock) -> BlockLocations:
        open_block = self._blocks.get(block.lane)
        if open_block is None or open_block.block != block:
            shards, entries = self._order.entries(block)
            numbers, which = np.unique(shards, return_inverse=True)
            files = [self._file(number) for number in numbers.tolist()]
            offsets, sizes = np.empty(len(shards), np.int64), np.empty(len(shards), np.int32)
            for i, file in enumerate(files):
                rows = np.flatnonzero(which == i)
                at = entries[rows]
                if self._weights:
                    assert file.members.sources is not None  # requested in _file
                    at = self._weights.epoch_entries(int(numbers[i]), file.members.sources, block.epoch)[at]
                offsets[rows], sizes[rows] = file.members.offsets[at], file.members.sizes[at]
            open_block = self._blocks[block.lane] = BlockLocations(
                block=block, files=files, file=which, offsets=offsets, sizes=sizes
            )
            self._prefetch(block._replace(number=block.number + 1))
        return open_block

    def _prefetch(self, block: ShuffleBlock) -> None:
        if self._cache is None:
            return
        for number in np.unique(self._order.entries(block)[0]).tolist():
            if number not in self._files:
                shard = self.shards[number]
                self._cache.prefetch(models_files.join(self.directory, shard.path), shard.bytes, shard.sha256)

    # --- tensors -----------------------------------------------------------------------------------------------------

    def _batch(self, positions: np.ndarray, end: int) -> Batch:
        members: list[bytes] = [b""] * len(positions)
        for block, rows, at in self._order.blocks(positions):
            files, file, offsets, sizes = self._open(block)[1:]
            reads = [shard_file.read for shard_file in files]
            for row, number, offset, size in zip(
                rows.tolist(), file[at].tolist(), offsets[at].tolist(), sizes[at].tolist(), strict=True
            ):
                members[row] = reads[number](offset, size)
        try:
            keys = [member[:KEY_BYTES].decode("ascii") for member in members]
            bodies = [msgpack.unpackb(memoryview(member)[TAR_HEADER_BYTES:]) for member in members]
            codes = [body["codes"] for body in bodies]
            tokens = [body["tokens"] for body in bodies]
            captions = [_texts(body) for body in bodies] if self._with_captions else None
        except (ValueError, KeyError, TypeError, msgpack.exceptions.UnpackException):
            raise self._damaged(positions, members) from None
        epochs = positions // self.pairs
        if self._dropout:
            seeds = (f"{self.seed}/{epoch}/{key}" for epoch, key in zip(epochs.tolist(), keys, strict=True))
            tokens = [
                np.array(self._dropout.encode(body["caption"], seed), "<u2").tobytes()
                for body, seed in zip(bodies, seeds, strict=True)
            ]
        text_BT, codes_BN = self._text(keys, tokens), self._codes(keys, codes, epochs % self.manifest.draws)
        sources = [_source(member) for member in members] if self._with_sources else None
        return Batch(
            keys=keys, text_BT=text_BT, codes_BN=codes_BN, next_position=end, captions=captions, sources=sources
        )

    def _text(self, keys: list[str], tokens: list[bytes]) -> torch.Tensor:
        """Tokens as int64 [B, T], NO_TOKEN after the end of a caption."""
        max_bytes = 2 * self.max_tokens
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        if len(lengths) and lengths.max() > max_bytes:
            tokens = [packed[:max_bytes] for packed in tokens]
            lengths = np.minimum(lengths, max_bytes)
        lengths //= 2
        ids = np.frombuffer(b"".join(tokens), "<u2")
        rows = np.repeat(np.arange(len(tokens)), lengths)
        self._check("token", ids, rows, self.manifest.text_tokenizer.vocabulary, keys)
        text_BT = np.full((len(tokens), self.max_tokens), NO_TOKEN, np.int64)
        text_BT[rows, np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)] = ids
        return torch.from_numpy(text_BT)

    def _codes(self, keys: list[str], codes: list[bytes], draws: np.ndarray) -> torch.Tensor:
        """Codes as int64 [B, N], of one crop of each pair."""
        images, total = self.manifest.image_tokenizer, self.manifest.draws
        count, code_type = images.shape.count, images.code_type
        size = code_type.itemsize * count  # bytes of a crop
        for key, packed in zip(keys, codes, strict=True):
            if len(packed) != total * size:
                raise UserError(
                    f"{self.directory}: pair {key} has {len(packed) // code_type.itemsize} codes, not {total} x "
                    f"{count}; build the dataset again"
                )
        if total > 1:
            codes = [
                packed[crop * size : (crop + 1) * size] for packed, crop in zip(codes, draws.tolist(), strict=True)
            ]
        ids_BN = np.frombuffer(b"".join(codes), code_type).reshape(len(codes), count)
        self._check("code", ids_BN, None, images.vocabulary, keys)
        return torch.from_numpy(ids_BN.astype(np.int64))

    def _check(self, name: str, ids: np.ndarray, rows: np.ndarray | None, vocabulary: int, keys: list[str]) -> None:
        if ids.size and ids.max() >= vocabulary:
            largest = int(ids.argmax())
            key = keys[largest // ids.shape[1] if rows is None else int(rows[largest])]
            raise UserError(
                f"{self.directory}: pair {key} has {name} {ids.max()}, but the vocabulary has "
                f"{vocabulary}; build the dataset again"
            )

    def _damaged(self, positions: np.ndarray, members: list[bytes]) -> UserError:
        """The error for the first malformed pair, with its shard and key."""
        where = {
            row: files[number].path
            for block, rows, at in self._order.blocks(positions)
            for files, file in [self._open(block)[1:3]]
            for row, number in zip(rows, file[at], strict=True)
        }
        for row, member in enumerate(members):
            try:
                key = member[:KEY_BYTES].decode("ascii", "replace")
                unpack_sample(key, member[TAR_HEADER_BYTES:], self.manifest.image_tokenizer.code_type)
            except ValueError as error:
                return UserError(f"{where[row]} is damaged: {error}; build the dataset again")
        return UserError(f"{self.directory}: a pair near {where[0]} is damaged; run `pairmill verify` to find it")


class StreamLoader(DataLoader):
    """A DataLoader whose stream knows how far it has been read, with any number of workers."""

    dataset: Stream

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()  # the workers get the stream as it is now
        if self.num_workers:
            self.dataset.start_iteration()
        for batch in batches:
            self.dataset.passed(batch)
            yield batch


def _identity(batch: Any) -> Any:
    return batch


def _source(member: bytes) -> str:
    return member[SOURCE_BYTES].rstrip(b"\0").decode("utf-8", "replace")


def _texts(body: dict[str, Any]) -> list[str]:
    """All texts of an image, first the one that the tokens are made of. Raises TypeError for anything else."""
    texts = [body["caption"], *body.get("other_captions", ())]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a caption is not a text")
    return texts


def _files_in(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.path for entry in entries)


def _digest(shards: list[Shard]) -> str:
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
