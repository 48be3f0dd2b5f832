"""Finds the objects of an image and says whether they satisfy a caption. Nothing here is learned.

What differs from the background is cut into connected regions. A region's colour is the one of the palette nearest to
its pixels, its size follows from its width, and its shape is the one whose outline at that size overlaps it most. A
caption is satisfied if the regions are exactly its objects and lie as it says.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import cv2
import numpy as np

from sample.scenes.captions import COLOURS, SHAPES, Caption, Object
from sample.scenes.render import BACKGROUND, CELL, WIDTHS, Box, coverage, holds

MIN_COVER = 0.5  # contrast of a pixel to the background, in units of the contrast of the region's colour
FOREGROUND = 60  # distance of a pixel to the background in RGB, from which it may belong to an object
MIN_AREA = 30  # px; smaller regions are traces of compression
MIN_PURITY = 0.8  # share of a region's inner pixels that are nearest to one colour
MIN_OVERLAP = 0.75  # of a region with the outline of its shape: intersection over union
SQUARE = np.ones((3, 3), np.uint8)
NAMES = tuple(COLOURS)
PALETTE_VC = np.array([*COLOURS.values(), BACKGROUND], np.float32)
BACKGROUND_C = PALETTE_VC[-1]


class Found(NamedTuple):
    """An object found in an image; its box is in px. Its `object` is None for a region that is none."""

    object: Object | None
    box: Box


def find_objects(image_HWC: np.ndarray) -> list[Found]:
    """The objects of an image, uint8 [H, W, 3], from top to bottom."""
    contrast_HW = np.linalg.norm(image_HWC.astype(np.float32) - BACKGROUND_C, axis=2)
    foreground_HW = (contrast_HW > FOREGROUND).astype(np.uint8)
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(foreground_HW, connectivity=8)
    regions = (labels_HW == label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= MIN_AREA)
    return [_recognise(image_HWC, region_HW) for region_HW in regions]


def _recognise(image_HWC: np.ndarray, region_HW: np.ndarray) -> Found:
    pixels_NC = image_HWC[_inner(region_HW)].astype(np.float32)
    nearest_N = np.linalg.norm(pixels_NC[:, None] - PALETTE_VC, axis=2).argmin(axis=1)
    votes_V = np.bincount(nearest_N, minlength=len(PALETTE_VC))
    colour = int(votes_V.argmax())
    near_HW = cv2.dilate(region_HW.astype(np.uint8), SQUARE)  # with the pale pixels of a smooth edge
    cover_HW = near_HW * _contrast(image_HWC, PALETTE_VC[colour]).clip(0, 1)
    if colour == len(NAMES) or votes_V[colour] < MIN_PURITY * len(nearest_N) or cover_HW.max() <= MIN_COVER:
        return Found(None, _box(region_HW))
    box = _box(cover_HW > MIN_COVER)
    size = min(WIDTHS, key=lambda name: abs(WIDTHS[name] * CELL - box.width))
    overlaps = {shape: _overlap(cover_HW, box, coverage(shape, WIDTHS[size] * CELL)) for shape in SHAPES}
    shape = max(overlaps, key=lambda name: overlaps[name])
    return Found(Object(size, NAMES[colour], shape) if overlaps[shape] >= MIN_OVERLAP else None, box)


def _inner(region_HW: np.ndarray) -> np.ndarray:
    """The pixels of a region that do not touch its edge; all of them if there are none."""
    inner_HW = cv2.erode(region_HW.astype(np.uint8), SQUARE).astype(bool)
    return inner_HW if inner_HW.any() else region_HW


def _contrast(image_HWC: np.ndarray, colour_C: np.ndarray) -> np.ndarray:
    """How far each pixel is from the background to a colour, [H, W]: 0 at the background, 1 at the colour."""
    direction_C = colour_C - BACKGROUND_C
    return (image_HWC.astype(np.float32) - BACKGROUND_C) @ direction_C / (direction_C @ direction_C)


def _box(region_HW: np.ndarray) -> Box:
    left, top, width, height = cv2.boundingRect(region_HW.astype(np.uint8))
    return Box(top, left, height, width)


def _overlap(cover_HW: np.ndarray, box: Box, shape_HW: np.ndarray) -> float:
    """The best intersection over union of what a region and a shape cover, with the shape at most 1 px away from where
    its box has the region's middle."""
    margin, side = len(shape_HW), len(shape_HW)
    padded_HW = np.pad(cover_HW, margin)  # a shape may reach over the image's edge
    shape = _box(shape_HW > MIN_COVER)
    top = box.top + (box.height - shape.height) // 2 - shape.top + margin
    left = box.left + (box.width - shape.width) // 2 - shape.left + margin
    best, total = 0.0, cover_HW.sum() + shape_HW.sum()
    for y, x in itertools.product(range(max(0, top - 1), top + 2), range(max(0, left - 1), left + 2)):
        view_HW = padded_HW[y : y + side, x : x + side]
        both = np.minimum(view_HW, shape_HW).sum() if view_HW.shape == shape_HW.shape else 0.0
        best = max(best, float(both / (total - both)))
    return best


def satisfies(image_HWC: np.ndarray, caption: Caption) -> bool:
    """Whether an image, uint8 [H, W, 3], shows the caption's objects, all of them, no others, and where it says."""
    found = find_objects(image_HWC)
    boxes = {region.object: region.box for region in found if region.object}
    if len(boxes) != len(found) or boxes.keys() != set(caption.objects):
        return False
    first = boxes[caption.objects[0]]
    related = zip(caption.relations, caption.objects[1:], strict=True)
    return all(holds(relation, first, boxes[other]) for relation, other in related)
