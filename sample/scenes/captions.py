"""What a scene shows, its caption, and the combinations that training never sees.

A caption names one to three objects, each by size, colour and shape. The first object is related to each of the others:
"a small red circle above a large blue square and left of a small green house".

Two sorts of combinations are held out. A held-out object is one such as a large red arch: training sees large red
circles, small red arches and large arches of other colours, but no large red arch. A held-out fact is one kind, a
colour with a shape, beside another on an axis, such as a blue circle on the left and a black square on the right:
training sees both, but never so, neither in a caption nor in an image.
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

from models.hashing import stable_hash
from models.pixels import Integers

COLOURS = {
    "red": (220, 30, 30),
    "yellow": (245, 215, 30),
    "green": (30, 150, 60),
    "cyan": (60, 200, 220),
    "blue": (40, 70, 200),
    "purple": (140, 50, 160),
    "black": (25, 25, 25),
}
SHAPES = ("square", "circle", "diamond", "arch", "house", "cup", "drop", "shield", "cone")
SIZES = ("small", "large")
RELATIONS = {"above": "vertical", "below": "vertical", "left of": "horizontal", "right of": "horizontal"}
REVERSED = ("below", "right of")  # the object named first is the lower or the right one

FACTS_PER_HELD_OUT = 10  # of so many facts one is held out


class Kind(NamedTuple):
    """A colour with a shape."""

    colour: str
    shape: str


class Object(NamedTuple):
    """An object as a caption names it."""

    size: str
    colour: str
    shape: str

    @property
    def kind(self) -> Kind:
        return Kind(self.colour, self.shape)

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape}"


HELD_OUT_OBJECTS = frozenset(
    {
        Object("large", "red", "arch"),
        Object("large", "cyan", "arch"),
        Object("large", "blue", "house"),
        Object("large", "yellow", "house"),
        Object("large", "green", "cup"),
        Object("large", "purple", "cup"),
    }
)


class Fact(NamedTuple):
    """A kind above another (axis "vertical"), or left of it ("horizontal")."""

    axis: str
    first: Kind
    second: Kind


class Caption(NamedTuple):
    """The objects of a scene, and how the first is related to each of the others."""

    objects: tuple[Object, ...]
    relations: tuple[str, ...] = ()

    def __str__(self) -> str:
        related = (f"{relation} {other}" for relation, other in zip(self.relations, self.objects[1:], strict=True))
        return f"{self.objects[0]} {' and '.join(related)}".strip()

    @property
    def facts(self) -> list[Fact]:
        """The relations that the caption names."""
        pairs = zip(self.relations, self.objects[1:], strict=True)
        return [fact_of(self.objects[0].kind, relation, other.kind) for relation, other in pairs]


_OBJECT = rf"a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_RELATION = rf"({'|'.join(RELATIONS)})"
_CAPTION = re.compile(rf"{_OBJECT}(?: {_RELATION} {_OBJECT}(?: and {_RELATION} {_OBJECT})?)?")


def parse_caption(text: str) -> Caption:
    """The caption of a text. Raises ValueError for a text that no caption has."""
    match = _CAPTION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a scene's caption, such as {str(EXAMPLE)!r}")
    objects = tuple(Object(*match.group(n, n + 1, n + 2)) for n in (1, 5, 9) if match[n])
    return Caption(objects, tuple(match[n] for n in (4, 8) if match[n]))


def fact_of(first: Kind, relation: str, second: Kind) -> Fact:
    """The fact that `first` is in this relation to `second`."""
    if relation in REVERSED:
        first, second = second, first
    return Fact(RELATIONS[relation], first, second)


def is_held_out(fact: Fact) -> bool:
    """Whether training never sees this fact, which a hash decides."""
    names = (fact.axis, *fact.first, *fact.second)
    return stable_hash("scenes", *names) % FACTS_PER_HELD_OUT == 0


def random_caption(objects: int, integers: Integers) -> Caption:
    """A random caption with so many objects, no two of one kind, that a scene can satisfy."""
    while True:
        found = tuple(random_object(integers) for _ in range(objects))
        relations = tuple(_choice(tuple(RELATIONS), integers) for _ in found[1:])
        opposed = {"above", "below"} == {*relations} or {"left of", "right of"} == {*relations}
        if len({thing.kind for thing in found}) == objects and not opposed:  # a scene has two rows and two columns
            return Caption(found, relations)


def random_object(integers: Integers) -> Object:
    """A random object, of any kind."""
    return Object(*(_choice(values, integers) for values in (SIZES, tuple(COLOURS), SHAPES)))


def all_objects() -> list[Object]:
    """Every object that there is."""
    return [Object(*names) for names in itertools.product(SIZES, COLOURS, SHAPES)]


def _choice(values: tuple[str, ...], integers: Integers) -> str:
    return values[integers(0, len(values))]


EXAMPLE = Caption(
    (Object("small", "red", "circle"), Object("large", "blue", "square"), Object("small", "green", "house")),
    ("above", "left of"),
)
