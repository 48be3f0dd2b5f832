"""TiTok (Yu et al., arXiv 2406.07550): an image as a sequence of 32 to 256 codes without places in it. A vision
transformer reads patches and latent tokens, another turns codes into those of a MaskGIT VQGAN, whose decoder paints.

Layers have the names of bytedance/1d-tokenizer, so that its checkpoints load name by name.
Shape letters: B images, H W pixels, N codes, P patches, M width, D width of a code's vector, h w grid of patches.
"""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.files import HUB_WEIGHTS_FILE
from models.tokenizers.info import CodeShape, FixedConfig
from models.tokenizers.untrusted_weights import extract_tensors, load_checked, read_checkpoint

SIZES = {"small": (512, 8, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}  # width, layers, heads
PIXEL_CODES, PIXEL_LATENT = 1024, 256  # of the MaskGIT VQGAN
PIXEL_WIDTH, PIXEL_RATIOS, PIXEL_BLOCKS = 128, (1, 1, 2, 2, 4), 2
GROUPS, EPSILON = 32, 1e-6


@dataclasses.dataclass(frozen=True)
class TiTokConfig(FixedConfig):
    """Sizes of a model; `from_json` reads them from its config.json."""

    code_width: int  # of a code's vector
    normalised: bool  # codes are compared by direction
    encoder: str  # name in SIZES
    decoder: str
    encoder_patch: int  # px a side
    decoder_patch: int
    has_pixel_decoder: bool  # the decoder's result are codes of the MaskGIT VQGAN, else pixels
    is_legacy: bool  # channels and codes of the latent are mixed up, as in the first models

    @property
    def codes(self) -> int:
        """Number of codes of an image."""
        return self.shape.count


class VisionBlock(nn.Module):
    """Attention from each position to all, then a feed-forward layer, each on a normalised input."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x_BLM: torch.Tensor) -> torch.Tensor:
        h_BLM = self.ln_1(x_BLM)
        x_BLM = x_BLM + self.attn(h_BLM, h_BLM, h_BLM, need_weights=False)[0]
        return x_BLM + self.mlp(self.ln_2(x_BLM))


class VisionTransformer(nn.Module):
    """What encoder and decoder share: blocks between two normalisations, over a class token, patches and N codes."""

    def __init__(self, config: TiTokConfig, size: str, patch: int):
        super().__init__()
        self.width, layers, heads = SIZES[size]
        self.grid = config.image_size // patch
        self.class_embedding = nn.Parameter(torch.empty(1, self.width))
        self.positional_embedding = nn.Parameter(torch.empty(self.grid**2 + 1, self.width))
        self.latent_token_positional_embedding = nn.Parameter(torch.empty(config.codes, self.width))
        self.ln_pre, self.ln_post = nn.LayerNorm(self.width), nn.LayerNorm(self.width)
        self.transformer = nn.ModuleList(VisionBlock(self.width, heads) for _ in range(layers))

    def run(self, patches_BPM: torch.Tensor, codes_BNM: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The states of the patches [B, P, M] and of the codes [B, N, M]."""
        first_B1M = self.class_embedding.expand(len(patches_BPM), 1, -1)
        x_BLM = torch.cat([first_B1M, patches_BPM], dim=1) + self.positional_embedding
        x_BLM = self.ln_pre(torch.cat([x_BLM, codes_BNM + self.latent_token_positional_embedding], dim=1))
        for block in self.transformer:
            x_BLM = block(x_BLM)
        patches = self.grid**2
        return self.ln_post(x_BLM[:, 1 : 1 + patches]), self.ln_post(x_BLM[:, 1 + patches :])


class Encoder(VisionTransformer):
    """Pixels in 0..1 [B, 3, H, W] to latents [B, N, D]."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config, config.encoder, config.encoder_patch)
        self.is_legacy = config.is_legacy
        self.patch_embed = nn.Conv2d(3, self.width, config.encoder_patch, stride=config.encoder_patch)
        self.conv_out = nn.Conv2d(self.width, config.code_width, 1)

    def forward(self, x_BCHW: torch.Tensor, latent_tokens_NM: torch.Tensor) -> torch.Tensor:
        patches_BPM = self.patch_embed(x_BCHW).flatten(2).transpose(1, 2)
        _, z_BNM = self.run(patches_BPM, latent_tokens_NM.expand(len(x_BCHW), -1, -1))
        # The first models take the numbers of [N, M] for [M, N].
        z_BMN = z_BNM.reshape(len(z_BNM), self.width, -1) if self.is_legacy else z_BNM.transpose(1, 2)
        return self.conv_out(z_BMN[..., None])[..., 0].transpose(1, 2)


class Decoder(VisionTransformer):
    """Vectors of codes [B, N, D] to scores of the VQGAN's codes [B, 1024, h, w], or to pixels in 0..1 [B, 3, H, W]."""

    def __init__(self, config: TiTokConfig):
        super().__init__(config, config.decoder, config.decoder_patch)
        self.decoder_embed = nn.Linear(config.code_width, self.width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, self.width))
        self.ffn: nn.Sequential
        if config.has_pixel_decoder:
            inner = 2 * self.width
            self.ffn = nn.Sequential(nn.Conv2d(self.width, inner, 1), nn.Tanh(), nn.Conv2d(inner, PIXEL_CODES, 1))
            self.conv_out: nn.Module = nn.Identity()
        else:
            patch = config.decoder_patch
            self.ffn = nn.Sequential(nn.Conv2d(self.width, 3 * patch**2, 1), ToPixels(patch))
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, z_BND: torch.Tensor) -> torch.Tensor:
        masks_BPM = self.mask_token.expand(len(z_BND), self.grid**2, -1)
        patches_BPM, _ = self.run(masks_BPM, self.decoder_embed(z_BND))
        return self.conv_out(self.ffn(patches_BPM.transpose(1, 2).unflatten(2, (self.grid, self.grid))))


