"""What a process has one of, whichever of its threads asks first."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def per_process(function: Callable[..., T]) -> Callable[..., T]:
    """A function that is called once for each set of arguments. functools.cache alone would let two threads that ask at
    once have two results."""
    lock, cached = threading.Lock(), functools.cache(function)

    @functools.wraps(function)
    def once(*arguments) -> T:
        with lock:
            return cached(*arguments)

    return once
