"""The VQGAN of taming-transformers (Esser et al., arXiv 2012.09841): VQModel and GumbelVQ, encoder and decoder.

Layers have the names of CompVis/taming-transformers, so that its checkpoints load name by name; diffusers' VQModel is
the same network under other names (`from_diffusers`). The losses of training are left out.
Shape letters: B images, C channels, H W pixels, V vocabulary, D width of a code's vector, h w code grid.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class VQGANConfig:
    """Sizes of one network; `from_taming` and `from_diffusers` read them from configuration files."""

    vocabulary: int
    code_width: int  # of a code's vector
    latent: int  # channels between encoder and decoder
    input_width: int  # channels after the first convolution
    widths: tuple[int, ...]  # channels of the levels, largest resolution first; each but the last halves the sides
    blocks: int  # of a level in the encoder; the decoder has one more
    encoder_attention: tuple[bool, ...]  # by level
    decoder_attention: tuple[bool, ...]
    middle_attention: bool = True
    double_latent: bool = False  # the encoder's output has twice the latent channels
    gumbel: bool = False  # codes are the argmax of a projection (GumbelVQ), not the nearest vector (VQModel)
    groups: int = 32  # of the normalisations
    image_size: int = 256
    normalised: bool = False  # latents and vectors are compared by direction, at length 1

    @property
    def grid(self) -> int:
        return self.image_size // 2 ** (len(self.widths) - 1)


class ResnetBlock(nn.Module):
    """Two normalised convolutions with a residual connection."""

    def __init__(self, n_in: int, n_out: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = _norm(n_in, groups), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm2, self.conv2 = _norm(n_out, groups), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class AttnBlock(nn.Module):
    """Attention with one head from each position to all."""

    def __init__(self, n: int, groups: int):
        super().__init__()
        self.norm = _norm(n, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(n, n, 1) for _ in range(4))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x_BCHW)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        attended_BNC = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x_BCHW + self.proj_out(attended_BNC.transpose(1, 2).reshape(x_BCHW.shape))


class Downsample(nn.Module):
    """Halves the sides. Only the right and the bottom are padded, as published."""

    def __init__(self, n: int):
        super().__init__()
        self.conv = nn.Conv2d(n, n, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles the sides."""

    def __init__(self, n: int):
        super().__init__()
        self.conv = nn.Conv2d(n, n, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Blocks of one resolution, each followed by attention if the level has it, then the change of resolution."""

    def __init__(self, n_in: int, n_out: int, blocks: int, attention: bool, groups: int):
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(n_in if i == 0 else n_out, n_out, groups) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(n_out, groups) for _ in range(blocks if attention else 0))
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        last = self.downsample or self.upsample
        return last(x) if last else x


class Middle(nn.Module):
    """The blocks at the smallest resolution."""

    def __init__(self, n: int, attention: bool, groups: int):
        super().__init__()
        self.block_1, self.block_2 = ResnetBlock(n, n, groups), ResnetBlock(n, n, groups)
        self.attn_1 = AttnBlock(n, groups) if attention else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pixels in -1..1 [B, 3, H, W] to latents [B, latent, h, w]."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths, last = (config.input_width, *config.widths), len(config.widths) - 1
        self.conv_in = nn.Conv2d(3, config.input_width, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            level = Level(n_in, n_out, config.blocks, config.encoder_attention[i], config.groups)
            level.downsample = Downsample(n_out) if i < last else None
            self.down.append(level)
        self.mid = Middle(widths[-1], config.middle_attention, config.groups)
        self.norm_out = _norm(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], config.latent * (2 if config.double_latent else 1), 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents [B, latent, h, w] to pixels in about -1..1 [B, 3, H, W]."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        top, last = config.widths[-1], len(config.widths) - 1
        self.conv_in = nn.Conv2d(config.latent, top, 3, padding=1)
        self.mid = Middle(top, config.middle_attention, config.groups)
        # Numbered as in the encoder; the level with the smallest resolution runs first.
        self.up = nn.ModuleList()
        for i, n_out in enumerate(config.widths):
            n_in = config.widths[min(i + 1, last)]
            level = Level(n_in, n_out, config.blocks + 1, config.decoder_attention[i], config.groups)
            level.upsample = Upsample(n_out) if i > 0 else None
            self.up.append(level)
        self.norm_out = _norm(config.widths[0], config.groups)
        self.conv_out = nn.Conv2d(config.widths[0], 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VectorQuantiser(nn.Module):
    """The codebook of VQModel: a code is the nearest vector."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.code_width)
        self.normalised = config.normalised

    def logits(self, z_BDhw: torch.Tensor) -> torch.Tensor:
        """The negative squared distance to each vector, [B, V, h, w]."""
        table_VD = self._table()
        z_BDhw = F.normalize(z_BDhw, dim=1) if self.normalised else z_BDhw
        dots_BhwV = z_BDhw.permute(0, 2, 3, 1) @ table_VD.t()
        squares = z_BDhw.square().sum(1)[..., None] + table_VD.square().sum(1)
        return (2 * dots_BhwV - squares).permute(0, 3, 1, 2)

    def vectors(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """The vectors of codes, [B, D, h, w]."""
        return F.embedding(codes_Bhw, self._table()).permute(0, 3, 1, 2)

    def _table(self) -> torch.Tensor:
        return F.normalize(self.embedding.weight, dim=1) if self.normalised else self.embedding.weight


class GumbelProjection(nn.Module):
    """The codebook of GumbelVQ: a code is the argmax of a projection; the original samples it, in evaluation too."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.proj = nn.Conv2d(config.latent, config.vocabulary, 1)
        self.embed = nn.Embedding(config.vocabulary, config.code_width)

    def logits(self, z_BDhw: torch.Tensor) -> torch.Tensor:
        """The scores of each code, [B, V, h, w]."""
        return self.proj(z_BDhw)

    def vectors(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """The vectors of codes, [B, D, h, w]."""
        return self.embed(codes_Bhw).permute(0, 3, 1, 2)


class VQGAN(nn.Module):
    """Encodes images, floats in 0..1 [B, 3, H, W], as codes, and decodes them."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize: GumbelProjection | VectorQuantiser = (
            GumbelProjection(config) if config.gumbel else VectorQuantiser(config)
        )
        latent = config.latent * (2 if config.double_latent else 1)
        self.quant_conv = nn.Conv2d(latent, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent, 1)

    def logits(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to code scores [B, V, h, w]; the largest is the code."""
        return self.quantize.logits(self.quant_conv(self.encoder(2 * x_BCHW - 1)))

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to codes, int64 [B, h, w]."""
        return self.logits(x_BCHW).argmax(dim=1)

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """Codes to pixels in about 0..1, [B, 3, H, W]."""
        return (self.decoder(self.post_quant_conv(self.quantize.vectors(codes_Bhw))) + 1) / 2


def _norm(n: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, n, eps=1e-6)


# --- configurations and names of other projects ----------------------------------------------------------------------


TAMING_MODELS = ("VQModel", "VQNoDiscModel", "VQModelInterface", "GumbelVQ")
"""Classes with the same network, of taming-transformers and latent-diffusion: they differ in losses and in the place of
the quantisation, which codes do not depend on."""


def first_stage(section: Mapping) -> tuple[Mapping, str]:
    """The `model` section of the image tokenizer and the prefix of its weights' names: transformers and diffusion
    models have theirs as first stage in their own section and checkpoint."""
    params = section.get("params") or {}
    return (params["first_stage_config"], "first_stage_model.") if "first_stage_config" in params else (section, "")


def from_taming(section: Mapping) -> VQGANConfig:
    """Reads the `model` section of a taming-transformers yaml file.

    Raises ValueError for unsupported settings, KeyError and TypeError for missing or malformed ones.
    """
    name = str(section["target"]).rpartition(".")[2]
    if name not in TAMING_MODELS:
        raise ValueError(f"model.target {section['target']!r}: {', '.join(TAMING_MODELS)} are supported")
    params = section["params"]
    if params.get("remap") is not None:
        raise ValueError("model.params.remap is not supported; give the configuration of the training")
    network = params["ddconfig"]
    if network.get("attn_type", "vanilla") != "vanilla":
        raise ValueError(f"ddconfig.attn_type {network['attn_type']!r} is not supported: only vanilla")
    if network.get("resamp_with_conv", True) is not True or (network["in_channels"], network["out_ch"]) != (3, 3):
        raise ValueError("ddconfig: only RGB networks that resample by convolutions are supported")
    width, size = int(network["ch"]), int(network["resolution"])
    widths = tuple(width * int(ratio) for ratio in network["ch_mult"])
    attention = tuple(size // 2**level in network["attn_resolutions"] for level in range(len(widths)))
    return VQGANConfig(
        vocabulary=int(params["n_embed"]),
        code_width=int(params["embed_dim"]),
        latent=int(network["z_channels"]),
        input_width=width,
        widths=widths,
        blocks=int(network["num_res_blocks"]),
        encoder_attention=attention,
        decoder_attention=attention,
        double_latent=bool(network.get("double_z", True)),
        gumbel=name == "GumbelVQ",
        image_size=size,
    )


def from_diffusers(config: Mapping) -> VQGANConfig:
    """Reads the config.json of a diffusers VQModel. Raises as `from_taming`."""
    if config.get("_class_name") != "VQModel":
        raise ValueError(f"_class_name {config.get('_class_name')!r}: only VQModel has codes")
    if config.get("norm_type", "group") != "group" or config.get("act_fn", "silu") != "silu":
        raise ValueError("only VQModels with norm_type group and act_fn silu are supported")
    if (config["in_channels"], config["out_channels"]) != (3, 3):
        raise ValueError("only RGB networks are supported")
    kinds = {
        "DownEncoderBlock2D": False,
        "AttnDownEncoderBlock2D": True,
        "UpDecoderBlock2D": False,
        "AttnUpDecoderBlock2D": True,
    }
    unknown = [kind for kind in (*config["down_block_types"], *config["up_block_types"]) if kind not in kinds]
    if unknown:
        raise ValueError(f"block type {unknown[0]!r} is not supported")
    widths = tuple(map(int, config["block_out_channels"]))
    latent = int(config["latent_channels"])
    return VQGANConfig(
        vocabulary=int(config["num_vq_embeddings"]),
        code_width=int(config.get("vq_embed_dim") or latent),
        latent=latent,
        input_width=widths[0],
        widths=widths,
        blocks=int(config["layers_per_block"]),
        encoder_attention=tuple(kinds[kind] for kind in config["down_block_types"]),
        decoder_attention=tuple(kinds[kind] for kind in reversed(config["up_block_types"])),
        middle_attention=bool(config.get("mid_block_add_attention", True)),
        groups=int(config.get("norm_num_groups", 32)),
    )


_DIFFUSERS_NAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"down_blocks\.(\d+)\.", r"down.\1."),
        (r"resnets\.(\d+)\.", r"block.\1."),
        (r"(down|up)samplers\.0\.", r"\1sample."),
        (r"mid_block\.block\.0\.", "mid.block_1."),
        (r"mid_block\.block\.1\.", "mid.block_2."),
        (r"mid_block\.attentions\.0\.", "mid.attn_1."),
        (r"attentions\.(\d+)\.", r"attn.\1."),
        (r"conv_shortcut\.", "nin_shortcut."),
        (r"conv_norm_out\.", "norm_out."),
        (r"(attn[._]\d+)\.group_norm\.", r"\1.norm."),
        (r"(attn[._]\d+)\.(?:to_q|query)\.", r"\1.q."),
        (r"(attn[._]\d+)\.(?:to_k|key)\.", r"\1.k."),
        (r"(attn[._]\d+)\.(?:to_v|value)\.", r"\1.v."),
        (r"(attn[._]\d+)\.(?:to_out\.0|proj_attn)\.", r"\1.proj_out."),
    )
)


def weights_from_diffusers(weights: Mapping[str, torch.Tensor], levels: int) -> dict[str, torch.Tensor]:
    """Renames the weights of a diffusers VQModel to the names used here. Linear layers become 1x1 convolutions."""
    renamed = {}
    for name, value in weights.items():
        # diffusers numbers the decoder's levels from the smallest resolution.
        name = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", name)
        for pattern, replacement in _DIFFUSERS_NAMES:
            name = pattern.sub(replacement, name)
        linear = value.ndim == 2 and re.search(r"attn[._]\d+\.(q|k|v|proj_out)\.weight$", name)
        renamed[name] = value[:, :, None, None] if linear else value
    return renamed