class ToPixels(nn.Module):
    """Channels [B, p * p * 3, h, w] to pixels [B, 3, h * p, w * p]."""

    def __init__(self, patch: int):
        super().__init__()
        self.patch = patch

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        x = x_BChw.unflatten(1, (self.patch, self.patch, 3))  # [B, down, right, 3, h, w]
        return x.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


# --- the MaskGIT VQGAN's decoder -------------------------------------------------------------------------------------


class PixelBlock(nn.Module):
    """Two normalised convolutions. Where the width changes, the second one's result takes the place of the input."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, n_in, EPSILON), nn.GroupNorm(GROUPS, n_out, EPSILON)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.nin_shortcut = nn.Conv2d(n_out, n_out, 1, bias=False) if n_in != n_out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(h))


class PixelLevel(nn.Module):
    """Blocks of one resolution, then twice the sides."""

    def __init__(self, n_in: int, n_out: int, doubles: bool):
        super().__init__()
        self.block = nn.ModuleList(PixelBlock(n_in if i == 0 else n_out, n_out) for i in range(PIXEL_BLOCKS))
        self.upsample_conv = nn.Conv2d(n_out, n_out, 3, padding=1) if doubles else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample_conv(F.interpolate(x, scale_factor=2.0)) if self.upsample_conv else x


class PixelDecoder(nn.Module):
    """Latents [B, 256, h, w] to pixels in 0..1 [B, 3, 16 h, 16 w]. The last level runs first."""

    def __init__(self) -> None:
        super().__init__()
        widths = tuple(PIXEL_WIDTH * ratio for ratio in PIXEL_RATIOS)
        self.conv_in = nn.Conv2d(PIXEL_LATENT, widths[-1], 3, padding=1)
        self.mid = nn.ModuleList(PixelBlock(widths[-1], widths[-1]) for _ in range(PIXEL_BLOCKS))
        pairs = zip((*widths[1:], widths[-1]), widths, strict=True)
        self.up = nn.ModuleList(PixelLevel(*pair, doubles=i > 0) for i, pair in enumerate(pairs))
        self.norm_out = nn.GroupNorm(GROUPS, widths[0], EPSILON)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(z)
        for layer in (*self.mid, *reversed(self.up)):
            x = layer(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codebook(nn.Module):
    """Vectors of codes, under the name that checkpoints give them."""

    def __init__(self, codes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(codes, width)


class TiTok(nn.Module):
    """Encodes images, floats in 0..1 [B, 3, H, W], as codes, and decodes them."""

    def __init__(self, config: TiTokConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.latent_tokens = nn.Parameter(torch.empty(config.codes, self.encoder.width))
        self.quantize = Codebook(config.vocabulary, config.code_width)
        if config.has_pixel_decoder:
            self.pixel_quantize, self.pixel_decoder = Codebook(PIXEL_CODES, PIXEL_LATENT), PixelDecoder()

    def _direction(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.normalize(vectors, dim=-1) if self.config.normalised else vectors

    def logits(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to the negative squared distance to each code's vector, [B, V, N]."""
        z_BND = self._direction(self.encoder(x_BCHW, self.latent_tokens))
        table_VD = self._direction(self.quantize.embedding.weight)
        squares = z_BND.square().sum(2, keepdim=True) + table_VD.square().sum(1)
        return (2 * z_BND @ table_VD.t() - squares).transpose(1, 2)

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to codes, int64 [B, N]."""
        return self.logits(x_BCHW).argmax(dim=1)

    def decode(self, codes_BN: torch.Tensor) -> torch.Tensor:
        """Codes to pixels in about 0..1, [B, 3, H, W]."""
        decoded = self.decoder(self._direction(self.quantize.embedding(codes_BN)))
        if not self.config.has_pixel_decoder:
            return decoded
        shares_BhwV = decoded.softmax(1).permute(0, 2, 3, 1)
        return self.pixel_decoder((shares_BhwV @ self.pixel_quantize.embedding.weight).permute(0, 3, 1, 2))


# --- files -----------------------------------------------------------------------------------------------------------


def titok_files(location: str) -> list[Path]:
    """The configuration and the weights of a folder, as the hub's library writes them."""
    folder = Path(location)
    weights = folder / "pytorch_model.bin"
    return [folder / "config.json", weights if weights.is_file() else folder / HUB_WEIGHTS_FILE]


