"""Pairs by bounds on their scores, each with its own reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipeline.records import Reason
from pipeline.scores.best import Cutoff
from pipeline.scores.lookup import Lookup

REASONS: Mapping[str, Reason] = {
    "clip": Reason.LOW_SIMILARITY,
    "nsfw": Reason.UNSAFE,
    "watermark": Reason.WATERMARK,
    "redundancy": Reason.SEMANTIC_DUPLICATE,
    "text_edges": Reason.TEXT_IN_IMAGE,
}
"""Reasons by the names of scores; those of all others are LOW_QUALITY."""


class Bound(NamedTuple):
    """The smallest and the largest value of a score that is kept."""

    name: str
    low: float = -math.inf
    high: float = math.inf

    def fault_of(self, value: float) -> str:
        """Which bound a value breaks; "" if none."""
        if value < self.low:
            return f"below {self.low:g}"
        return f"above {self.high:g}" if value > self.high else ""


def out_of_bounds(bounds: Iterable[Bound], values: Mapping[str, float]) -> tuple[Reason, str] | None:
    """Why a pair with these scores is left out, with the value; None if it is kept. A pair that lacks a score that a
    bound names is left out."""
    for bound in bounds:
        value = values[bound.name]
        if fault := "missing" if math.isnan(value) else bound.fault_of(value):
            return _rejection(bound.name, value, fault)
    return None


@dataclasses.dataclass(frozen=True)
class ScoreFilter:
    """The bounds of a job, and the scores that they are compared with."""

    lookup: Lookup
    bounds: tuple[Bound, ...]
    best: Cutoff | None = None

    def rejection(self, key: str, values: Mapping[str, float]) -> tuple[Reason, str] | None:
        """Why the pair of a key with these scores is left out, as `out_of_bounds`, or for not being among the best."""
        if rejection := out_of_bounds(self.bounds, values):
            return rejection
        if self.best and not self.best.keeps(key, value := values[self.best.name]):
            return _rejection(self.best.name, value, "missing" if math.isnan(value) else self._rank())
        return None

    def _rank(self) -> str:
        assert self.best
        return f"not among the best {self.best.share:.4g} of all, which end at {self.best.value:.7g}"


def _rejection(name: str, value: float, fault: str) -> tuple[Reason, str]:
    detail = f"{name} {fault}" if math.isnan(value) else f"{name} {value:.7g}, {fault}"
    return REASONS.get(name, Reason.LOW_QUALITY), detail


def filter_settings(scores_sha256: str, bounds: tuple[Bound, ...], best: tuple[str, float] | None) -> dict[str, Any]:
    """What the manifest records of the filter."""
    return {"scores_sha256": scores_sha256, "keep_top": {best[0]: best[1]} if best else {}} | bound_settings(bounds)


def bound_settings(bounds: tuple[Bound, ...]) -> dict[str, Any]:
    return {
        "min": {bound.name: bound.low for bound in bounds if bound.low > -math.inf},
        "max": {bound.name: bound.high for bound in bounds if bound.high < math.inf},
    }
