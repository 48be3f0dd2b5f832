"""A batch of pairs as tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """Pairs of one step: text and codes of B pairs."""

    keys: list[str]
    text_BT: torch.Tensor  # int64, NO_TOKEN after the end of the caption
    codes_BN: torch.Tensor  # int64, in raster order
    next_position: int  # in the order of all epochs, where the next batch starts
    captions: list[list[str]] | None = None  # all texts of each image, first that of text_BT; None unless asked for
    sources: list[str] | None = None  # of each pair; None unless asked for


NO_TOKEN = -1  # marks a position of text_BT without a token
