"""The tensors of a run in files that each rank writes for itself: of a model that FSDP shares out, no rank holds all.

`torch.distributed.checkpoint` writes them as safetensors, which hold no code, into a folder that all ranks must see.
Any number of ranks reads them, however the model is shared out there. checkpoint.pt names the folder, and is written
when that is complete.
"""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from models.errors import UserError
from models.training.distributed import World, full_tensor
from models.training.weight_average import WeightAverage
from models.transformer.model import inference_weights

KINDS = ("weights", "optimiser", "average")  # first part of a tensor's name; a rank has a file of each
_FOLDER = re.compile(r"checkpoint-\d{8,}\.shards")


def folder_name(step: int) -> str:
    """The name of the folder of an update, in the folder of its run."""
    return f"checkpoint-{step:08d}.shards"


def folder_in(run: Path, name: object) -> Path:
    """The folder that a checkpoint names, in that of its run. Raises UserError for any other name."""
    if not isinstance(name, str) or not _FOLDER.fullmatch(name):
        raise UserError(f"{run}: its checkpoint names {name!r} as its shards; start a new run")
    return run / name


def make_folder(path: Path, world: World) -> bool:
    """Makes an empty folder; all ranks call it. Returns whether all of them see it: disks may differ."""
    if world.is_main:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    world.barrier()
    is_seen = not world.any(not path.is_dir())
    if world.is_main and not is_seen:
        path.rmdir()
    return is_seen


def save_shards(path: Path, tensors: Mapping[str, torch.Tensor], world: World) -> None:
    """Writes each rank's shards of tensors by name; all ranks call it. Raises the OSError of the first that failed."""
    files = {name: 1 + KINDS.index(name.partition("/")[0]) for name in tensors}
    writer = dcp.HuggingFaceStorageWriter(str(path), fqn_to_index_mapping=files, save_distributed=True)
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=world.waiting)
    except CheckpointException as failed:
        if world.is_main:  # what there is takes space
            shutil.rmtree(path, ignore_errors=True)
        errors = [error for error, _ in failed.failures.values()]
        raise next((error for error in errors if isinstance(error, OSError)), errors[0]) from None


class _Reader(dcp.HuggingFaceStorageReader):
    """Refuses a folder that lacks a part of a tensor: else that part would stay as it was."""

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor]):
        super().__init__(str(path))
        self._tensors = tensors

    def read_metadata(self) -> Metadata:
        metadata = super().read_metadata()
        for name, tensor in self._tensors.items():
            entry = metadata.state_dict_metadata.get(name)
            chunks = entry.chunks if isinstance(entry, TensorStorageMetadata) else []
            stored = sum(math.prod(chunk.sizes) for chunk in chunks)
            if stored != tensor.numel():
                raise ValueError(f"{stored:,} of {tensor.numel():,} numbers of {name} are there")
        return metadata


def load_shards(path: Path, tensors: dict[str, torch.Tensor], world: World, option: str = "--resume") -> None:
    """Fills tensors, of which each rank may have shards, by name; all ranks call it.

    Raises UserError for a folder that is damaged, incomplete, of another model or on another disk than this rank's.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is no mistake
            reader = _Reader(path, tensors)
            dcp.load(tensors, storage_reader=reader, process_group=world.waiting, no_dist=world.size == 1)
    except CheckpointException as failed:
        rank, (error, _) = min(failed.failures.items())
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{option}: {path} is not readable by rank {rank} ({reason}); all ranks need the complete folder"
        ) from None


def read_shards(path: Path, shapes: Mapping[str, Sequence[int]], kind: str, option: str) -> dict[str, torch.Tensor]:
    """The full tensors of one of KINDS, float32 on the CPU, by their names without it; `shapes` are those of all.
    Raises UserError as `load_shards`."""
    tensors = {name: torch.empty(*shape) for name, shape in shapes.items() if name.partition("/")[0] == kind}
    load_shards(path, tensors, World(), option)
    return {name.partition("/")[2]: tensor for name, tensor in tensors.items()}


# --- what is saved ---------------------------------------------------------------------------------------------------


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights by name, as they lie on this rank."""
    return cast(dict[str, torch.Tensor], get_model_state_dict(model))


def shared_tensors(
    model: nn.Module, optimiser: torch.optim.Optimizer, average: WeightAverage
) -> dict[str, torch.Tensor]:
    """The tensors of a run as they lie on this rank: KIND/NAME, or optimiser/PARAMETER/NAME."""
    # First: it shares out again what a validation has left whole, whose parameters the optimiser does not know.
    weights = model_tensors(model)
    states = cast(dict[str, dict[str, torch.Tensor]], get_optimizer_state_dict(model, optimiser)["state"])
    return {
        **{f"weights/{name}": value for name, value in weights.items()},
        **{f"average/{name}": value for name, value in average.parameters.items()},
        **{
            f"optimiser/{parameter}/{name}": value
            for parameter, state in states.items()
            for name, value in state.items()
        },
    }


def set_shared_tensors(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    groups: list[dict[str, Any]],
) -> None:
    """Gives model and optimiser what `load_shards` has filled; the average has it already."""
    states: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "weights":
            weights[rest] = value
        elif kind == "optimiser":
            parameter, _, field = rest.rpartition("/")
            states.setdefault(parameter, {})[field] = value
    set_model_state_dict(model, weights)
    set_optimizer_state_dict(model, optimiser, {"state": states, "param_groups": groups})


def gather_for_inference(tensors: Mapping[str, torch.Tensor], world: World) -> dict[str, torch.Tensor]:
    """The weights that sampling needs, in 16 bits on the CPU of rank 0, gathered one by one; all ranks call it, and the
    others get none."""
    gathered: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        full = full_tensor(value)
        if world.is_main:
            gathered |= {kept: weight.cpu() for kept, weight in inference_weights({name: full}).items()}
    return gathered
