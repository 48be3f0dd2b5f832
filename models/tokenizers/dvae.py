"""The discrete VAE of the paper (section 2.1, appendix A): 256 x 256 RGB to 32 x 32 codes and back.

Encoder and decoder mirror each other and have the layer names of openai/DALL-E, so that its weights load name by name.
Shape letters: B images, C channels, H W pixels, V vocabulary, h w code grid (H / 8, W / 8).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from models import pixels
from models.files import write_atomically
from models.tokenizers.untrusted_weights import ModuleT, load_checked

METADATA_NAME = "pairmill-dvae-1"  # key of the configuration in the safetensors header
DOWNSAMPLING = 8  # three 2x2 poolings between four groups


@dataclasses.dataclass(frozen=True)
class DVAEConfig:
    """Sizes of a dVAE; DVAEConfig() has those of the published model."""

    hidden: int = 256  # width of the first group; the others are 2, 4 and 8 times as wide
    vocabulary: int = 8192
    decoder_input: int = 128  # channels after the decoder's first 1x1 convolution
    blocks_per_group: int = 2
    image_size: int = 256

    @property
    def grid(self) -> int:
        return self.image_size // DOWNSAMPLING

    @classmethod
    def from_weights(cls, weights: Mapping[str, torch.Tensor]) -> DVAEConfig:
        """Infers the sizes from a model's weights by name. Raises ValueError for weights that are not of a dVAE."""
        try:
            vocabulary, top = weights["encoder.blocks.output.conv.weight"].shape[:2]
            first = re.compile(r"encoder\.blocks\.group_1\.block_\d+\.res_path\.conv_1\.weight")
            blocks = sum(first.fullmatch(name) is not None for name in weights)
            return cls(top // 8, vocabulary, weights["decoder.blocks.input.weight"].shape[0], blocks)
        except (KeyError, ValueError) as error:
            raise ValueError(f"these are not the weights of a dVAE: {error}") from error

    @property
    def layers(self) -> int:
        return 4 * self.blocks_per_group


class Conv(nn.Conv2d):
    """'Same' convolution with the paper's initialisation: normal with std 1/sqrt(n_in k^2), bias 0 (appendix A.3)."""

    bias: nn.Parameter  # the constructor always makes one

    def __init__(self, n_in: int, n_out: int, kernel: int):
        super().__init__(n_in, n_out, kernel, padding=(kernel - 1) // 2)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.in_channels * self.kernel_size[0] ** 2))
        nn.init.zeros_(self.bias)


class ResidualBlock(nn.Module):
    """Pre-activation bottleneck: kernels 3, 3, 3, 1 in the encoder, 1, 3, 3, 3 in the decoder; output x 1/layers^2."""

    res_path: nn.Sequential

    def __init__(self, n_in: int, n_out: int, layers: int, kernels: tuple[int, int, int, int]):
        super().__init__()
        widths = [n_in, n_out // 4, n_out // 4, n_out // 4, n_out]
        path: OrderedDict[str, nn.Module] = OrderedDict()
        for i, kernel in enumerate(kernels):
            path[f"relu_{i + 1}"] = nn.ReLU()
            path[f"conv_{i + 1}"] = Conv(widths[i], widths[i + 1], kernel)
        self.id_path = Conv(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.res_path = nn.Sequential(path)
        self.post_gain = 1 / layers**2

    @property
    def last_layer(self) -> Conv:
        """The residual path's last convolution."""
        return cast(Conv, self.res_path[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.id_path(x) + self.post_gain * self.res_path(x)


def _group(
    n_in: int,
    n_out: int,
    config: DVAEConfig,
    kernels: tuple[int, int, int, int],
    last: tuple[str, nn.Module] | None,
) -> nn.Sequential:
    blocks: list[tuple[str, nn.Module]] = [
        (f"block_{i + 1}", ResidualBlock(n_in if i == 0 else n_out, n_out, config.layers, kernels))
        for i in range(config.blocks_per_group)
    ]
    return nn.Sequential(OrderedDict(blocks + ([last] if last else [])))


class Encoder(nn.Module):
    """phi(pixels) [B, 3, H, W] to logits [B, V, h, w]."""

    def __init__(self, config: DVAEConfig):
        super().__init__()
        n, kernels, pool = config.hidden, (3, 3, 3, 1), ("pool", nn.MaxPool2d(2))
        self.blocks = nn.Sequential(
            OrderedDict(
                [
                    ("input", Conv(3, n, 7)),
                    ("group_1", _group(n, n, config, kernels, pool)),
                    ("group_2", _group(n, 2 * n, config, kernels, pool)),
                    ("group_3", _group(2 * n, 4 * n, config, kernels, pool)),
                    ("group_4", _group(4 * n, 8 * n, config, kernels, None)),
                    ("output", nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv(8 * n, config.vocabulary, 1)))),
                ]
            )
        )

    @property
    def output_layer(self) -> Conv:
        """The last layer, 1x1 to logits."""
        return cast(Conv, cast(nn.Sequential, self.blocks[-1])[-1])

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.blocks(x_BCHW)


class Decoder(nn.Module):
    """One-hot or relaxed codes [B, V, h, w] to six maps [B, 6, H, W]: mean and ln b of the logit-Laplace by channel."""

    def __init__(self, config: DVAEConfig):
        super().__init__()
        n, kernels, double = config.hidden, (1, 3, 3, 3), ("upsample", nn.Upsample(scale_factor=2, mode="nearest"))
        self.blocks = nn.Sequential(
            OrderedDict(
                [
                    ("input", Conv(config.vocabulary, config.decoder_input, 1)),
                    ("group_1", _group(config.decoder_input, 8 * n, config, kernels, double)),
                    ("group_2", _group(8 * n, 4 * n, config, kernels, double)),
                    ("group_3", _group(4 * n, 2 * n, config, kernels, double)),
                    ("group_4", _group(2 * n, n, config, kernels, None)),
                    ("output", nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv(n, 6, 1)))),
                ]
            )
        )

    def forward(self, z_BVhw: torch.Tensor) -> torch.Tensor:
        return self.blocks(z_BVhw)

    @property
    def input_layer(self) -> Conv:
        """The first layer, 1x1 from one-hot codes."""
        return cast(Conv, self.blocks[0])

    def from_codes(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """`forward` of codes [B, h, w] without one-hots, of which a 1x1 convolution picks a column of its weight."""
        table_VD = self.input_layer.weight[:, :, 0, 0].t()
        bias_D = self.input_layer.bias
        x_BDhw = (F.embedding(codes_Bhw, table_VD) + bias_D).permute(0, 3, 1, 2)
        return self.blocks[1:](x_BDhw.contiguous(memory_format=torch.channels_last))


class DVAE(nn.Module):
    """Encodes images, floats in 0..1 [B, 3, H, W], as codes, and decodes them."""

    def __init__(self, config: DVAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def logits(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to code logits [B, V, h, w]."""
        return self.encoder(pixels.phi(x_BCHW))

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to codes, int64 [B, h, w]: the argmax, without noise (section 2.1)."""
        return self.logits(x_BCHW).argmax(dim=1)

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """Codes to pixels in 0..1, [B, 3, H, W]: phi^-1 of the sigmoid of the mean (appendix A.3)."""
        mean, _ = self.decoder.from_codes(codes_Bhw).float().chunk(2, dim=1)
        return pixels.phi_inverse(torch.sigmoid(mean))


def logit_laplace_nll(x_BCHW: torch.Tensor, maps_B6HW: torch.Tensor) -> torch.Tensor:
    """The negative log density of x in (0, 1), in nats by element [B, 3, H, W] (equation 2):
    ln(2 b x (1 - x)) + |logit x - mean| / b, with mean and ln b from the decoder's maps."""
    mean, ln_b = maps_B6HW.float().chunk(2, dim=1)
    return math.log(2) + ln_b + torch.log(x_BCHW * (1 - x_BCHW)) + (torch.logit(x_BCHW) - mean).abs() * torch.exp(-ln_b)


def kl_to_uniform(logits_BVhw: torch.Tensor) -> torch.Tensor:
    """KL(softmax(logits) || uniform) in nats, by position [B, h, w]."""
    log_q = F.log_softmax(logits_BVhw.float(), dim=1)
    return (log_q.exp() * log_q).sum(dim=1) + math.log(logits_BVhw.shape[1])


def to_channels_last(model: ModuleT, device: torch.device | None = None) -> ModuleT:
    """Moves a model to a device (default: where it is), with its weights in the layout that suits convolutions."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it


# --- files -----------------------------------------------------------------------------------------------------------


def save_dvae(model: DVAE, path: str | os.PathLike) -> None:
    """Writes one safetensors file with 16-bit weights and the configuration, atomically."""
    tensors = {name: value.detach().to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    # A single entry: the library writes several in a varying order, which would change the file's fingerprint.
    metadata = {METADATA_NAME: json.dumps(dataclasses.asdict(model.config), sort_keys=True)}
    write_atomically(path, save(tensors, metadata=metadata))


def load_dvae(path: str | os.PathLike) -> DVAE:
    """Loads a file of `save_dvae` as float32, frozen. Raises ValueError for another kind of file or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # safetensors raises its own SafetensorError and plain OSError alike
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if METADATA_NAME not in metadata:
        raise ValueError(f"{path} is not a dVAE saved by `pairmill train-dvae`")
    try:
        model = DVAE(DVAEConfig(**json.loads(metadata[METADATA_NAME])))
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{path}: its configuration is damaged: {error}") from error
    return load_checked(model, tensors, path)
