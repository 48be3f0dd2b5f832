"""The network of contrastive models: a tower for images and one for text, whose outputs' angle is the score.

One form holds CLIP and SigLIP: they differ in how a tower ends and in the activation. `models.scoring.layouts` reads
the weights of each published layout into it.

Shapes: B images or texts, N tokens of a text or patches of an image, W a tower's width, E the width of embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn import functional


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU for each number, as the weights of OpenAI's CLIP approximate it; the result has the shape of `x`."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
}


TextPool = Literal["largest", "end", "last"]


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """What both towers have."""

    width: int
    layers: int
    heads: int
    hidden: int  # width of the perceptrons
    activation: str  # of ACTIVATIONS
    epsilon: float  # of the layer norms


@dataclasses.dataclass(frozen=True)
class ImageTowerConfig(TowerConfig):
    """Sizes of an image tower, and how it ends."""

    image_size: int  # px a side
    patch_size: int  # px a side
    pool: Literal["class", "attention"]  # a class token, or SigLIP's attention of a learnt query
    patch_bias: bool = False


@dataclasses.dataclass(frozen=True)
class TextTowerConfig(TowerConfig):
    """Sizes of a text tower, and the token whose output is the text's."""

    context: int  # tokens
    vocabulary: int
    causal: bool
    pool: TextPool  # the token with the largest id, the first `end_id`, or the last
    end_id: int = -1
    projection_bias: bool = False


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
    """Sizes of both towers and of their embeddings."""

    embedding: int  # E
    image: ImageTowerConfig
    text: TextTowerConfig


class Perceptron(nn.Module):
    """Two linear layers with the activation between them, float [B, N, W] to [B, N, W]."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, x_BNW: torch.Tensor) -> torch.Tensor:
        return self.down(self._activation(self.up(x_BNW)))


class TowerBlock(nn.Module):
    """A layer of a tower, float [B, N, W] to [B, N, W]: attention, then a perceptron, each on a normalised input."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.width, config.epsilon)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_2 = nn.LayerNorm(config.width, config.epsilon)
        self.mlp = Perceptron(config)
        self._heads = config.heads

    def forward(self, x_BNW: torch.Tensor, causal: bool) -> torch.Tensor:
        q, k, v = (_split(part, self._heads) for part in self.qkv(self.norm_1(x_BNW)).chunk(3, dim=-1))
        x_BNW = x_BNW + self.out(_join(functional.scaled_dot_product_attention(q, k, v, is_causal=causal)))
        return x_BNW + self.mlp(self.norm_2(x_BNW))


def _split(x_BNW: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, N, W] to [B, heads, N, W / heads]."""
    return x_BNW.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x_BHND: torch.Tensor) -> torch.Tensor:
    return x_BHND.transpose(1, 2).flatten(2)


class AttentionPool(nn.Module):
    """SigLIP's end of the image tower (Zhai et al., 2023, arXiv 2303.15343): a learnt query attends to all patches,
    float [B, N, W] to [B, W]."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(config.width))
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, config.epsilon)
        self.mlp = Perceptron(config)
        self._heads = config.heads

    def forward(self, x_BNW: torch.Tensor) -> torch.Tensor:
        q_weight, k_weight, v_weight = self.qkv.weight.chunk(3)
        q_bias, k_bias, v_bias = self.qkv.bias.chunk(3)
        query_B1W = functional.linear(self.query, q_weight, q_bias).expand(len(x_BNW), 1, -1)
        keys_BNW, values_BNW = functional.linear(x_BNW, k_weight, k_bias), functional.linear(x_BNW, v_weight, v_bias)
        q, k, v = (_split(part, self._heads) for part in (query_B1W, keys_BNW, values_BNW))
        pooled_BW = self.out(_join(functional.scaled_dot_product_attention(q, k, v)))[:, 0]
        return pooled_BW + self.mlp(self.norm(pooled_BW))


class ImageTower(nn.Module):
    """A vision transformer (Dosovitskiy et al., 2020, arXiv 2010.11929): normalised pixels, float [B, 3, image_size,
    image_size], to outputs [B, E] that are not of length 1 yet."""

    def __init__(self, config: ImageTowerConfig, embedding: int):
        super().__init__()
        has_class = config.pool == "class"
        patches = (config.image_size // config.patch_size) ** 2
        self.patch = nn.Conv2d(3, config.width, config.patch_size, config.patch_size, bias=config.patch_bias)
        self.positions = nn.Parameter(torch.randn(patches + has_class, config.width) * config.width**-0.5)
        if has_class:
            self.class_token = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
            self.norm_before = nn.LayerNorm(config.width, config.epsilon)
            self.projection = nn.Linear(config.width, embedding, bias=False)
        else:
            self.pool = AttentionPool(config)
        self.blocks = nn.ModuleList(TowerBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, config.epsilon)
        self._has_class = has_class

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BNW = self.patch(x_BCHW).flatten(2).transpose(1, 2)
        if self._has_class:
            x_BNW = torch.cat([self.class_token.expand(len(x_BNW), 1, -1), x_BNW], dim=1)
        x_BNW = x_BNW + self.positions
        if self._has_class:
            x_BNW = self.norm_before(x_BNW)
        for block in self.blocks:
            x_BNW = block(x_BNW, causal=False)
        return self.projection(self.norm(x_BNW[:, 0])) if self._has_class else self.pool(self.norm(x_BNW))


class TextTower(nn.Module):
    """A transformer: tokens, int64 [B, N] with N up to the context, to outputs [B, E] that are not of length 1 yet."""

    def __init__(self, config: TextTowerConfig, embedding: int):
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.randn(config.context, config.width) * 0.01)
        self.blocks = nn.ModuleList(TowerBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, config.epsilon)
        self.projection = nn.Linear(config.width, embedding, bias=config.projection_bias)
        self._config = config

    def forward(self, tokens_BN: torch.Tensor) -> torch.Tensor:
        x_BNW = self.tokens(tokens_BN) + self.positions[: tokens_BN.shape[1]]
        for block in self.blocks:
            x_BNW = block(x_BNW, self._config.causal)
        pooled_BW = self.norm(x_BNW)[torch.arange(len(x_BNW)), self._pooled_positions(tokens_BN)]
        return self.projection(pooled_BW)

    def _pooled_positions(self, tokens_BN: torch.Tensor) -> torch.Tensor:
        """The position of the token whose output is the text's, [B]."""
        if self._config.pool == "last":
            return torch.full((len(tokens_BN),), tokens_BN.shape[1] - 1)
        is_end = tokens_BN == self._config.end_id if self._config.pool == "end" else tokens_BN
        return is_end.int().argmax(dim=1)


class ContrastiveModel(nn.Module):
    """Images and texts to embeddings of length 1."""

    def __init__(self, config: ContrastiveConfig):
        super().__init__()
        self.config = config
        self.image = ImageTower(config.image, config.embedding)
        self.text = TextTower(config.text, config.embedding)

    def embed_images(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised pixels, float [B, 3, image_size, image_size], to embeddings, float [B, E]."""
        return functional.normalize(self.image(x_BCHW), dim=-1)

    def embed_texts(self, tokens_BN: torch.Tensor) -> torch.Tensor:
        """Tokens, int64 [B, N], to embeddings, float [B, E]."""
        return functional.normalize(self.text(tokens_BN), dim=-1)
