"""The learning rate: a warm-up, then halved on a plateau as in the paper (appendix B.2), or a cosine."""

from __future__ import annotations

import dataclasses
import math

SCHEDULES = ("plateau", "cosine")
WARM_UP = 5_000  # updates, the paper's; a tenth of a shorter run
COSINE_END = 0.1  # of the peak
PATIENCE = 3  # validations without a better loss before the rate is halved; the paper does not say
MIN_GAIN = 1e-3  # nats that count as better
MAX_HALVINGS = 5  # the paper's


@dataclasses.dataclass
class Plateau:
    """What halving depends on; part of a checkpoint."""

    best: float = math.inf
    since: int = 0  # validations since the best one
    halvings: int = 0

    def update(self, loss: float) -> bool:
        """A validation's loss; True when the rate is halved by it."""
        if loss < self.best - MIN_GAIN:
            self.best, self.since = loss, 0
            return False
        self.since += 1
        if self.since < PATIENCE or self.halvings == MAX_HALVINGS:
            return False
        self.since, self.halvings = 0, self.halvings + 1
        return True


def learning_rate(step: int, steps: int, peak: float, schedule: str, halvings: int = 0) -> float:
    """For update `step`, counted from 0."""
    warm_up = min(WARM_UP, max(1, steps // 10))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    if schedule == "plateau":
        return peak * 0.5**halvings
    progress = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return peak * (COSINE_END + (1 - COSINE_END) * 0.5 * (1 + math.cos(math.pi * progress)))
