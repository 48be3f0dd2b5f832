"""The attention patterns as masks of full sequences, which `models.transformer.attention` never builds."""

from __future__ import annotations

import torch

from models.transformer.attention import code_mask


def sequence_mask(kind: str, grid: int, prefix: int, rows: int | None = None) -> torch.Tensor:
    """The mask of a full sequence, bool [L queries, L keys]."""
    codes = code_mask(kind, grid, rows)
    mask = torch.ones(prefix + len(codes), prefix + len(codes), dtype=torch.bool).tril()
    mask[prefix:, prefix:] = codes
    return mask
