"""Keeps NaN and infinity out of a run's weights: such an update is skipped, and many in a row end the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import torch

from models.errors import UserError
from models.progress import print_above
from models.training.distributed import World, local

MAX_SKIPPED_IN_A_ROW = 10
FIRST_LOSS_SCALE, MIN_LOSS_SCALE = 2.0**16, 2.0  # of float16
GROWTH_INTERVAL = 2_000  # updates
LARGEST_WEIGHT = torch.finfo(torch.float16).max  # files to sample or encode from hold 16-bit weights


@dataclasses.dataclass
class SkippedUpdates:
    """The updates that were not applied, because their loss or gradient was not finite; part of a checkpoint."""

    total: int = 0
    in_a_row: int = 0

    def applied(self) -> None:
        """Takes note of an update that was applied."""
        self.in_a_row = 0

    def skip(self, step: int, loss: float, gradient_norm: float, learning_rate: float, world: World) -> None:
        """Takes note of update `step`, which is not applied, and prints a line. Raises UserError if it is one of too
        many in a row."""
        self.total += 1
        self.in_a_row += 1
        if self.in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise diverged(step, f"{self.in_a_row} updates in a row had a loss or gradient of NaN", learning_rate)
        if world.is_main:
            print_above(
                f"step {step:,}  loss {loss:.4g}, gradient norm {gradient_norm:.4g}: update skipped "
                f"({self.total} in this run)"
            )


@dataclasses.dataclass
class LossScale:
    """The factor of a float16 loss, without which small gradients become 0; part of a checkpoint. It is halved after
    an overflow, whose update is not applied, and doubled after many updates without one. For other precisions it is
    always 1."""

    factor: float = 1.0
    updates: int = 0  # since it was changed

    @classmethod
    def of(cls, precision: str) -> LossScale:
        """That of a new run."""
        return cls(FIRST_LOSS_SCALE if precision == "float16" else 1.0)

    def remove_from(self, weights: Iterable[torch.Tensor]) -> None:
        """Divides the gradients by the factor."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if self.factor != 1:
            torch._foreach_div_(gradients, self.factor)

    def grow(self) -> None:
        """Takes note of an update that was applied."""
        if self.factor == 1:
            return
        self.updates += 1
        if self.updates == GROWTH_INTERVAL:
            self.factor, self.updates = self.factor * 2, 0

    def shrink(self) -> bool:
        """Takes note of an update that was not; returns whether an overflow may be the reason."""
        if self.factor <= MIN_LOSS_SCALE:
            return False
        self.factor, self.updates = self.factor / 2, 0
        return True


def diverged(step: int, what: str, learning_rate: float) -> UserError:
    """The error that ends a run whose weights have become useless; the last checkpoint has good ones."""
    return UserError(
        f"{what} at step {step}; the last checkpoint is from before: start again in another folder with a "
        f"--learning-rate below {learning_rate:g}"
    )


def is_finite(*values: float) -> bool:
    """Whether no value is NaN or infinite."""
    return all(map(math.isfinite, values))


@torch.no_grad()
def are_usable(weights: Iterable[torch.Tensor], world: World) -> bool:
    """Whether all weights, on all ranks, are finite and fit 16 bits."""
    largest = [local(weight).abs().max() for weight in weights if local(weight).numel()]
    unusable = sum(not value.item() <= LARGEST_WEIGHT for value in largest)
    return not world.sum(torch.tensor(unusable, device=world.device)).item()
