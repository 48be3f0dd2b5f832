"""The pairs of a split that are measured: the first ones, which a hash has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from models.data.batch import Batch
from models.data.format import Manifest
from models.data.stream import Stream
from models.tokenizers.info import require_same_tokenizer


class MeasuredPairs(NamedTuple):
    """Which pairs of a dataset are measured."""

    dataset: str  # folder or URL
    split: str  # train or val
    limit: int  # pairs at most
    cache: Path | None = None  # for the shards of a URL

    def count(self, stream: Stream) -> int:
        """The number of pairs that are measured."""
        return min(self.limit, stream.pairs)

    def open(self, batch_size: int, text_length: int | None = None) -> Stream:
        """Opens the dataset, with the captions and sources of its pairs. Raises UserError as Stream does."""
        return Stream(
            self.dataset,
            self.split,
            batch_size,
            max_tokens=text_length,
            cache=self.cache,
            captions=True,
            sources=True,
        )

    def batches(self, stream: Stream) -> Iterator[Batch]:
        """The batches of an open stream up to the limit, the last one cut there."""
        left = self.count(stream)
        for batch in stream:
            yield _first(batch, left)
            left -= len(batch.keys)
            if left <= 0:
                return


def _first(batch: Batch, count: int) -> Batch:
    """The first `count` pairs of a batch."""
    assert batch.captions is not None and batch.sources is not None  # requested in `open`
    return Batch(
        keys=batch.keys[:count],
        text_BT=batch.text_BT[:count],
        codes_BN=batch.codes_BN[:count],
        next_position=batch.next_position,
        captions=batch.captions[:count],
        sources=batch.sources[:count],
    )


def require_same_tokenizers(checkpoint: Path, dataset: str, config: dict, manifest: Manifest) -> None:
    """Raises UserError unless a dataset has the tokens and codes that a checkpoint with this config was trained on."""
    for actual, name in ((manifest.image_tokenizer, "image_tokenizer"), (manifest.text_tokenizer, "text_tokenizer")):
        require_same_tokenizer(
            actual.fingerprint,
            config[name]["fingerprint"],
            f"{checkpoint} was trained on tokens of another {name.replace('_', ' ')} than those of {dataset}",
            "give a dataset made with the tokenizers of the training",
        )
