"""3 x 3 convolutions with fewer multiplications, where that is faster on a processor.

Lavin and Gray, 2016, F(4x4, 3x3): each 4 x 4 patch of the result takes 36 multiplications for each pair of channels
instead of 144. PyTorch's own convolutions run at the speed of matrix products, so this is the way past them: about
twice as fast for wide layers on small maps, while narrow layers on large maps only move memory. Largest errors are
some 4e-5 where results are about 1, against 1e-5 of the direct form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

PATCH = 4  # px of the result, from 6 px of the input
MIN_CHANNELS = 128
MAX_PIXELS = 128 * 128  # of a map; with more, its transform is too far from the cache
KERNEL_TRANSFORM = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
                    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))


class WinogradConv2d(nn.Module):
    """What a convolution with kernel 3, stride 1 and padding 1 computes, for inference. Maps whose sides are no
    multiple of 4, or that are large, take the direct form."""

    def __init__(self, direct: nn.Conv2d):
        super().__init__()
        self.direct = direct
        transform = torch.tensor(KERNEL_TRANSFORM, dtype=torch.float64)
        weight_KCab = direct.weight.detach().double()
        weight_36CK = torch.einsum("ia,jb,kcab->ijck", transform, transform, weight_KCab).flatten(0, 1)
        self.register_buffer("weight_36CK", weight_36CK.to(direct.weight.dtype).contiguous(), persistent=False)

    @torch.compiler.disable  # which takes minutes and gains a tenth
    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        B, _, H, W = x_BCHW.shape
        if H % PATCH or W % PATCH or H * W > MAX_PIXELS:
            return self.direct(x_BCHW)
        h, w = H // PATCH, W // PATCH
        x_BHWC = F.pad(x_BCHW.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        # Tiles of 6 x 6 pixels, 4 apart, one direction after the other.
        rows_6BhWC = torch.stack(_transform_input(*(x_BHWC[:, i : i + H - PATCH + 1 : PATCH] for i in range(6))))
        columns = (rows_6BhWC[..., j : j + W - PATCH + 1 : PATCH, :] for j in range(6))
        tiles_66BhwC = torch.stack(_transform_input(*columns), dim=1)
        products_36NK = torch.bmm(tiles_66BhwC.view(36, B * h * w, -1), self.weight_36CK)
        columns = _transform_output(*products_36NK.view(6, 6, B, h, w, -1).unbind(1))
        rows = _transform_output(*torch.stack(columns, dim=-2))  # each [B, h, w, 4, K]
        out_BHWK = (torch.stack(rows, dim=2) + self.direct.bias).view(B, H, W, -1)
        return out_BHWK.permute(0, 3, 1, 2)


def _transform_input(a, b, c, d, e, f) -> tuple[torch.Tensor, ...]:
    even, odd = e - 4 * c, d - 4 * b
    near, twice = e - c, 2 * (d - b)
    return 4 * a - 5 * c + e, even + odd, even - odd, near + twice, near - twice, 4 * b - 5 * d + f


def _transform_output(a, b, c, d, e, f) -> tuple[torch.Tensor, ...]:
    sum_1, difference_1, sum_2, difference_2 = b + c, b - c, d + e, d - e
    return a + sum_1 + sum_2, difference_1 + 2 * difference_2, sum_1 + 4 * sum_2, difference_1 + 8 * difference_2 + f


def quicken(model: nn.Module) -> None:
    """Replaces the convolutions inside that this is for."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d) and _suits(layer):
                setattr(parent, name, WinogradConv2d(layer))


def _suits(layer: nn.Conv2d) -> bool:
    plain = (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
    wide = layer.in_channels >= MIN_CHANNELS and layer.groups == 1
    return plain and wide and layer.padding_mode == "zeros" and layer.bias is not None
