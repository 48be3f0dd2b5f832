"""What a test knows about a value and its type does not say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Value = TypeVar("Value")


def required(value: Value | None) -> Value:
    """The value, which is not None: a pipe that was asked for, a match, a member of a tar file."""
    assert value is not None
    return value


def instance(value: object, kind: type[Value]) -> Value:
    """The value, which is of this type: an image and no reject, a layer and no other module."""
    assert isinstance(value, kind), value
    return value


def instances(values: Iterable[object], kind: type[Value]) -> list[Value]:
    """The values, all of which are of this type."""
    return [instance(value, kind) for value in values]
