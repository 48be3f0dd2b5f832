"""LPIPS, a perceptual distance of two images of one size (Zhang et al., 2018, arXiv 1801.03924), version 0.1.

The folder holds two files of weights as they circulate: torchvision's AlexNet or VGG16 (`features.0.weight`, ...), and
the linear layers of LPIPS for it (`lin0.model.1.weight`, ...), which are part of its package (`weights/v0.1/alex.pth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models import pixels
from models.errors import UserError
from models.tokenizers.untrusted_weights import extract_tensors, load_checked, read_checkpoint

_PATTERNS = ("*.pth", "*.pt", "*.safetensors")
SHIFT, SCALE = (
    (-0.030, -0.088, -0.188),
    (0.458, 0.448, 0.450),
)  # of colours in -1 to 1, by ImageNet's


class Backbone(NamedTuple):
    """A network of torchvision as far as LPIPS takes it."""

    layers: Sequence[nn.Module]
    taps: tuple[int, ...]  # layers whose outputs are compared
    widths: tuple[int, ...]  # channels of these


def _alexnet() -> Backbone:
    layers = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    ]
    return Backbone(layers, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256))


def _vgg16() -> Backbone:
    layers: list[nn.Module] = []
    taps: list[int] = []
    width = 3
    for convolutions, outputs in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(convolutions):
            layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU()]
            width = outputs
        taps.append(len(layers) - 1)
    return Backbone(layers, tuple(taps), (64, 128, 256, 512, 512))


class LPIPS(nn.Module):
    """A backbone, and for each of its taps a weight for each channel."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.features = nn.Sequential(*backbone.layers)
        self.weights = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in backbone.widths)
        self._taps = backbone.taps

    @torch.inference_mode()
    def distance(self, a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
        """The distance of two images, uint8 [H, W, 3]."""
        device = self.weights[0].device
        a_1CHW, b_1CHW = (pixels.to_tensor(image[None], device) for image in (a_HWC, b_HWC))
        return float(self(a_1CHW, b_1CHW))

    def forward(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        """The distances [B] of images in 0..1, float [B, 3, H, W]."""
        pairs = zip(self._unit_features(a_BCHW), self._unit_features(b_BCHW), self.weights, strict=True)
        return torch.stack([((a - b).square() * weight).sum(dim=1).mean(dim=(1, 2)) for a, b, weight in pairs]).sum(0)

    def _unit_features(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """The features of each tap, of length 1 over the channels."""
        shift, scale = (torch.tensor(values, device=x_BCHW.device).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x_BCHW = (2 * x_BCHW - 1 - shift) / scale
        found = []
        for number, layer in enumerate(self.features):
            x_BCHW = layer(x_BCHW)
            if number in self._taps:
                found.append(x_BCHW / (x_BCHW.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found


def load_lpips(folder: Path) -> LPIPS:
    """Reads both files of a folder; no code of them runs. Raises UserError for a folder of other files."""
    paths = sorted(path for pattern in _PATTERNS for path in folder.glob(pattern))
    try:
        weights = {name: value for path in paths for name, value in extract_tensors(read_checkpoint(path)).items()}
        first = weights.get("features.0.weight")
        if first is None:
            raise ValueError("no file there has the weights of torchvision's AlexNet or VGG16")
        backbone = _alexnet() if first.shape[-1] == 11 else _vgg16()
        own = {f"weights.{i}": weights[name] for i in range(5) if (name := f"lin{i}.model.1.weight") in weights}
        if len(own) < len(backbone.widths):
            raise ValueError("no file there has LPIPS's linear layers (lin0.model.1.weight, ...)")
        return load_checked(LPIPS(backbone), weights | own, folder)
    except (ValueError, OSError) as error:
        raise UserError(f"--lpips {folder}: {error}; give a folder with a network and LPIPS's layers for it") from None