def load_titok(config: Path, weights: Path) -> TiTok:
    """Loads a folder of TiTok. Raises ValueError for other files."""
    try:
        model = TiTok(from_json(json.loads(config.read_text("utf-8"))))
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{config} does not describe a supported model: {error}") from error
    return load_checked(model, extract_tensors(read_checkpoint(weights)), weights)


def from_json(settings: Mapping) -> TiTokConfig:
    """Reads a config.json of TiTok. Raises ValueError for unsupported settings, KeyError and TypeError for missing or
    malformed ones."""
    network = settings["model"]["vq_model"]
    has_pixel_decoder, is_legacy = network.get("finetune_decoder", True), network.get("is_legacy", True)
    if network.get("quantize_mode", "vq") != "vq":
        raise ValueError(f"quantize_mode {network['quantize_mode']!r}: only vq has codes")
    if bool(has_pixel_decoder) != bool(is_legacy):
        raise ValueError("finetune_decoder and is_legacy differ: only models that decode to pixels are supported")
    return TiTokConfig(
        vocabulary=int(network["codebook_size"]),
        shape=CodeShape(sequence=int(network["num_latent_tokens"])),
        image_size=int(settings["dataset"]["preprocessing"]["crop_size"]),
        code_width=int(network["token_size"]),
        normalised=bool(network.get("use_l2_norm", False)),
        encoder=network["vit_enc_model_size"],
        decoder=network["vit_dec_model_size"],
        encoder_patch=int(network["vit_enc_patch_size"]),
        decoder_patch=int(network["vit_dec_patch_size"]),
        has_pixel_decoder=bool(has_pixel_decoder),
        is_legacy=bool(is_legacy),
    )
