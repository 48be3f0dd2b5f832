"""Averaged weights (appendix B.2): every 25 updates, average = 0.99 * average + 0.01 * weights.

The n-th average keeps at most n / (n + 9) of the one before, so that a short run's average does not retain its random
start. After some 900 averages (22,500 updates) the share is the paper's 0.99.
"""

from __future__ import annotations

import torch
from torch import nn

from models.training.distributed import World, full_tensor, load_from_main, local

UPDATE_INTERVAL, DECAY = 25, 0.99  # updates; share kept


def kept_share(decay: float, count: int) -> float:
    """Share of an average that update number `count`, from 0, keeps."""
    return min(decay, count / (count + 9))


class WeightAverage:
    """The running average of a model's parameters, by name; each rank averages its own shards of FSDP's parameters."""

    def __init__(self, model: nn.Module):
        self._model = model
        self.parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.count = 0  # of updates

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after update `step`, counted from 1."""
        if step % UPDATE_INTERVAL:
            return
        kept = kept_share(DECAY, self.count)
        self.count += 1
        for name, parameter in self._model.named_parameters():
            local(self.parameters[name]).lerp_(local(parameter.detach()), 1 - kept)

    def state_dict(self, keep: bool = True) -> dict:
        """The full tensors on the CPU. All ranks call it, and those that do not `keep` them get none."""
        parameters = {}
        for name, value in self.parameters.items():
            full = full_tensor(value)
            if keep:
                parameters[name] = full.cpu()
        return {"count": self.count, "parameters": parameters}

    @torch.no_grad()
    def load_state_dict(self, state: dict, world: World) -> None:
        """Restores a state of `state_dict` that rank 0 has, of which each rank keeps its shards; the others give {}."""
        self.count = world.from_main(state.get("count", 0))
        for name, value in self.parameters.items():
            load_from_main(value, state["parameters"][name] if state else None, world)
