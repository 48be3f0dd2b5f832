"""Processes that train together, as `torchrun` starts them; alone without it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.distributed as dist

from models.errors import UserError


class Ranks(NamedTuple):
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes files and prints."""
        return self.rank == 0

    def share_of(self, batch_size: int) -> int:
        """Of a global batch. Raises UserError if it can't be split evenly."""
        if batch_size % self.count:
            raise UserError(f"--batch-size {batch_size}: {self.count} processes can't share it evenly")
        return batch_size // self.count


ALONE = Ranks(0, 1, torch.device("cpu"))


def join(device: str) -> Ranks:
    """Joins the others if torchrun started this process: over NCCL on GPUs, one each, and over gloo on processors."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    place = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else "cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return Ranks(dist.get_rank() if count > 1 else 0, count, place)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[torch.nn.Parameter], ranks: Ranks) -> None:
    """The mean over all ranks, in one message: equal shares of a batch give the gradient of the whole."""
    if ranks.count == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= ranks.count
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
