"""Places the objects of a caption in a scene and renders it.

A scene has 80 x 80 px. Lengths here are in cells of 16 x 16 px, which one code of the image tokenizer covers. The scene
has two rows and two columns of 2 x 2 cells with a gap of one cell between them, and each object lies in a quadrant of
its own. A large object fills its quadrant, a small one a random cell of it.

A shape has an upper and a lower half, each whole, round or pointed: an arch is the upper half of a circle on the lower
half of a square, a house the upper half of a diamond on it. So the cells of a held-out object, a large red arch, occur
in training in other large objects of its colour, and no half says which one is below it.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np

from models.pixels import Integers
from sample.scenes.captions import COLOURS, RELATIONS, Caption, Fact, Object, fact_of

CELL = 16  # px a side
QUADRANT, GAP = 2, 1  # cells
SCENE = 2 * QUADRANT + GAP  # cells a side
SCENE_PX = SCENE * CELL
BACKGROUND = (255, 255, 255)
WIDTHS = {"small": 1, "large": 2}  # cells
HALVES = {  # of each shape: the upper and the lower one
    "square": ("whole", "whole"),
    "circle": ("round", "round"),
    "diamond": ("pointed", "pointed"),
    "arch": ("round", "whole"),
    "house": ("pointed", "whole"),
    "cup": ("whole", "round"),
    "drop": ("pointed", "round"),
    "shield": ("whole", "pointed"),
    "cone": ("round", "pointed"),
}
SAMPLES = 8  # a side of each pixel, for smooth edges


class Box(NamedTuple):
    """A rectangle in a scene: in cells where an object is placed, in px where it is found."""

    top: int
    left: int
    height: int
    width: int


class Scene(NamedTuple):
    """A caption, and where each of its objects lies."""

    caption: Caption
    boxes: tuple[Box, ...]

    @property
    def facts(self) -> list[Fact]:
        """Everything that is true of the objects' places, whether the caption names it or not."""
        named = list(zip(self.caption.objects, self.boxes, strict=True))
        return [
            fact_of(first.kind, relation, second.kind)
            for (first, box), (second, other) in itertools.permutations(named, 2)
            for relation in ("above", "left of")
            if holds(relation, box, other)
        ]


def holds(relation: str, box: Box, other: Box) -> bool:
    """Whether a box is in this relation to another: entirely above it, entirely left of it, or the reverse."""
    if relation in ("below", "right of"):
        return holds({"below": "above", "right of": "left of"}[relation], other, box)
    if RELATIONS[relation] == "vertical":
        return box.top + box.height <= other.top
    return box.left + box.width <= other.left


def random_scene(caption: Caption, integers: Integers) -> Scene:
    """Places the objects at random such that the caption is true."""
    quadrants = _quadrants(caption.relations, integers)
    boxes = zip(caption.objects, quadrants, strict=True)
    return Scene(caption, tuple(_place(thing, *quadrant, integers) for thing, quadrant in boxes))


def _quadrants(relations: tuple[str, ...], integers: Integers) -> list[tuple[int, int]]:
    """A (row, column) for each object: that of the first at random, on the side that the relations ask for. The others
    lie beside it, or diagonally where two would share a quadrant."""
    row, column = integers(0, 2), integers(0, 2)
    for relation in relations:
        row = {"above": 0, "below": 1}.get(relation, row)
        column = {"left of": 0, "right of": 1}.get(relation, column)
    beside = [(1 - row, column) if RELATIONS[name] == "vertical" else (row, 1 - column) for name in relations]
    if len(set(beside)) < len(beside):
        beside[integers(0, 2)] = (1 - row, 1 - column)
    return [(row, column), *beside]


def _place(thing: Object, row: int, column: int, integers: Integers) -> Box:
    return place_object(thing, row * (QUADRANT + GAP), column * (QUADRANT + GAP), integers)


def place_object(thing: Object, top: int, left: int, integers: Integers) -> Box:
    """Places an object at random in the quadrant that begins at this cell."""
    width = WIDTHS[thing.size]
    down, right = (integers(0, QUADRANT - width + 1) for _ in range(2))
    return Box(top + down, left + right, width, width)


def render(scene: Scene) -> np.ndarray:
    """The scene as uint8 [80, 80, 3]."""
    return render_objects(list(zip(scene.caption.objects, scene.boxes, strict=True)), SCENE)


def render_objects(objects: list[tuple[Object, Box]], cells: int) -> np.ndarray:
    """Objects on an empty square of so many cells a side, uint8 [side, side, 3]."""
    image_HWC = np.full((cells * CELL, cells * CELL, 3), BACKGROUND, np.float64)
    for thing, box in objects:
        top, left, height, width = (CELL * length for length in box)
        view_HWC = image_HWC[top : top + height, left : left + width]
        view_HWC += coverage(thing.shape, width)[:, :, None] * (np.array(COLOURS[thing.colour]) - view_HWC)
    return np.rint(image_HWC).astype(np.uint8)


@functools.cache
def coverage(shape: str, width: int) -> np.ndarray:
    """The share of each pixel that a shape covers in its box of this width in px, float64 [width, width]."""
    along = (np.arange(width * SAMPLES) + 0.5) / SAMPLES / width * 2 - 1
    inside = _inside(shape, along[:, None], along[None, :])
    return inside.reshape(width, SAMPLES, width, SAMPLES).mean(axis=(1, 3))


def _inside(shape: str, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Whether a shape whose box spans -1 to 1 holds the points (y, x); y grows downwards."""
    halves = {"whole": np.ones_like(y * x, bool), "round": y**2 + x**2 < 1, "pointed": abs(y) + abs(x) < 1}
    upper, lower = HALVES[shape]
    return np.where(y < 0, halves[upper], halves[lower])
