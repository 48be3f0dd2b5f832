"""The loss on the validation split, in total and by source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from models.data.batch import NO_TOKEN, Batch
from models.data.shard_file import ShardFile
from models.data.stream import Stream
from models.errors import UserError
from models.training.distributed import World
from models.transformer.model import IMAGE_WEIGHT, TEXT_WEIGHT

MAX_PAIRS = 128


class Validation(NamedTuple):
    """The first pairs of the validation split, always the same ones, split among the ranks."""

    world: World
    batches: list[Batch]
    sources: list[list[int]]  # of each batch's pairs, as indices of `names`
    names: list[str]
    pairs: int  # of all ranks

    @classmethod
    def read(cls, dataset: str | Path, batch_size: int, world: World, text_length: int | None = None) -> Validation:
        """Reads the pairs of a dataset; prints a line and has no pairs if its validation split is empty."""
        try:
            stream = Stream(dataset, "val", batch_size, max_tokens=text_length, rank=world.rank, ranks=world.size)
        except UserError as error:
            if world.is_main:
                print(f"train: no validation: {error}", flush=True)
            return cls(world, [], [], [], 0)
        count = min(stream.pairs, -(-MAX_PAIRS // batch_size) * batch_size)
        pair_sources: list[str] = []
        for shard in stream.shards:
            if len(pair_sources) < count:
                members = ShardFile(os.path.join(dataset, shard.path), shard, with_sources=True).members
                assert members.sources is not None  # requested above
                pair_sources += [source.decode() for source in members.sources.tolist()]
        names = sorted(set(pair_sources[:count]))
        batches, sources, first = [], [], 0
        for batch in stream:
            positions = range(first + world.rank, batch.next_position, world.size)
            batches.append(batch)
            sources.append([names.index(pair_sources[position]) for position in positions])
            first = batch.next_position
            if first >= count:
                break
        return cls(world, batches, sources, names, count)

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
            token_losses = model(batch.text_BT.to(self.world.device), batch.codes_BN.to(self.world.device))
            real_BT = batch.text_BT != NO_TOKEN
            text_BT = torch.zeros(real_BT.shape, dtype=torch.float64)
            text_BT[real_BT] = token_losses.text_R.double().cpu()
            image_B = token_losses.image_BN.double().sum(dim=1).cpu()
            codes_B = torch.full_like(image_B, batch.codes_BN.shape[1])
            rows = torch.stack([text_BT.sum(dim=1), real_BT.sum(dim=1), image_B, codes_B, torch.ones_like(image_B)], 1)
            sums.index_add_(0, torch.tensor(sources, dtype=torch.int64), rows)
        model.train()
        sums = self.world.sum(sums.to(self.world.device)).cpu()
        by_source = {name: {**_means(row), "pairs": int(row[4])} for name, row in zip(self.names, sums, strict=True)}
        return _means(sums.sum(dim=0)), by_source if len(by_source) > 1 else {}


def _means(row: torch.Tensor) -> dict[str, float]:
    text_nats, text_tokens, image_nats, codes, _ = row.tolist()
    text, image = text_nats / max(1, text_tokens), image_nats / max(1, codes)
    return {"total": TEXT_WEIGHT * text + IMAGE_WEIGHT * image, "text": text, "image": image}
