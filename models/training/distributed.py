"""Training in several processes: `torchrun --nproc-per-node N --no-python pairmill train ...` splits a batch among N.

DDP keeps the full model in each process and averages the gradients; FSDP2 also shards weights and optimiser state.
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
    """The rank of this process, the number of processes, and this process's device."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def distributed_world() -> Iterator[World]:
    """Joins the processes that torchrun started; without torchrun, yields a world of one process."""
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
    """Prepares the model for the ranks of `world`; FSDP replaces its parameters in place."""
    if world.size == 1:
        return model
    if sharding == "ddp":
        return DistributedDataParallel(model)  # buffers need no synchronisation: they are constants
    products = torch.bfloat16 if precision == "bfloat16" and world.device.type == "cuda" else None
    policy = MixedPrecisionPolicy(param_dtype=products, reduce_dtype=torch.float32 if products else None)
    for block in model.blocks:
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    return model


@contextlib.contextmanager
def no_gradient_sync(model: nn.Module, skip: bool) -> Iterator[None]:
    """Skips the exchange of gradients inside the context, as all parts of an update but the last one do."""
    if isinstance(model, DistributedDataParallel) and skip:
        with model.no_sync():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not skip)
    yield


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Averages gradients over all ranks in one message; equal shares of a batch give the gradient of the full batch."""
    if world.size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean = world.sum(torch.cat([gradient.flatten() for gradient in gradients])) / world.size
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The shard of a tensor on this rank."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, gathered on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
