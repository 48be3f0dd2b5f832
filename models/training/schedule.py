"""Learning rates: a warm-up, then halving on a plateau as in the paper (appendix B.2), a cosine, or a constant rate
with a decay at the end (WSD)."""

from __future__ import annotations

import dataclasses
import math

SCHEDULES = ("plateau", "cosine", "wsd")
WARM_UP = 5_000  # updates, as in the paper; a tenth of a shorter run
LAST_SHARE = 0.1  # of the peak, at the end of a cosine or WSD
DECAY_SHARE = 0.2  # of the run, at its end: WSD's decay
PATIENCE = 3  # losses without a better one before the rate is halved; not given in the paper
MIN_GAIN = 1e-3  # nats by which a loss must be better
MAX_HALVINGS = 5  # as in the paper
MIN_UPDATES = 100  # whose training losses are averaged where there is no validation; fewer are mostly noise


def plateau_interval(steps: int, validated: bool) -> int:
    """Updates between two looks for a plateau: a tenth of the run, at most 1,000. It follows from the length of the run
    alone, so that the interval of validations and checkpoints does not decide the weights."""
    return min(1000, max(1 if validated else MIN_UPDATES, steps // 10))


@dataclasses.dataclass
class Plateau:
    """The state that decides when the rate is halved; part of a checkpoint."""

    best: float = math.inf
    since: int = 0  # losses since the best one
    halvings: int = 0
    sum: float = 0.0  # of the training losses since the last look, in nats
    count: int = 0

    def observe(self, loss: float) -> None:
        """Takes the training loss of an update, in nats."""
        self.sum, self.count = self.sum + loss, self.count + 1

    def take_mean(self) -> float:
        """The mean of the training losses since the last call, in nats; infinite if there was none."""
        mean = self.sum / self.count if self.count else math.inf
        self.sum, self.count = 0.0, 0
        return mean

    def update(self, loss: float) -> bool:
        """Takes a loss of the validation, or a mean of training losses, in nats; returns whether it halves the rate."""
        if loss < self.best - MIN_GAIN:
            self.best, self.since = loss, 0
            return False
        self.since += 1
        if self.since < PATIENCE or self.halvings == MAX_HALVINGS:
            return False
        self.since, self.halvings = 0, self.halvings + 1
        return True


@dataclasses.dataclass
class ScheduleStart:
    """Where the part of the schedule after the warm-up began; part of a checkpoint. A run that is made longer keeps its
    warm-up and goes on from the rate that it has reached."""

    warm_up: int  # updates
    step: int  # the first update after the warm-up, or the one at which the run got another length
    share: float = 1.0  # of the peak, at that update

    @classmethod
    def of(cls, steps: int, warm_up: int | None = None) -> ScheduleStart:
        """That of a new run of so many updates, of which `warm_up` are the warm-up's."""
        warm_up = min(WARM_UP, max(1, steps // 10)) if warm_up is None else warm_up
        return cls(warm_up, warm_up)

    def change_length(self, step: int, steps: int, schedule: str) -> None:
        """Takes note that a run of `steps` updates gets another length after update `step`."""
        if step > self.warm_up and schedule != "plateau":
            self.share, self.step = learning_rate(step, steps, 1.0, schedule, start=self), step


def learning_rate(
    step: int, steps: int, peak: float, schedule: str, halvings: int = 0, start: ScheduleStart | None = None
) -> float:
    """The rate of update `step`, counted from 0; `start` is that of a run that was made longer."""
    start = start or ScheduleStart.of(steps)
    if step < start.warm_up:
        return peak * (step + 1) / start.warm_up
    if schedule == "plateau":
        return peak * 0.5**halvings
    rest = max(1, steps - start.step)
    if schedule == "wsd":
        decay = max(1, min(rest, round(DECAY_SHARE * steps)))
        progress = min(1.0, max(0, step - (start.step + rest - decay)) / decay)
        return peak * (start.share * (1 - progress) + LAST_SHARE * progress)
    return peak * cosine(start.share, LAST_SHARE, step - start.step, rest)


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """Falls or rises from `start` at step 0 to `end` at step `steps` and after."""
    progress = min(1.0, step / steps)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
