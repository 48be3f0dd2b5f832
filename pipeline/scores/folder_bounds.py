"""Bounds on the scores of a folder, from what the command asks for to the filter that workers apply."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.scores.best import cutoff
from pipeline.scores.bounds import Bound, ScoreFilter, filter_settings
from pipeline.scores.lookup import write_lookup
from pipeline.scores.score_files import Scores


class FolderBounds(NamedTuple):
    """What the command asks for."""

    scores: Scores
    bounds: tuple[Bound, ...]
    best: tuple[str, float] | None  # the name of a score, and the share of all pairs that are kept by it

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest records of them."""
        return filter_settings(self.scores.sha256, self.bounds, self.best)

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that are compared, each once."""
        names = [*(bound.name for bound in self.bounds), *([self.best[0]] if self.best else [])]
        return tuple(dict.fromkeys(names))

    def prepare(self, output: str) -> ScoreFilter:
        """Finds the cutoff, and writes the scores that workers look up into the output's work folder."""
        best = cutoff(self.scores, *self.best) if self.best else None
        return ScoreFilter(write_lookup(self.scores, self.names, output), self.bounds, best)
