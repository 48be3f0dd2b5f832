"""The loss on the validation split, in total and by source."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from models.data.batch import NO_TOKEN, Batch
from models.data.stream import Stream
from models.errors import UserError
from models.training.distributed import World
from models.training.options import DEFAULT_RUN, RunOptions, TransformerTrainingConfig
from models.transformer.model import TEXT_WEIGHT, weighted

MAX_PAIRS = 128


class Validation(NamedTuple):
    """The first pairs of the validation split, always the same ones, split among the ranks."""

    world: World
    batches: list[Batch]  # parts of batches, as many on each rank; a rank has no pairs in some
    sources: list[list[int]]  # of each part's pairs, as indices of `names`
    names: list[str]
    pairs: int  # of all ranks
    text_weight: float = TEXT_WEIGHT  # of the total

    @classmethod
    def read(
        cls, dataset: str | Path, config: TransformerTrainingConfig, world: World, options: RunOptions = DEFAULT_RUN
    ) -> Validation:
        """Reads the pairs of a dataset, in parts of as many pairs as those of an update; prints a line and has no pairs
        if its validation split is empty."""
        batch_size = config.batch_size
        try:
            stream = Stream(
                dataset,
                "val",
                batch_size,
                max_tokens=config.text_length,
                rank=world.rank,
                ranks=world.size,
                cache=options.cache,
                cache_bytes=options.cache_bytes,
            )
        except UserError as error:
            if world.is_main:
                print(f"train: no validation: {error}", flush=True)
            return cls(world, batches=[], sources=[], names=[], pairs=0)
        count = min(stream.pairs, -(-MAX_PAIRS // batch_size) * batch_size)
        pair_sources = list(itertools.islice(stream.sources(), count))
        names = sorted(set(pair_sources))
        batches, sources, first = [], [], 0
        for batch in stream:
            positions = range(first + world.rank, batch.next_position, world.size)
            batch_sources = [names.index(pair_sources[position]) for position in positions]
            rows = batch_size // (world.size * options.accumulate)
            # Rank 0 has the most pairs; the others have as many parts, since all compute together.
            for start in range(0, -(-(batch.next_position - first) // world.size), rows):
                part = slice(start, start + rows)
                batches.append(batch._replace(text_BT=batch.text_BT[part], codes_BN=batch.codes_BN[part]))
                sources.append(batch_sources[part])
            first = batch.next_position
            if first >= count:
                break
        return cls(
            world=world,
            batches=batches,
            sources=sources,
            names=names,
            pairs=count,
            text_weight=config.text_weight,
        )

    @torch.no_grad()
    def losses(self, model: nn.Module) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Returns ({"total", "text", "image"}, the same by source) in nats, each averaged over its own tokens; ({}, {})
        without pairs. The second is empty unless there are several sources."""
        if not self.pairs:
            return {}, {}
        model.eval()
        # For each source: nats and number of text tokens, nats and number of codes, pairs.
        sums = torch.zeros(len(self.names), 5, dtype=torch.float64)
        for batch, sources in zip(self.batches, self.sources, strict=True):
            rows = pair_sums(model, batch if sources else _one_blank_pair(batch), self.world.device)
            sums.index_add_(0, torch.tensor(sources, dtype=torch.int64), rows[: len(sources)])
        model.train()
        sums = self.world.sum(sums.to(self.world.device)).cpu()
        by_source = {
            name: {**mean_losses(row, self.text_weight), "pairs": int(row[4])}
            for name, row in zip(self.names, sums, strict=True)
        }
        return mean_losses(sums.sum(dim=0), self.text_weight), by_source if len(by_source) > 1 else {}


def mean_losses(row: torch.Tensor, text_weight: float) -> dict[str, float]:
    """Losses in nats, each averaged over its own tokens, of the sum of rows of `pair_sums`, [5]."""
    text_nats, text_tokens, image_nats, codes, _ = row.tolist()
    text, image = text_nats / max(1, text_tokens), image_nats / max(1, codes)
    return {"total": weighted(text, image, text_weight), "text": text, "image": image}


def pair_sums(model: nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    """For each pair: nats and number of text tokens, nats and number of codes, 1; float64 [B, 5], on the CPU."""
    token_losses = model(batch.text_BT.to(device), batch.codes_BN.to(device))
    real_BT = batch.text_BT != NO_TOKEN
    text_BT = torch.zeros(real_BT.shape, dtype=torch.float64)
    text_BT[real_BT] = token_losses.text_R.double().cpu()
    image_B = token_losses.image_BN.double().sum(dim=1).cpu()
    codes_B = torch.full_like(image_B, batch.codes_BN.shape[1])
    return torch.stack([text_BT.sum(dim=1), real_BT.sum(dim=1), image_B, codes_B, torch.ones_like(image_B)], 1)


def _one_blank_pair(batch: Batch) -> Batch:
    """What a rank without pairs computes, since sharded layers need every rank; it does not count."""
    text_1T = batch.text_BT.new_full((1, batch.text_BT.shape[1]), NO_TOKEN)
    return batch._replace(text_BT=text_1T, codes_BN=batch.codes_BN.new_zeros((1, batch.codes_BN.shape[1])))
