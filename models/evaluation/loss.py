"""The losses of a checkpoint on a split of a dataset, all together and by source."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import torch

from models.errors import UserError
from models.evaluation.measured_pairs import MeasuredPairs, require_same_tokenizers
from models.progress import Progress, ProgressLine
from models.sampling.checkpoint import read_config
from models.training.initial_weights import read_weights
from models.training.validation import mean_losses, pair_sums
from models.transformer.model import TEXT_WEIGHT, Transformer, TransformerConfig

Losses = dict[str, float | None]


@torch.inference_mode()
def split_losses(
    checkpoint: Path,
    pairs: MeasuredPairs,
    line: ProgressLine,
    batch_size: int = 8,
    averaged: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """The losses in nats a token: "total", "text" and "image", and in "by_source" those of each source.

    "text" and "total" are None for a folder without `checkpoint.pt`: what is there to sample with predicts no text.
    Raises UserError for a folder that is not a checkpoint, and for a dataset of other tokenizers.
    """
    config = read_config(checkpoint)
    model, predicts_text = load_for_losses(checkpoint, config, averaged)
    stream = pairs.open(batch_size, model.config.text_length)
    require_same_tokenizers(checkpoint, pairs.dataset, config, stream.manifest)
    model.to(device)
    sums: dict[str, torch.Tensor] = collections.defaultdict(lambda: torch.zeros(5, dtype=torch.float64))
    done, total = 0, pairs.count(stream)
    for batch in pairs.batches(stream):
        assert batch.sources is not None  # requested
        for source, row in zip(batch.sources, pair_sums(model, batch, torch.device(device)), strict=True):
            sums[source] += row
        done += len(batch.keys)
        line.show(Progress(done, "pairs", total, "loss"))
    text_weight = config["training"].get("text_weight", TEXT_WEIGHT)

    def losses(row: torch.Tensor) -> Losses:
        found: Losses = {**mean_losses(row, text_weight)}
        return found if predicts_text else found | {"total": None, "text": None}

    by_source = {name: losses(row) | {"pairs": int(row[4])} for name, row in sorted(sums.items())}
    return {"pairs": total, **losses(torch.stack(list(sums.values())).sum(dim=0)), "by_source": by_source}


def load_for_losses(checkpoint: Path, config: dict[str, Any], averaged: bool = False) -> tuple[Transformer, bool]:
    """The transformer, and whether its file holds the text head. Raises UserError for files that do not fit."""
    weights = read_weights(checkpoint, "--checkpoint", averaged)
    try:
        model = Transformer(TransformerConfig(**config["model"]))
        missing = set(model.load_state_dict(weights, strict=False).missing_keys)
    except (RuntimeError, TypeError, ValueError):  # torch's message fills a page
        raise UserError(
            f"{checkpoint}: its weights do not have the sizes in config.json; copy the full folder again"
        ) from None
    head = {f"text_head.{name}" for name, _ in model.text_head.named_parameters()}
    if missing - head:
        raise UserError(f"{checkpoint} lacks the weight {min(missing - head)}; copy the full folder again")
    return model.eval(), not missing
