"""The lookup-free tokenizers of Open-MAGVIT2 (Luo et al., arXiv 2409.04410): the signs of a latent's channels are the
bits of its code, 2^18 codes as published.

Layers have the names of TencentARC/SEED-Voken, so that its checkpoints load name by name.
Shape letters: B images, C channels, H W pixels, L bits of a code, h w code grid.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import nn

from models.tokenizers.untrusted_weights import extract_tensors, load_checked, read_checkpoint

GROUPS, EPSILON = 32, 1e-6


@dataclasses.dataclass(frozen=True)
class OpenMAGVIT2Config:
    """Sizes of a network; `from_yaml` reads them from a configuration file."""

    bits: int  # of a code
    widths: tuple[int, ...]  # channels of the levels, largest resolution first; each but the last halves the sides
    input_width: int  # channels after the first convolution
    blocks: int  # of a level
    image_size: int
    averaged: bool  # whether the averaged weights of a checkpoint are those to use

    @property
    def vocabulary(self) -> int:
        return 1 << self.bits

    @property
    def grid(self) -> int:
        return self.image_size // 2 ** (len(self.widths) - 1)


class ResBlock(nn.Module):
    """Two normalised convolutions with a residual connection."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, n_in, EPSILON), nn.GroupNorm(GROUPS, n_out, EPSILON)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.nin_shortcut = nn.Conv2d(n_in, n_out, 1, bias=False) if n_in != n_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Upsampler(nn.Module):
    """Doubles the sides: a convolution to four times the channels, which become the pixels of a 2 x 2 square."""

    def __init__(self, n: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n, 4 * n, 3, padding=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x_BCHW).unflatten(1, (2, 2, -1))  # [B, down, right, C, H, W]
        return x.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


class AdaptiveGroupNorm(nn.Module):
    """A normalisation whose scale and offset follow from spread and mean of each bit over the image."""

    def __init__(self, bits: int, n: int):
        super().__init__()
        self.gn = nn.GroupNorm(GROUPS, n, EPSILON, affine=False)
        self.gamma, self.beta = nn.Linear(bits, n), nn.Linear(bits, n)

    def forward(self, x_BCHW: torch.Tensor, z_BLhw: torch.Tensor) -> torch.Tensor:
        z_BLN = z_BLhw.flatten(2)
        scale = self.gamma((z_BLN.var(dim=2) + EPSILON).sqrt())
        return self.gn(x_BCHW) * scale[:, :, None, None] + self.beta(z_BLN.mean(dim=2))[:, :, None, None]


class Level(nn.Module):
    """Blocks of one resolution, then the change of resolution."""

    def __init__(self, n_in: int, n_out: int, blocks: int):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(n_in if i == 0 else n_out, n_out) for i in range(blocks))
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample(self.downsample(x))


