"""Averaged weights (appendix B.2): every 25 updates, average = 0.99 * average + 0.01 * weights.

The first averages weigh what there is: with n of them, at most n / (n + 9) is kept, so that a short run's average does
not remember how it began. After some 900 of them (22,500 updates) that is the paper's 0.99.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from models.training.distributed import full_tensor, local

UPDATE_INTERVAL, DECAY = 25, 0.99  # updates; share


class WeightAverage:
    """Of a model's parameters, by name; what FSDP shares out is averaged where it lies."""

    def __init__(self, model: nn.Module):
        self._model = model
        self._parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._count = 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update `step`, counted from 1."""
        if step % UPDATE_INTERVAL:
            return
        kept = min(DECAY, self._count / (self._count + 9))
        self._count += 1
        for name, parameter in self._model.named_parameters():
            local(self._parameters[name]).lerp_(local(parameter.detach()), 1 - kept)

    def state_dict(self) -> dict:
        """Whole tensors on the processor, in each process."""
        return {
            "count": self._count,
            "parameters": {name: full_tensor(value).cpu() for name, value in self._parameters.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        self._count = state["count"]
        for name, value in self._parameters.items():
            given = state["parameters"][name].to(value.device)
            if isinstance(value, DTensor):  # each process has read all of it, and keeps its share
                given = distribute_tensor(given, value.device_mesh, value.placements, src_data_rank=None)
            local(value).copy_(local(given))
