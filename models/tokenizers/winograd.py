"""3 x 3 convolutions with fewer multiplications, on the CPU.

Lavin and Gray, 2016, F(4x4, 3x3): each 4 x 4 patch of the result takes 36 multiplications for each pair of channels
instead of 144, about twice as fast as PyTorch's own convolutions, which run at the speed of matrix products. The
transforms move 2.25 times the map, so a map is processed in strips whose tiles stay in the cache, in reused buffers.
The largest errors are about 4e-5 where results are about 1, against 1e-5 of the direct form.

Shape letters: R rows of tiles in a strip, w tiles in a row, C channels of the input and K of the result.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import nn

PATCH = 4  # px of the result, from 6 px of the input
TILE = 6
MIN_CHANNELS = 64  # of input and result; with fewer, the transforms cost more than the products save
STRIP_BYTES = 2 << 20  # minimum size of a strip's tiles: one core's second-level cache
KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


class Scratch(threading.local):
    """Buffers of a thread, shared by all layers: the system would have to clear new memory for each use."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The buffer of a name as a float32 tensor of this shape, uninitialised."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            with torch.inference_mode(False):  # so that any mode may write to it
                self._buffers[name] = torch.empty(size)
        return self._buffers[name][:size].view(shape)


class WinogradConv2d(nn.Module):
    """A float32 convolution with kernel 3, stride 1 and padding 1, for inference. Maps whose sides are not multiples of
    4 take the direct form."""

    weight_36CK: torch.Tensor

    def __init__(self, direct: nn.Conv2d, scratch: Scratch):
        super().__init__()
        self.direct = direct
        self._scratch = scratch
        transform = torch.tensor(KERNEL_TRANSFORM, dtype=torch.float64)
        weight_KCab = direct.weight.detach().double()
        weight_36CK = torch.einsum("ia,jb,kcab->ijck", transform, transform, weight_KCab).flatten(0, 1)
        self.register_buffer("weight_36CK", weight_36CK.to(direct.weight.dtype).contiguous(), persistent=False)

    @torch.no_grad()
    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        B, _, H, W = x_BCHW.shape
        if H % PATCH or W % PATCH:
            return self.direct(x_BCHW)
        out_BHWK = x_BCHW.new_empty(B, H, W, self.weight_36CK.shape[2])
        rows = self._rows_in_strip(H // PATCH, W // PATCH)
        for x_HWC, out_HWK in zip(x_BCHW.permute(0, 2, 3, 1), out_BHWK, strict=True):
            for top in range(0, H, PATCH * rows):
                self._strip(x_HWC, top, out_HWK[top : top + PATCH * rows])
        return out_BHWK.permute(0, 3, 1, 2)

    def _rows_in_strip(self, h: int, w: int) -> int:
        """Number of rows of tiles in a strip, at most h, so that tiles and weights take about the same memory."""
        weight_bytes = self.weight_36CK.numel() * self.weight_36CK.element_size()
        row_bytes = weight_bytes // self.weight_36CK.shape[2] * w
        return min(h, max(1, max(STRIP_BYTES, weight_bytes) // row_bytes))

    def _strip(self, x_HWC: torch.Tensor, top: int, out_SWK: torch.Tensor) -> None:
        """Computes rows `top` to `top` + S of the result into `out_SWK`."""
        (H, W, C), (S, _, K), take = x_HWC.shape, out_SWK.shape, self._scratch.take
        R, w = S // PATCH, W // PATCH
        padded = take("padded", S + 2, W + 2, C)
        first, last = max(top - 1, 0), min(top + S + 1, H)
        padded[: first - (top - 1)] = 0
        padded[last - (top - 1) :] = 0
        padded[:, 0], padded[:, -1] = 0, 0
        padded[first - (top - 1) : last - (top - 1), 1:-1] = x_HWC[first:last]
        # Tiles of 6 x 6 pixels, 4 apart, one direction after the other.
        rows_6 = take("rows", TILE, R, W + 2, C)
        _transform_input(
            [padded[i : i + S - PATCH + 1 : PATCH] for i in range(TILE)],
            rows_6.unbind(0),
            take("a", R, W + 2, C),
            take("b", R, W + 2, C),
        )
        tiles_66 = take("tiles", TILE, TILE, R, w, C)
        _transform_input(
            [rows_6[:, :, j : j + W - PATCH + 1 : PATCH] for j in range(TILE)],
            tiles_66.unbind(1),
            take("a", TILE, R, w, C),
            take("b", TILE, R, w, C),
        )
        products_36 = take("products", TILE * TILE, R * w, K)
        torch.bmm(tiles_66.view(TILE * TILE, R * w, C), self.weight_36CK, out=products_36)
        columns_6 = take("columns", TILE, R, w, PATCH, K)
        _transform_output(
            products_36.view(TILE, TILE, R, w, K).unbind(1),
            columns_6.unbind(3),
            take("a", TILE, R, w, K),
            take("b", TILE, R, w, K),
        )
        _transform_output(
            columns_6.unbind(0),
            out_SWK.view(R, PATCH, w, PATCH, K).unbind(1),
            take("a", R, w, PATCH, K),
            take("b", R, w, PATCH, K),
        )
        assert self.direct.bias is not None  # use_winograd replaces only layers with a bias
        out_SWK += self.direct.bias


def _transform_input(
    six: Sequence[torch.Tensor], results: Sequence[torch.Tensor], even: torch.Tensor, odd: torch.Tensor
) -> None:
    a, b, c, d, e, f = six
    torch.sub(e, c, alpha=5, out=results[0]).add_(a, alpha=4)
    torch.sub(e, c, alpha=4, out=even), torch.sub(d, b, alpha=4, out=odd)
    torch.add(even, odd, out=results[1]), torch.sub(even, odd, out=results[2])
    torch.sub(e, c, out=even), torch.sub(d, b, out=odd)
    torch.add(even, odd, alpha=2, out=results[3]), torch.sub(even, odd, alpha=2, out=results[4])
    torch.sub(f, d, alpha=5, out=results[5]).add_(b, alpha=4)


def _transform_output(
    six: Sequence[torch.Tensor], results: Sequence[torch.Tensor], near: torch.Tensor, far: torch.Tensor
) -> None:
    a, b, c, d, e, f = six
    torch.add(b, c, out=near), torch.add(d, e, out=far)
    torch.add(a, near, out=results[0]).add_(far)
    torch.add(near, far, alpha=4, out=results[2])
    torch.sub(b, c, out=near), torch.sub(d, e, out=far)
    torch.add(near, far, alpha=2, out=results[1])
    torch.add(near, far, alpha=8, out=results[3]).add_(f)


def use_winograd(model: nn.Module) -> None:
    """Replaces all suitable convolutions of a model, in place."""
    scratch = Scratch()
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d) and _suits(layer):
                setattr(parent, name, WinogradConv2d(layer, scratch))


def leave_uncompiled(model: nn.Module) -> None:
    """Makes torch.compile call these convolutions as they are: compiling the transforms takes minutes. Only for what is
    compiled afterwards: torch.compiler imports the compiler, which takes every process seconds."""
    for layer in model.modules():
        if isinstance(layer, WinogradConv2d):
            layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign]


def _suits(layer: nn.Conv2d) -> bool:
    plain = (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
    wide = min(layer.in_channels, layer.out_channels) >= MIN_CHANNELS and layer.groups == 1
    return plain and wide and layer.padding_mode == "zeros" and layer.bias is not None
