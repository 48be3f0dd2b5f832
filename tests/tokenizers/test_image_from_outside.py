"""A new image tokenizer is one module and one line of the registry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import UserError
from models.tokenizers import image
from models.tokenizers.info import square


@dataclasses.dataclass(frozen=True)
class MeanConfig:
    """As much of a configuration as the tokenizer's users ask for."""

    vocabulary: int = 16
    grid: int = 4
    image_size: int = 32


class MeanBrightness(nn.Module):
    """Codes are the brightness of 8 x 8 px in 16 steps."""

    config = MeanConfig()

    def __init__(self):
        super().__init__()
        self.encoder = nn.AvgPool2d(8)

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return (self.encoder(x_BCHW).mean(1) * 15).round().long()

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        return (codes_Bhw[:, None] / 15).repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 3, -1, -1)


def test_a_tokenizer_from_outside(tmp_path, monkeypatch):
    monkeypatch.setitem(image.LOADERS, "mean", image.Loader(image.one_file, lambda path: MeanBrightness(), "FILE"))
    (tmp_path / "weights").write_bytes(b"none are needed")
    tokenizer = image.load_image_tokenizer(f"mean:{tmp_path / 'weights'}")
    view_HWC = np.full((32, 32, 3), 255, np.uint8)
    view_HWC[:8] = 0
    codes_N = tokenizer.encode(view_HWC)
    assert codes_N.tolist() == [0] * 4 + [15] * 12
    assert np.array_equal(tokenizer.decode(codes_N), view_HWC)
    assert tokenizer.info.vocabulary == 16 and tokenizer.info.shape == square(4)
    assert len(tokenizer.info.fingerprint) == 64
    with pytest.raises(UserError, match="`mean:FILE`"):
        image.load_image_tokenizer("unknown:x")
