"""An image tokenizer for scenes that is computed instead of trained: a code for each distinct cell.

The network is the DiscreteVAE of DALLE-pytorch, four convolutions of stride 2 each way, so that a code covers one cell
of 16 x 16 px. Its weights follow from the cells of all objects that training sees. Each layer joins 2 x 2 blocks to one
and describes it by its coordinates in the space that the cells' blocks of that size span; the encoder's last layer
compares the coordinates with those of each cell, so that the code is that of the nearest cell. The decoder goes the
same way back. Blocks are described by ink, 1 - pixel; offsets keep coordinates positive, where ReLU changes nothing.
"""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import torch
from torch import nn

from models.tokenizers.dalle_pytorch_vae import DiscreteVAE, DiscreteVAEConfig
from sample.scenes.captions import HELD_OUT_OBJECTS, all_objects
from sample.scenes.render import BACKGROUND, CELL, SCENE_PX, WIDTHS, Box, render_objects

LAYERS = 4  # each halves a side: 16 px to 1
WIDTH = 64  # channels: coordinates of a block, and a constant
ONE = WIDTH - 1  # the decoder's channel that is always 1
CHILDREN = tuple((y, x) for y in range(2) for x in range(2))  # blocks of the layer before in one block


def distinct_cells() -> np.ndarray:
    """All different cells of scenes that training sees, uint8 [V, 16, 16, 3]; the empty one is the first."""
    cells = [np.full((1, CELL, CELL, 3), BACKGROUND, np.uint8)]
    for thing in all_objects():
        if thing not in HELD_OUT_OBJECTS:
            side = WIDTHS[thing.size]
            cells.append(cells_of(render_objects([(thing, Box(0, 0, side, side))], side)))
    distinct = dict.fromkeys(cell.tobytes() for cell in np.concatenate(cells))
    return np.stack([np.frombuffer(cell, np.uint8).reshape(CELL, CELL, 3) for cell in distinct])


def cells_of(image_HWC: np.ndarray) -> np.ndarray:
    """Cuts an image into its cells, uint8 [cells, 16, 16, 3]."""
    return _blocks(torch.from_numpy(image_HWC)[None], CELL).numpy()


def tokenizer_file(cells_VHWC: np.ndarray) -> bytes:
    """A checkpoint of DALLE-pytorch, for `--image-tokenizer dalle-pytorch:FILE`, whose codes are these cells."""
    model = tokenizer_of(cells_VHWC)
    weights = {name: value.half() for name, value in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"hparams": dataclasses.asdict(model.config), "weights": weights}, buffer)
    return buffer.getvalue()


@torch.no_grad()
def tokenizer_of(cells_VHWC: np.ndarray) -> DiscreteVAE:
    """The network whose codes are these cells."""
    ink_VHWC = 1 - torch.from_numpy(cells_VHWC).double() / 255
    bases = [_basis(ink_VHWC, level) for level in range(LAYERS + 1)]
    centres_VD = ink_VHWC.flatten(1) @ bases[LAYERS].T
    model = DiscreteVAE(DiscreteVAEConfig(SCENE_PX, len(cells_VHWC), WIDTH, LAYERS, 0, WIDTH))
    for parameter in model.parameters():
        parameter.zero_()
    *down, nearest = (layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d))
    up = [layer for layer in model.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    for level in range(1, LAYERS + 1):
        maps = [_child_map(bases[level], bases[level - 1], *child) for child in CHILDREN]
        _set_down(down[level - 1], maps, level)
        _set_up(up[LAYERS - level], maps, level)
    _set_nearest(nearest, centres_VD)
    model.codebook.weight[:, : centres_VD.shape[1]] = centres_VD
    model.codebook.weight[:, ONE] = 1
    to_pixels = model.decoder[-1]
    assert isinstance(to_pixels, nn.Conv2d) and to_pixels.bias is not None
    to_pixels.weight[:, :3, 0, 0] = -2 * torch.eye(3)  # the network's pixels are from -1 to 1
    to_pixels.bias.fill_(1)
    return model


def _offset(level: int) -> float:
    """What keeps a block's coordinates positive: no less than its largest norm."""
    return (3 * 4**level) ** 0.5 if level else 0.0


def _basis(ink_VHWC: torch.Tensor, level: int) -> torch.Tensor:
    """An orthonormal basis of the space that blocks of 2^level px a side span, float64 [coordinates, values]."""
    if level == 0:
        return torch.eye(3, dtype=torch.float64)
    blocks_NV = _blocks(ink_VHWC, 2**level).flatten(1)
    _, scales, basis_NV = torch.linalg.svd(blocks_NV, full_matrices=False)
    return basis_NV[:ONE][scales[:ONE] > 1e-9 * scales[0]]


def _blocks(images_BHWC: torch.Tensor, side: int) -> torch.Tensor:
    """Cuts images into blocks, [N, side, side, 3], row by row."""
    return images_BHWC.unfold(1, side, side).unfold(2, side, side).permute(0, 1, 2, 4, 5, 3).flatten(0, 2)


def _child_map(basis_DV: torch.Tensor, child_basis_CV: torch.Tensor, y: int, x: int) -> torch.Tensor:
    """What a child's coordinates add to those of its block, [D, C]; transposed, the way back."""
    side = round((basis_DV.shape[1] / 3) ** 0.5)
    views = _blocks(basis_DV.view(-1, side, side, 3), side // 2).view(-1, 2, 2, child_basis_CV.shape[1])
    return views[:, y, x] @ child_basis_CV.T


def _set_down(layer: nn.Conv2d, maps: list[torch.Tensor], level: int) -> None:
    """An encoder's layer: the children's coordinates to those of the block. The first layer's input is 1 - 2 ink."""
    scale, shift = (-0.5, 1.0) if level == 1 else (1.0, _offset(level - 1))
    assert layer.bias is not None
    layer.bias.fill_(_offset(level))
    for (y, x), map_DC in zip(CHILDREN, maps, strict=True):
        rows, columns = map_DC.shape
        layer.weight[:rows, :columns, 1 + y, 1 + x] = scale * map_DC
        layer.bias[:rows] -= scale * shift * map_DC.sum(1)


def _set_up(layer: nn.ConvTranspose2d, maps: list[torch.Tensor], level: int) -> None:
    """A decoder's layer: a block's coordinates to those of its children. The codebook's have no offset."""
    shift = 0.0 if level == LAYERS else _offset(level)
    assert layer.bias is not None
    layer.bias[ONE] = 1
    for (y, x), map_DC in zip(CHILDREN, maps, strict=True):
        rows, columns = map_DC.shape
        layer.weight[:rows, :columns, 1 + y, 1 + x] = map_DC
        layer.weight[ONE, :columns, 1 + y, 1 + x] = _offset(level - 1) - shift * map_DC.sum(0)


def _set_nearest(layer: nn.Conv2d, centres_VD: torch.Tensor) -> None:
    """The encoder's last layer: the negative squared distance to each cell, but for a term that all have."""
    layer.weight[:, : centres_VD.shape[1], 0, 0] = 2 * centres_VD
    assert layer.bias is not None
    layer.bias.copy_(-centres_VD.square().sum(1) - 2 * _offset(LAYERS) * centres_VD.sum(1))
