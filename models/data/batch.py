"""A batch of samples as the trainer takes it."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    keys: list[str]
    text_BT: torch.Tensor  # int64, NO_TOKEN after the caption's end
    codes_BN: torch.Tensor  # int64, row by row
    next_position: int  # the place of the order, over all epochs, at which the next batch begins


NO_TOKEN = -1  # in text_BT: no token here
