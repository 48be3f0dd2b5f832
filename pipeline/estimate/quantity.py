"""Numbers with their uncertainty: a point estimate, and what it would have been with other samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DRAWS = 400
"""Bootstrap samples of a quantity."""
SEED = 20_261_129

Array = np.ndarray  # float64 [1 + DRAWS]: the estimate itself, then one for each bootstrap sample


class Range(NamedTuple):
    """An estimate and the range that holds it with 90 % probability, as far as the sample can tell."""

    value: float
    low: float
    high: float


def exactly(value: float) -> Array:
    return np.full(1 + DRAWS, float(value))


def range_of(quantity: Array) -> Range:
    low, high = np.quantile(quantity[1:], [0.05, 0.95])
    value = float(quantity[0])
    return Range(value, min(value, float(low)), max(value, float(high)))


def bootstrap(number: int, share: float, statistic: Callable[[np.ndarray], np.ndarray], seed: int) -> np.ndarray:
    """A statistic of `number` units that are `share` of all there are, and of DRAWS samples of them with replacement.

    `statistic` takes how often each unit counts, float64 [units], and returns float64 [K]; the result is
    [1 + DRAWS, K]. What was not left out is certain: deviations shrink to nothing as the share comes to 1.
    """
    rng = np.random.default_rng([SEED, seed])
    weights = rng.multinomial(number, np.full(number, 1 / number), DRAWS).astype(float) if number else np.empty((0, 0))
    value = statistic(np.ones(number))
    spread = np.array([statistic(draw) for draw in weights]) if number else np.tile(value, (DRAWS, 1))
    return np.vstack([value, value + (spread - value) * np.sqrt(max(0.0, 1 - share))])
