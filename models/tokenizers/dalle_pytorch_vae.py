"""The DiscreteVAE of lucidrains/DALLE-pytorch: strided convolutions, ReLU, residual blocks.

Layers have the names of that project (numbers inside two sequences), so that its checkpoints load name by name.
Shape letters: B images, C channels, H W pixels, V vocabulary, h w code grid.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class DiscreteVAEConfig:
    """The hparams in a checkpoint of DALLE-pytorch's train_vae.py."""

    image_size: int = 256
    num_tokens: int = 512
    codebook_dim: int = 512
    num_layers: int = 3
    num_resnet_blocks: int = 0
    hidden_dim: int = 64

    @property
    def vocabulary(self) -> int:
        return self.num_tokens

    @property
    def grid(self) -> int:
        return self.image_size // 2**self.num_layers


class ResBlock(nn.Module):
    """Three convolutions (kernels 3, 3, 1) with a residual connection."""

    def __init__(self, n: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(n, n, 3, padding=1), nn.ReLU(), nn.Conv2d(n, n, 3, padding=1), nn.ReLU(), nn.Conv2d(n, n, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) + x


class DiscreteVAE(nn.Module):
    """Encodes images, floats in 0..1 [B, 3, H, W], as codes, and decodes them."""

    def __init__(self, config: DiscreteVAEConfig):
        super().__init__()
        self.config = config
        n, blocks = config.hidden_dim, config.num_resnet_blocks
        down = [
            nn.Sequential(nn.Conv2d(3 if i == 0 else n, n, 4, stride=2, padding=1), nn.ReLU())
            for i in range(config.num_layers)
        ]
        first = n if blocks else config.codebook_dim  # with residual blocks a 1x1 convolution comes before them
        up = [
            nn.Sequential(nn.ConvTranspose2d(first if i == 0 else n, n, 4, stride=2, padding=1), nn.ReLU())
            for i in range(config.num_layers)
        ]
        self.codebook = nn.Embedding(config.num_tokens, config.codebook_dim)
        self.encoder = nn.Sequential(*down, *(ResBlock(n) for _ in range(blocks)), nn.Conv2d(n, config.num_tokens, 1))
        input_layer = [nn.Conv2d(config.codebook_dim, n, 1)] if blocks else []
        self.decoder = nn.Sequential(*input_layer, *(ResBlock(n) for _ in range(blocks)), *up, nn.Conv2d(n, 3, 1))

    def logits(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to code logits [B, V, h, w]."""
        return self.encoder(2 * x_BCHW - 1)

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to codes, int64 [B, h, w]."""
        return self.logits(x_BCHW).argmax(dim=1)

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """Codes to pixels in about 0..1, [B, 3, H, W]."""
        return (self.decoder(self.codebook(codes_Bhw).permute(0, 3, 1, 2)) + 1) / 2
