"""Training in several processes: `torchrun --nproc-per-node N --no-python pairmill train ...` splits a batch among N.

DDP keeps the full model in each process and averages the gradients; FSDP2 also shards weights and optimiser state.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from models.device import AUTO, check_device, device_of
from models.errors import UserError
from models.transformer.model import Transformer

SHARDINGS = ("ddp", "fsdp")
WAIT_FOR_MAIN = datetime.timedelta(days=7)  # rank 0 writes large checkpoints and draws; if it ends, torchrun ends all
ValueT = TypeVar("ValueT")


class World(NamedTuple):
    """The rank of this process, the number of processes, and this process's device."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    waiting: dist.ProcessGroup | None = None  # all ranks; an exchange in it may take WAIT_FOR_MAIN

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums a tensor, of one shape on all ranks, over them; in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, value: bool) -> bool:
        """Whether the value is true on any rank."""
        return bool(self.sum(torch.tensor(int(value), device=self.device)).item()) if self.size > 1 else value

    def from_main(self, value: ValueT) -> ValueT:
        """The value of rank 0 on every rank: plain data and small tensors."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Waits until all ranks are here, also for rank 0 while it writes or draws for longer than an exchange may
        take."""
        if self.size > 1:
            dist.barrier(group=self.waiting)


@contextlib.contextmanager
def distributed_world(device_name: str = AUTO) -> Iterator[World]:
    """Joins the processes that torchrun started, each on a GPU of its own; without torchrun, yields a world of one
    process. `device_name` is a value of --device. Raises UserError for a device that this machine lacks."""
    device = torch.device(device_of(device_name))
    if "WORLD_SIZE" not in os.environ:
        check_device(str(device))
        yield World(0, 1, device)
        return
    if device.index is not None:
        raise UserError(f"--device {device_name}: torchrun gives each process a GPU of its own; use --device cuda")
    check_device(str(device))
    if cuda := device.type == "cuda":
        if (rank := int(os.environ["LOCAL_RANK"])) >= (found := torch.cuda.device_count()):
            raise UserError(f"torchrun: more processes than the {found} GPUs here; give --nproc-per-node {found}")
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    waiting = dist.new_group(backend="gloo", timeout=WAIT_FOR_MAIN)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device, waiting)
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


def load_from_main(target: torch.Tensor, saved: torch.Tensor | None, world: World) -> None:
    """Fills a tensor, of which each rank may have a shard, from the full one of the same shape that rank 0 has."""
    if isinstance(target, DTensor):
        full = torch.empty(target.shape, dtype=target.dtype) if saved is None else saved
        full = full.to(target.device)
        target.to_local().copy_(distribute_tensor(full, target.device_mesh, target.placements).to_local())
        return
    if saved is not None:
        target.copy_(saved)
    if world.size > 1:
        dist.broadcast(target, 0)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, gathered on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
