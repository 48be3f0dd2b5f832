"""Learning rates: a warm-up, then halving on a plateau as in the paper (appendix B.2), or a cosine."""

from __future__ import annotations

import dataclasses
import math

SCHEDULES = ("plateau", "cosine")
WARM_UP = 5_000  # updates, as in the paper; a tenth of a shorter run
COSINE_END = 0.1  # last rate as a share of the peak
PATIENCE = 3  # validations without a better loss before the rate is halved; not given in the paper
MIN_GAIN = 1e-3  # nats by which a loss must be better
MAX_HALVINGS = 5  # as in the paper


@dataclasses.dataclass
class Plateau:
    """The state that decides when the rate is halved; part of a checkpoint."""

    best: float = math.inf
    since: int = 0  # validations since the best one
    halvings: int = 0

    def update(self, loss: float) -> bool:
        """Takes a validation's loss, in nats; returns whether it halves the rate."""
        if loss < self.best - MIN_GAIN:
            self.best, self.since = loss, 0
            return False
        self.since += 1
        if self.since < PATIENCE or self.halvings == MAX_HALVINGS:
            return False
        self.since, self.halvings = 0, self.halvings + 1
        return True


def learning_rate(step: int, steps: int, peak: float, schedule: str, halvings: int = 0) -> float:
    """The rate of update `step`, counted from 0."""
    warm_up = min(WARM_UP, max(1, steps // 10))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    if schedule == "plateau":
        return peak * 0.5**halvings
    return peak * cosine(1, COSINE_END, step - warm_up, max(1, steps - warm_up))


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Falls or rises from `start` at step 0 to `end` at step `steps` and after."""
    progress = min(1.0, step / steps)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