class Encoder(nn.Module):
    """Pixels in -1..1 [B, 3, H, W] to latents [B, L, h, w]."""

    def __init__(self, config: OpenMAGVIT2Config):
        super().__init__()
        widths, top = (config.input_width, *config.widths), config.widths[-1]
        self.conv_in = nn.Conv2d(3, config.input_width, 3, padding=1, bias=False)
        self.down = nn.ModuleList(Level(*pair, config.blocks) for pair in itertools.pairwise(widths))
        for level, width in zip(list(self.down)[:-1], config.widths, strict=False):
            level.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.mid_block = nn.ModuleList(ResBlock(top, top) for _ in range(config.blocks))
        self.norm_out = nn.GroupNorm(GROUPS, top, EPSILON)
        self.conv_out = nn.Conv2d(top, config.bits, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for layer in (*self.down, *self.mid_block):
            x = layer(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Signs [B, L, h, w] to pixels in about -1..1 [B, 3, H, W]. Levels are numbered as in the encoder; the one with the
    smallest resolution runs first."""

    def __init__(self, config: OpenMAGVIT2Config):
        super().__init__()
        top, widths = config.widths[-1], config.widths
        self.conv_in = nn.Conv2d(config.bits, top, 3, padding=1)
        self.mid_block = nn.ModuleList(ResBlock(top, top) for _ in range(config.blocks))
        inputs = (*widths[1:], top)
        self.up = nn.ModuleList(Level(*pair, config.blocks) for pair in zip(inputs, widths, strict=True))
        for level, width in zip(list(self.up)[1:], widths[1:], strict=True):
            level.upsample = Upsampler(width)
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(config.bits, width) for width in inputs)
        self.norm_out = nn.GroupNorm(GROUPS, widths[0], EPSILON)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z_BLhw: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(z_BLhw)
        for block in self.mid_block:
            x = block(x)
        for level, adaptive in zip(reversed(self.up), reversed(self.adaptive), strict=True):
            x = level(adaptive(x, z_BLhw))
        return self.conv_out(F.silu(self.norm_out(x)))


class OpenMAGVIT2(nn.Module):
    """Encodes images, floats in 0..1 [B, 3, H, W], as codes, and decodes them."""

    powers_L: torch.Tensor

    def __init__(self, config: OpenMAGVIT2Config):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("powers_L", 1 << torch.arange(config.bits), persistent=False)

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to codes, int64 [B, h, w]: bit i is whether channel i is above 0."""
        bits_BhwL = self.encoder(2 * x_BCHW - 1).permute(0, 2, 3, 1) > 0
        return (bits_BhwL * self.powers_L).sum(dim=3)

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """Codes to pixels in about 0..1, [B, 3, H, W]."""
        bits_BhwL = (codes_Bhw[..., None] & self.powers_L) != 0
        return (self.decoder((2.0 * bits_BhwL - 1).permute(0, 3, 1, 2)) + 1) / 2


def from_yaml(settings: Mapping) -> OpenMAGVIT2Config:
    """Reads a configuration of Open-MAGVIT2's training.

    Raises ValueError for unsupported settings, KeyError and TypeError for missing or malformed ones.
    """
    section = settings["model"]
    if not str(section["class_path"]).endswith((".lfqgan.VQModel", ".lfqgan_pretrain.VQModel")):
        raise ValueError(f"model.class_path {section['class_path']!r}: only VQModel of lfqgan is supported")
    params, network = section["init_args"], section["init_args"]["ddconfig"]
    bits = int(params["embed_dim"])
    if int(params["n_embed"]) != 1 << bits or network["z_channels"] != bits or network.get("double_z"):
        raise ValueError("n_embed is not 2 to the power of embed_dim and z_channels")
    width, ratios = int(network["ch"]), tuple(map(int, network["ch_mult"]))
    return OpenMAGVIT2Config(
        bits=bits,
        widths=tuple(width * ratio for ratio in ratios),
        input_width=width,
        blocks=int(network["num_res_blocks"]),
        image_size=_image_size(settings) or int(network["resolution"]),
        averaged=bool(params.get("use_ema", False)),
    )


def _image_size(settings: Mapping) -> int | None:
    """The size of the images of validation, in px a side: `resolution` is another number in published files."""
    try:
        return int(settings["data"]["init_args"]["validation"]["params"]["config"]["size"])
    except (KeyError, TypeError):
        return None


def load_open_magvit2(config: Path, checkpoint: Path) -> OpenMAGVIT2:
    """Loads a configuration and a checkpoint of Open-MAGVIT2's training. Raises ValueError for other files."""
    try:
        model = OpenMAGVIT2(from_yaml(yaml.safe_load(config.read_text("utf-8"))))
    except yaml.YAMLError as error:
        raise ValueError(f"{config} is not YAML: {str(error).splitlines()[0]}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{config} does not describe a supported model: {error}") from error
    loaded = read_checkpoint(checkpoint)
    weights = extract_tensors(loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded)
    return load_checked(model, _averaged(model, weights) if model.config.averaged else weights, checkpoint)


def _averaged(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The averaged weights under the names of the model; a checkpoint names them without dots."""
    averages = {name: f"model_ema.{name.replace('.', '')}" for name in model.state_dict()}
    return {name: weights[average] for name, average in averages.items() if average in weights}
