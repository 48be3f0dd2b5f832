"""An image tokenizer of one's own: `python:tests.support.stripes:Stripes`, whose codes are a sequence."""

from __future__ import annotations

import torch

from models.tokenizers.info import CodeShape


class Stripes:
    """A code is the brightness of one of 16 horizontal stripes."""

    identity, vocabulary, shape, image_size = "stripes", 100, CodeShape(sequence=16), 32

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return (x_BCHW.mean((1, 3)).view(-1, 16, 2).mean(2) * 99).round().int()

    def decode(self, codes_BN: torch.Tensor) -> torch.Tensor:
        return (codes_BN / 99).repeat_interleave(2, 1)[:, None, :, None].expand(-1, 3, -1, 32)
