"""One process or many: `torchrun --nproc-per-node N --no-python pairmill train ...` shares a batch among N of them.

DDP keeps the whole model in each process and sums the gradients; FSDP2 also shares out weights and optimiser state.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from models.transformer.model import Transformer

SHARDINGS = ("ddp", "fsdp")


class World(NamedTuple):
    """This process among all of a run."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Over all processes; in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def distributed_world() -> Iterator[World]:
    """The world that torchrun's environment describes; a world of one without it."""
    cuda = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ:
        yield World(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def wrap_model(model: Transformer, world: World, sharding: str, precision: str) -> nn.Module:
    """The model as the trainer calls it; its parameters are those to optimise."""
    if world.size == 1:
        return model
    if sharding == "ddp":
        return DistributedDataParallel(model)  # its only buffers are constants
    products = torch.bfloat16 if precision == "bfloat16" and world.device.type == "cuda" else None
    policy = MixedPrecisionPolicy(param_dtype=products, reduce_dtype=torch.float32 if products else None)
    for block in model.blocks:
        fully_shard(block, mp_policy=policy)
    return fully_shard(model, mp_policy=policy)


@contextlib.contextmanager
def no_gradient_sync(model: nn.Module, skip: bool) -> Iterator[None]:
    """Inside, gradients are not yet exchanged: of an update's parts, only the last one does that."""
    if isinstance(model, DistributedDataParallel) and skip:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not skip)
    yield


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """The mean over all processes, in one message: equal shares of a batch give the gradient of the whole."""
    if world.size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean = world.sum(torch.cat([gradient.flatten() for gradient in gradients])) / world.size
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of it, in each process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
