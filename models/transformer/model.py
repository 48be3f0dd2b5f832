"""The paper's transformer (section 2.2, appendix B): captions and codes as one sequence, pre-norm blocks as in GPT-3.
The recipe `modern` has the same sequence and losses, and blocks as in Llama (see TransformerConfig).

A sequence is [start of text, T text positions, start of image, N codes]. Each position predicts the next one, except
the last text position (the start of the image is certain) and the last code. A text position without a token holds a
learned padding embedding of its own, which the codes see like any other.

Shape letters: B pairs, T text positions, P = T + 2 positions before the codes, N codes, L = P + N, M width, H heads,
D width of a head, V a vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.data.batch import NO_TOKEN
from models.transformer.attention import (
    LineWindows,
    cached_attention,
    layer_kinds,
    lines,
    masked_attention,
    visible_codes,
)

TEXT_WEIGHT = 1 / 8  # of the loss (section 2.2); the image has the rest
RECIPES = ("paper", "modern")
NORM_EPSILON = 1e-6  # of RMSNorm


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer; `TransformerConfig.named("12b", 16384, 8192)` is the paper's.

    The recipe `modern` has RMSNorm, also of queries and keys, SwiGLU, no biases and no learned positions: it needs
    `rotary` ones.
    """

    layers: int
    heads: int
    width: int
    text_vocabulary: int
    image_vocabulary: int
    text_length: int = 256
    grid: int = 32  # codes of a row
    full_attention: bool = False  # every layer sees all earlier codes, instead of the paper's patterns
    rotary: bool = False  # queries and keys also have rotary positions by row and column (not the paper's)
    recipe: str = "paper"
    dropout: float = 0.0  # share of the embeddings' and the layers' outputs that is zeroed in training
    rows: int | None = None  # of codes; None: as many as a row has codes; 1: a sequence, which has no rows and columns

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES or (self.is_modern and not self.rotary):
            raise ValueError(f"recipe {self.recipe!r}: give one of {', '.join(RECIPES)}; modern needs rotary positions")

    @classmethod
    def named(cls, size: str | Shape, text_vocabulary: int, image_vocabulary: int, **others: Any) -> TransformerConfig:
        """The configuration of a shape, or of a name in SIZES. Raises KeyError for another name."""
        layers, heads, width = SIZES[size] if isinstance(size, str) else size
        return cls(
            layers=layers,
            heads=heads,
            width=width,
            text_vocabulary=text_vocabulary,
            image_vocabulary=image_vocabulary,
            **others,
        )

    @property
    def is_modern(self) -> bool:
        """Whether the blocks are those of the recipe `modern`."""
        return self.recipe == "modern"

    @property
    def feed_width(self) -> int:
        """Width inside a feed-forward layer. The two input matrices of SwiGLU and its output have together about as
        many weights as the paper's two."""
        return -(-8 * self.width // 3 // 32) * 32 if self.is_modern else 4 * self.width

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of attention of each layer. The paper's patterns need rows and columns: a sequence has full ones."""
        return ("full",) * self.layers if self.full_attention or self.rows == 1 else layer_kinds(self.layers)

    @property
    def prefix(self) -> int:
        """Number of positions before the codes."""
        return self.text_length + 2  # both start tokens

    @property
    def codes(self) -> int:
        """Number of codes of an image."""
        return (self.rows or self.grid) * self.grid


# Layers, heads, width. A name counts the blocks' parameters, 12 * layers * width^2, as the paper's own names do
# (64 layers of width 3,968 are 12.1 billion; the vocabularies add 0.2). 2.8b and 5.6b are its smaller studies.
SIZES = {
    "3m": (4, 4, 256),
    "19m": (6, 8, 512),
    "120m": (12, 14, 896),
    "300m": (24, 16, 1024),
    "1b": (20, 32, 2048),
    "2.8b": (64, 30, 1920),
    "5.6b": (64, 42, 2688),
    "12b": (64, 62, 3968),
}


class Shape(NamedTuple):
    """Number of layers, heads of each, and width of a transformer."""

    layers: int
    heads: int
    width: int


class Losses(NamedTuple):
    """Mean cross-entropies in nats a token, and their weighted sum; scalars."""

    total: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor


class TokenLosses(NamedTuple):
    """Cross-entropies in nats: of the R real text tokens, pair after pair, and of each code."""

    text_R: torch.Tensor
    image_BN: torch.Tensor

    def losses(
        self, text_tokens: int | None = None, codes: int | None = None, text_weight: float = TEXT_WEIGHT
    ) -> Losses:
        """Text x 1/8 + image x 7/8, or other weights, each averaged over its own tokens, without padding.

        For a part of an update, pass the numbers of text tokens and codes of the full update: the losses of the parts
        then add up to its loss.
        """
        text = self.text_R.sum() / max(1, self.text_R.numel() if text_tokens is None else text_tokens)
        image = self.image_BN.sum() / (self.image_BN.numel() if codes is None else codes)
        return Losses(weighted(text, image, text_weight), text, image)


LossT = TypeVar("LossT", float, torch.Tensor)


def weighted(text: LossT, image: LossT, text_weight: float = TEXT_WEIGHT) -> LossT:
    """The total of both losses."""
    return text_weight * text + (1 - text_weight) * image


class TransformerBlock(nn.Module):
    """Attention of one kind, then a feed-forward layer, each on a normalised input."""

    neighbours: torch.Tensor
    hidden_GSW: torch.Tensor

    def __init__(self, config: TransformerConfig, kind: str):
        super().__init__()
        self.kind, self.grid, self.rows, self.heads = kind, config.grid, config.rows, config.heads
        self.codes = config.codes
        pattern = lines(kind, config.grid, config.rows) if kind != "full" else None
        self.by_column = pattern is not None and pattern.by_column
        # Buffers, which move to the device with the weights.
        self.register_buffer("neighbours", pattern and pattern.neighbours, persistent=False)
        self.register_buffer("hidden_GSW", pattern and pattern.hidden_GSW, persistent=False)
        width, bias = config.width, not config.is_modern
        self.gated = config.is_modern
        self.attention_norm = make_norm(config, width)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.q_norm, self.k_norm = (
            make_norm(config, width // config.heads) if config.is_modern else nn.Identity() for _ in range(2)
        )
        self.attention_out = nn.Linear(width, width, bias=bias)
        self.feed_norm = make_norm(config, width)
        self.feed_in = nn.Linear(width, (2 if self.gated else 1) * config.feed_width, bias=bias)
        self.feed_out = nn.Linear(config.feed_width, width, bias=bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BLM: torch.Tensor, angles: RotaryAngles | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """Computes a full sequence [B, L, M], or the positions before the codes, with which it fills the cache."""
        q_BHLD, k_BHLD, v_BHLD = self._heads(x_BLM, angles)
        if cache is None:
            pattern = None if self.kind == "full" else LineWindows(self.by_column, self.neighbours, self.hidden_GSW)
            y_BHLD = masked_attention(q_BHLD, k_BHLD, v_BHLD, self.kind, self.grid, self.rows, pattern)
        else:
            rows = len(cache.k_BHLD)
            cache.k_BHLD[:, :, : x_BLM.shape[1]] = k_BHLD[:rows]
            cache.v_BHLD[:, :, : x_BLM.shape[1]] = v_BHLD[:rows]
            y_BHLD = F.scaled_dot_product_attention(q_BHLD, k_BHLD, v_BHLD, is_causal=True)
        x_BLM = x_BLM + self.dropout(self.attention_out(y_BHLD.transpose(1, 2).flatten(2)))
        return x_BLM + self._feed(x_BLM)

    def decode_one(
        self, x_BM: torch.Tensor, cache: KVCache, position: int, angles: RotaryAngles | None = None
    ) -> torch.Tensor:
        """Computes the code at `position`, 0 to N - 1 in raster order: states [B, M] to states [B, M].

        The cache may have fewer rows: the others attend to nothing and only fill the matrix products up.
        """
        rows = len(cache.k_BHLD)
        q_BHLD, k_BHLD, v_BHLD = (x_BHLD[:rows] for x_BHLD in self._heads(x_BM[:, None], angles))
        offset = cache.k_BHLD.shape[2] - self.codes + position
        cache.k_BHLD[:, :, offset] = k_BHLD[:, :, 0]
        cache.v_BHLD[:, :, offset] = v_BHLD[:, :, 0]
        y_BHD = cached_attention(
            q_BHLD[:, :, 0], cache.k_BHLD, cache.v_BHLD, offset - position, cache.visible[position]
        )
        x_BM = x_BM + self.attention_out(F.pad(y_BHD.flatten(1), (0, 0, 0, len(x_BM) - rows)))
        return x_BM + self._feed(x_BM)

    def _heads(
        self, x_BLM: torch.Tensor, angles: RotaryAngles | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = self.qkv(self.attention_norm(x_BLM)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)  # under autocast norms are float32
        return (q, k, v) if angles is None else (apply_rotary(q, angles), apply_rotary(k, angles), v)

    def _feed(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.feed_in(self.feed_norm(x))
        if not self.gated:
            return self.dropout(self.feed_out(F.gelu(hidden)))
        gate, up = hidden.chunk(2, dim=-1)
        return self.dropout(self.feed_out(F.silu(gate) * up))


def make_norm(config: TransformerConfig, width: int) -> nn.Module:
    """The normalisation of the recipe."""
    return nn.RMSNorm(width, eps=NORM_EPSILON) if config.is_modern else nn.LayerNorm(width)


class KVCache(NamedTuple):
    """Keys and values of a layer's positions so far, and for each code the codes that it sees."""

    k_BHLD: torch.Tensor
    v_BHLD: torch.Tensor
    visible: tuple[torch.Tensor, ...]


class RotaryAngles(NamedTuple):
    """Cosines and sines [L, D / 2] of the angles by which queries and keys are rotated."""

    cos: torch.Tensor
    sin: torch.Tensor


def rotary_angles(config: TransformerConfig) -> RotaryAngles:
    """Half of a head's pairs of numbers rotate with the row, half with the column. Text positions lie on the diagonal
    before the image, and the codes of a sequence on the one behind the text. Frequencies fall from 1 to 1/10,000, as in
    RoFormer. Raises ValueError for odd widths of heads."""
    pairs = config.width // config.heads // 2
    if pairs % 2:
        raise ValueError(f"rotary positions need heads whose width is a multiple of 4, got {2 * pairs}")
    positions_P = torch.arange(config.prefix, device="cpu")
    code_N = torch.arange(config.codes, device="cpu")
    row_N = code_N if config.rows == 1 else code_N // config.grid
    rows_L = torch.cat([positions_P, config.prefix + row_N])
    columns_L = torch.cat([positions_P, config.prefix + code_N % config.grid])
    frequencies = 10_000.0 ** -(torch.arange(pairs // 2, device="cpu") / max(1, pairs // 2))
    angles_LD = torch.cat([rows_L[:, None] * frequencies, columns_L[:, None] * frequencies], dim=1)
    return RotaryAngles(angles_LD.cos(), angles_LD.sin())


def apply_rotary(x_BHLD: torch.Tensor, angles: RotaryAngles) -> torch.Tensor:
    """Rotates queries or keys [B, H, L, D] by the angles of their positions."""
    a, b = x_BHLD.chunk(2, dim=-1)
    cos, sin = angles.cos.to(x_BHLD.dtype), angles.sin.to(x_BHLD.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Transformer(nn.Module):
    """Embeddings, blocks, and a head for each of the two vocabularies."""

    rotary_cos: torch.Tensor
    rotary_sin: torch.Tensor

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.start = nn.Embedding(2, width)  # start of text, start of image
        self.text_token = nn.Embedding(config.text_vocabulary, width)
        if not config.is_modern:
            self.text_position = nn.Embedding(config.text_length, width)
        self.text_padding = nn.Embedding(1 if config.is_modern else config.text_length, width)
        self.code = nn.Embedding(config.image_vocabulary, width)
        if not config.is_modern:
            self.row = nn.Embedding(config.rows or config.grid, width)
            self.column = nn.Embedding(config.grid, width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(TransformerBlock(config, kind) for kind in config.kinds)
        self.norm = make_norm(config, width)
        self.text_head = nn.Linear(width, config.text_vocabulary, bias=not config.is_modern)
        self.image_head = nn.Linear(width, config.image_vocabulary, bias=not config.is_modern)
        cos, sin = rotary_angles(config) if config.rotary else (None, None)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)
        self.recompute = False  # in training, compute activations again instead of keeping them
        self._initialise()

    def _initialise(self) -> None:
        """As in GPT-2 and GPT-3: normal with std 0.02, smaller for layers that add to the residual stream; biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                into_stream = name.endswith(("attention_out.weight", "feed_out.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * self.config.layers) ** 0.5 if into_stream else 0.02)

    def forward(self, text_BT: torch.Tensor, codes_BN: torch.Tensor) -> TokenLosses:
        """Computes the cross-entropy of tokens, int64 [B, T] with NO_TOKEN for padding, and codes, int64 [B, N]."""
        x_BLM = self.states(text_BT, codes_BN)
        prefix, real_BT = self.config.prefix, text_BT != NO_TOKEN
        # Logits of real tokens only: the text vocabulary is large and most captions are short.
        logits_RV = self.text_head(x_BLM[:, : prefix - 2][real_BT]).float()
        text_R = F.cross_entropy(logits_RV, text_BT[real_BT], reduction="none")
        logits_V = self.image_head(x_BLM[:, prefix - 1 : -1].flatten(0, 1)).float()
        image_BN = F.cross_entropy(logits_V, codes_BN.flatten(), reduction="none").view_as(codes_BN)
        return TokenLosses(text_R, image_BN.clone())  # no view: FSDP registers hooks on the outputs

    def loss(self, text_BT: torch.Tensor, codes_BN: torch.Tensor) -> Losses:
        """The losses of a full batch: tokens and codes as in `forward`."""
        return self(text_BT, codes_BN).losses()

    def states(self, text_BT: torch.Tensor, codes_BN: torch.Tensor) -> torch.Tensor:
        """The normalised states of all positions, [B, L, M]."""
        x_BLM = self.dropout(torch.cat([self._embed_text(text_BT), self._embed_codes(codes_BN)], dim=1))
        angles = self._angles(slice(None))
        for block in self.blocks:
            if self.recompute and self.training:
                x_BLM = checkpoint(block, x_BLM, angles, use_reentrant=False)
            else:
                x_BLM = block(x_BLM, angles)
        return self.norm(x_BLM)

    def _angles(self, positions: slice) -> RotaryAngles | None:
        return RotaryAngles(self.rotary_cos[positions], self.rotary_sin[positions]) if self.config.rotary else None

    def _embed_text(self, text_BT: torch.Tensor) -> torch.Tensor:
        """Embeds the start of text, the text positions and the start of image: [B, P, M]."""
        real_BT1 = (text_BT != NO_TOKEN)[:, :, None]
        tokens_BTM = self.text_token(text_BT.clamp(min=0))
        if not self.config.is_modern:
            tokens_BTM = tokens_BTM + self.text_position.weight
        text_BTM = torch.where(real_BT1, tokens_BTM, self.text_padding.weight)
        of_text, of_image = self.start.weight.expand(len(text_BT), 2, -1).split(1, dim=1)
        return torch.cat([of_text, text_BTM, of_image], dim=1)

    def _embed_codes(self, codes_BN: torch.Tensor) -> torch.Tensor:
        if self.config.is_modern:
            return self.code(codes_BN)
        positions_NM = (self.row.weight[:, None] + self.column.weight[None, :]).flatten(0, 1)
        return self.code(codes_BN) + positions_NM

    # --- sampling ----------------------------------------------------------------------------------------------------

    def prefill(self, text_BT: torch.Tensor, cached_rows: int | None = None) -> tuple[list[KVCache], torch.Tensor]:
        """Runs the captions: returns the filled caches and the logits [B, V] of the first code.

        With `cached_rows`, only so many rows, the first ones, have caches; the others only fill the matrix products up.
        """
        x_BLM, config = self._embed_text(text_BT), self.config
        shape = cached_rows or len(text_BT), config.heads, config.prefix + config.codes, config.width // config.heads
        caches = [
            KVCache(
                x_BLM.new_zeros(shape),
                x_BLM.new_zeros(shape),
                visible_codes(block.kind, config.grid, x_BLM.device, config.rows),
            )
            for block in self.blocks
        ]
        angles = self._angles(slice(config.prefix))
        for block, cache in zip(self.blocks, caches, strict=True):
            x_BLM = block(x_BLM, angles, cache)
        return caches, self._image_logits(x_BLM[:, -1])

    def decode_one(self, codes_B: torch.Tensor, position: int, caches: list[KVCache]) -> torch.Tensor:
        """The code cached_rows for `place` (0 to N - 2) to the logits [B, V] of the next. Fills the caches."""
        row, column = divmod(position, self.config.grid)
        x_BM = self.code(codes_B)
        if not self.config.is_modern:
            x_BM = x_BM + (self.row.weight[row] + self.column.weight[column])
        offset = self.config.prefix + position
        angles = self._angles(slice(offset, offset + 1))
        for block, cache in zip(self.blocks, caches, strict=True):
            x_BM = cast(TransformerBlock, block).decode_one(x_BM, cache, position, angles)
        return self._image_logits(x_BM)

    def _image_logits(self, x_BM: torch.Tensor) -> torch.Tensor:
        """Computes image_head with its operands swapped: half the time on a CPU for few rows and many codes."""
        if self.config.is_modern:
            return (self.image_head.weight @ self.norm(x_BM).t()).t()
        return torch.addmm(self.image_head.bias[:, None], self.image_head.weight, self.norm(x_BM).t()).t()


def block_parameters(model: Transformer) -> int:
    """Number of parameters without embeddings and output layers, as the names of SIZES count them."""
    return sum(parameter.numel() for parameter in model.blocks.parameters())


def inference_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a state_dict() that sampling needs, in 16 bits: all but those of the text head."""
    return {
        name: weight.to(torch.float16).contiguous()
        for name, weight in weights.items()
        if not name.startswith("text_head.")
    }


def training_flops(model: Transformer) -> float:
    """Floating-point operations to train on one pair: two for each multiply-add, once forward and twice backward.

    Counts the products of the weights and those of attention that the masks allow, not what kernels compute beyond.
    """
    config = model.config
    feed = (3 if config.is_modern else 2) * config.width * config.feed_width
    block = (4 * config.width**2 + feed) * (config.prefix + config.codes)
    heads = config.width * (config.text_length * config.text_vocabulary + config.codes * config.image_vocabulary)
    keys = sum(_keys(kind, config) for kind in config.kinds)  # seen, over all positions and layers
    return 6.0 * (config.layers * block + heads + 2 * config.width * keys)


def _keys(kind: str, config: TransformerConfig) -> int:
    text = config.prefix * (config.prefix + 1) // 2
    seen = visible_codes(kind, config.grid, rows=config.rows)
    return text + config.codes * config.prefix + sum(map(len, seen))
