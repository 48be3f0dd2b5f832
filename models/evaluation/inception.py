"""The Inception network of FID: that of 2015, which TensorFlow published, with its quirks.

Its weights circulate as `pt_inception-2015-12-05-6726825d.pth` (pytorch-fid) and
`weights-inception-2015-12-05-6726825d.pth` (torch-fidelity, torchmetrics), one and the same file. Layers have its
names. Unlike torchvision's, averages leave the border out, the last block takes maxima, and images are resized as
TensorFlow 1 did, whose pixels have their corners where others have their centres.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.errors import UserError
from models.tokenizers.untrusted_weights import extract_tensors, load_checked, read_checkpoint

SIDE = 299  # px, of the images that the network takes
FEATURES = 2048


class Convolution(nn.Module):
    """Convolution, normalisation and ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x_BCHW)), inplace=True)


def _row_and_column(inputs: int, inner: int, outputs: int) -> tuple[Convolution, Convolution]:
    """1 x 7 and 7 x 1."""
    return (
        Convolution(inputs, inner, (1, 7), padding=(0, 3)),
        Convolution(inner, outputs, (7, 1), padding=(3, 0)),
    )


def _mean(x_BCHW: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x_BCHW, 3, stride=1, padding=1, count_include_pad=False)


def _largest(x_BCHW: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x_BCHW, 3, stride=1, padding=1)


class BlockA(nn.Module):
    """Windows up to 5 x 5 at 35 x 35 positions: [B, inputs, h, w] to [B, 224 + pooled, h, w]."""

    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64)
        self.branch5x5_1 = Convolution(inputs, 48)
        self.branch5x5_2 = Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.branch_pool = Convolution(inputs, pooled)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        parts = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_mean(x))]
        return torch.cat(parts, 1)


class BlockB(nn.Module):
    """From 35 x 35 positions to 17 x 17: [B, inputs, h, w] to [B, 480 + inputs, (h - 1) / 2, (w - 1) / 2]."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = Convolution(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """Windows of 7 x 7 as rows and columns, at 17 x 17 positions: [B, inputs, h, w] to [B, 768, h, w]."""

    def __init__(self, inputs: int, inner: int):
        super().__init__()
        self.branch1x1 = Convolution(inputs, 192)
        self.branch7x7_1 = Convolution(inputs, inner)
        self.branch7x7_2, self.branch7x7_3 = _row_and_column(inner, inner, 192)
        self.branch7x7dbl_1 = Convolution(inputs, inner)
        # Column, row, column, row.
        self.branch7x7dbl_2 = Convolution(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _row_and_column(inner, inner, inner)
        self.branch7x7dbl_5 = Convolution(inner, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Convolution(inputs, 192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_mean(x))], 1)


class BlockD(nn.Module):
    """From 17 x 17 positions to 8 x 8: [B, inputs, h, w] to [B, 512 + inputs, (h - 1) / 2, (w - 1) / 2]."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1 = Convolution(inputs, 192)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(inputs, 192)
        self.branch7x7x3_2, self.branch7x7x3_3 = _row_and_column(192, 192, 192)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, stride=2)], 1)


class BlockE(nn.Module):
    """Windows of 3 x 3 split into rows and columns, at 8 x 8 positions: [B, inputs, h, w] to [B, 2048, h, w]."""

    def __init__(self, inputs: int, takes_largest: bool):
        super().__init__()
        self.branch1x1 = Convolution(inputs, 320)
        self.branch3x3_1 = Convolution(inputs, 384)
        self.branch3x3_2a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Convolution(inputs, 448)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Convolution(inputs, 192)
        self._pool = _largest if takes_largest else _mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self._pool(x)),
        ]
        return torch.cat(parts, 1)


class Inception(nn.Module):
    """Images to the features of FID, by the third Inception network (Szegedy et al., 2015, arXiv 1512.00567)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(768, 128), BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, takes_largest=False), BlockE(2048, takes_largest=True)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels 0 to 255, float [B, 3, H, W] of any size, to float [B, FEATURES]."""
        x = (resize_as_tensorflow_1(x_BCHW, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))


def resize_as_tensorflow_1(x_BCHW: torch.Tensor, side: int) -> torch.Tensor:
    """Bilinear interpolation to [B, C, side, side] with the corners of pixels where they are in TensorFlow 1: pixel i
    of the result is at i * size / side of the image, and beyond its last pixel stands that."""
    for dimension in (2, 3):
        size = x_BCHW.shape[dimension]
        at = torch.arange(side, dtype=x_BCHW.dtype, device=x_BCHW.device) * (size / side)
        lower = at.floor().long()
        upper = (lower + 1).clamp(max=size - 1)
        share = (at - lower).view(-1, *[1] * (3 - dimension))
        before, after = x_BCHW.index_select(dimension, lower), x_BCHW.index_select(dimension, upper)
        x_BCHW = before + share * (after - before)
    return x_BCHW


def load_inception(path: Path) -> Inception:
    """Reads the file of weights, of which no code runs. Raises UserError for another kind of file."""
    try:
        return load_checked(Inception(), extract_tensors(read_checkpoint(path)), path)
    except (ValueError, OSError) as error:
        raise UserError(
            f"--inception {path}: {error}; give FID's network of 2015, such as pt_inception-2015-12-05-6726825d.pth"
        ) from None
