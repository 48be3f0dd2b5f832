"""Bounds on scores that are computed where images are encoded: an image is decoded once for both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from apache_beam.utils.shared import Shared

from pipeline.images.fetched import FetchedImage
from pipeline.records import Rejected, Stage, reject
from pipeline.scores import scorer
from pipeline.scores.bounds import Bound, bound_settings, out_of_bounds
from pipeline.scores.scorer import PairScorer, ScoreConfig


@dataclasses.dataclass(frozen=True)
class ImageFilterConfig:
    """Which scores to compute, and their bounds."""

    scoring: ScoreConfig
    bounds: tuple[Bound, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return scorer.score_settings(self.scoring) | bound_settings(self.bounds)

    def for_other_machines(self, output: str) -> ImageFilterConfig:
        """The same for workers that get the files of models by the output's work folder."""
        return dataclasses.replace(self, scoring=scorer.stage_files(self.scoring, output))


class ImageFilter:
    """Scores images as `pairmill score` does, and rejects those out of bounds."""

    def __init__(self, config: ImageFilterConfig):
        self._scorer, self._config = PairScorer(config.scoring), config

    def filter(self, outcomes: Iterable[FetchedImage | Rejected]) -> Iterator[FetchedImage | Rejected]:
        """The images within bounds and the rejects of the others, in order; rejects pass through."""
        for scored in self._scorer.score_images(outcomes):
            if isinstance(scored, Rejected):
                yield scored
                continue
            image, pair = scored
            numbers = np.frombuffer(pair.values, "<f4").tolist()
            values = dict(zip(self._config.scoring.names, numbers, strict=True))
            rejection = out_of_bounds(self._config.bounds, values)
            yield reject(image.pair, Stage.ENCODE, *rejection) if rejection else image


Outcomes = Iterable[FetchedImage | Rejected]


class SharedFilter:
    """A filter, or none, for the steps of a job: its models are loaded once a process, however many threads it has."""

    def __init__(self, config: ImageFilterConfig | None):
        self._config, self._shared = config, Shared()

    def load(self) -> Callable[[Outcomes], Outcomes]:
        if not self._config:
            return _unchanged
        return self._shared.acquire(partial(ImageFilter, self._config)).filter


def _unchanged(outcomes: Outcomes) -> Outcomes:
    return outcomes
