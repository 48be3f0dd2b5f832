"""Writes the files of a run atomically, and checks that a resumed run has the same settings.

checkpoint.pt              the state to resume from, of the last validation; checkpoint-STEP.pt: earlier ones
checkpoint-STEP.shards/    its tensors, if FSDP shares them out: a file a rank and kind, of torch.distributed.checkpoint
model.safetensors          the weights that sampling needs, in 16 bits
averaged.safetensors       the running average of these weights
config.json                sizes, settings and the tokenizers' fingerprints
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from models.data.batch import Batch
from models.data.format import Manifest
from models.data.stream import Stream
from models.errors import UserError, WriteError
from models.files import (
    AVERAGED_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    write_atomically,
    written_atomically,
)
from models.sampling.checkpoint import CHECKPOINT_FORMAT, CHECKPOINT_VERSION
from models.tokenizers.info import require_same_tokenizer
from models.training.distributed import World
from models.training.schedule import Plateau, ScheduleStart
from models.training.shards import (
    folder_in,
    folder_name,
    gather_for_inference,
    load_shards,
    make_folder,
    model_tensors,
    save_shards,
    set_shared_tensors,
    shared_tensors,
)
from models.training.stability import LossScale, SkippedUpdates
from models.training.weight_average import WeightAverage
from models.transformer.model import TransformerConfig, inference_weights

Tensors = dict[str, torch.Tensor]
FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclasses.dataclass
class TrainState:
    """The objects that updates change, beside the position in the data."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: WeightAverage
    plateau: Plateau
    skipped: SkippedUpdates
    schedule: ScheduleStart
    scale: LossScale = dataclasses.field(default_factory=LossScale)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The folder of one run."""

    output: Path
    manifest: Manifest
    model_config: TransformerConfig
    training: dict[str, Any]  # the settings that decide the weights
    world: World
    keep: int = 2  # number of checkpoints to keep
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)  # of `training`, where older runs lack a setting

    @property
    def path(self) -> Path:
        """The file to resume from."""
        return self.output / CHECKPOINT_FILE

    def config(self) -> dict[str, Any]:
        """Sizes, settings and tokenizers: the contents of config.json but for the step."""
        return {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "model": dataclasses.asdict(self.model_config),
            "training": self.training,
            "image_tokenizer": self.manifest.image_tokenizer.to_json(),
            "text_tokenizer": dataclasses.asdict(self.manifest.text_tokenizer),
        }

    def save(self, run: TrainState, stream: Stream, after: Batch, step: int) -> None:
        """Writes the state after batch `after`, which was update number `step`. All ranks call it, rank 0 writes.

        Raises UserError if the disk is full or fails; the previous files are then intact.
        """
        try:
            tensors, weights, averaged = self._save_tensors(run, step)
            if self.world.is_main:
                config = self.config() | {"step": step}
                write_state(self.path, self._plain_state(run, stream, after) | config | tensors)
                self._export(weights, averaged, config)
        except (OSError, WriteError) as error:
            raise UserError(
                f"cannot write a checkpoint into {self.output}: {error.strerror}; the previous one is "
                "intact: free some space and continue with --resume"
            ) from None
        self.world.barrier()

    @staticmethod
    def _plain_state(run: TrainState, stream: Stream, after: Batch) -> dict[str, Any]:
        """The state beside the tensors of the model."""
        return {
            "plateau": dataclasses.asdict(run.plateau),
            "skipped": dataclasses.asdict(run.skipped),
            "schedule": dataclasses.asdict(run.schedule),
            "scale": dataclasses.asdict(run.scale),
            "stream": stream.state_dict(after),
            "random": torch.get_rng_state(),
        }

    def _save_tensors(self, run: TrainState, step: int) -> tuple[dict[str, Any], Tensors, Tensors]:
        """Returns the tensors of the state, and the weights and their average to sample from; the last two are of use
        on rank 0 alone. Shards are written by each rank, and the state only names their folder."""
        folder = self.output / folder_name(step)
        if isinstance(run.model, FSDPModule) and make_folder(folder, self.world):
            shared = shared_tensors(run.model, run.optimiser, run.average)
            save_shards(folder, shared, self.world)
            shards = {
                "folder": folder.name,
                "shapes": {name: list(tensor.shape) for name, tensor in shared.items()},
                "param_groups": get_optimizer_state_dict(run.model, run.optimiser)["param_groups"],
                "averages": run.average.count,
            }
            weights = gather_for_inference(model_tensors(run.model), self.world)
            return {"shards": shards}, weights, gather_for_inference(run.average.parameters, self.world)
        tensors: dict[str, Any] = {
            "weights": get_model_state_dict(run.model, options=FULL_STATE),
            "optimiser": get_optimizer_state_dict(run.model, run.optimiser, options=FULL_STATE),
            "average": run.average.state_dict(keep=self.world.is_main),
        }
        return tensors, tensors["weights"], tensors["average"]["parameters"]

    def _export(self, weights: dict, averaged: dict, config: dict) -> None:
        """Writes the files to sample from. config.json follows the weights: its step proves them complete."""
        for name, values in ((WEIGHTS_FILE, weights), (AVERAGED_FILE, averaged)):
            with written_atomically(self.output / name) as file:
                save_file(inference_weights(values), file.name)
        config = self._added_by_hand() | config
        write_atomically(self.output / CONFIG_FILE, json.dumps(config, indent=1, sort_keys=True) + "\n")
        if self.keep > 1:
            self._keep_as(self.output / f"checkpoint-{config['step']:08d}.pt")
            for old in sorted(self.output.glob("checkpoint-*.pt"))[: -self.keep]:
                old.unlink()
        self._remove_unused_shards(config["step"])

    def _remove_unused_shards(self, step: int) -> None:
        """Removes the folders of shards that neither checkpoint.pt, which is of this step, nor an earlier one names."""
        kept = {path.stem for path in self.output.glob("checkpoint-*.pt")} | {Path(folder_name(step)).stem}
        for folder in self.output.glob("checkpoint-*.shards"):
            if folder.stem not in kept:
                shutil.rmtree(folder)

    def _keep_as(self, path: Path) -> None:
        """Gives checkpoint.pt a second name, by a hard link if the file system has them."""
        path.unlink(missing_ok=True)
        try:
            os.link(self.path, path)
        except OSError:  # a file system without hard links
            with open(self.path, "rb") as source, written_atomically(path) as copy:
                shutil.copyfileobj(source, copy)

    def start(self) -> int:
        """Returns the first step of a new run, 0. Raises UserError if the folder holds a checkpoint."""
        refuse_existing(self.path)
        return 0

    def restore(self, run: TrainState, stream: Stream) -> int:
        """Loads the checkpoint, if one exists; returns the first step to run. The number of ranks and the sharding may
        have changed. Rank 0 alone reads the file and sends the others what they need.

        Raises UserError for a damaged checkpoint and for one of another run.
        """
        state = self._read() if self.world.is_main else {}
        tensors = {name: state.pop(name, {}) for name in ("weights", "optimiser", "average")}
        state = self.world.from_main(state)
        if not state:
            return 0
        if "shards" in state:
            self._restore_shards(run, state["shards"])
        else:
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.world.size > 1)
            set_model_state_dict(run.model, tensors["weights"], options=options)
            set_optimizer_state_dict(run.model, run.optimiser, tensors["optimiser"], options=options)
            detach_from_file(run.optimiser)
            run.average.load_state_dict(tensors["average"], self.world)
        run.plateau.__dict__.update(state["plateau"])
        run.skipped.__dict__.update(state.get("skipped", {}))  # older checkpoints have neither
        run.scale.__dict__.update(state.get("scale", {}))
        steps = state["training"]["steps"]
        run.schedule.__dict__.update(state.get("schedule", dataclasses.asdict(ScheduleStart.of(steps))))
        if steps != self.training["steps"]:
            run.schedule.change_length(state["step"], steps, state["training"]["schedule"])
        stream.load_state_dict(state["stream"])
        torch.set_rng_state(state["random"])
        if self.world.from_main(self._exported_step() != state["step"]):  # killed before the export
            weights = gather_for_inference(model_tensors(run.model), self.world)
            averaged = gather_for_inference(run.average.parameters, self.world)
            if self.world.is_main:
                self._export(weights, averaged, {name: state[name] for name in (*self.config(), "step")})
        return state["step"]

    def _restore_shards(self, run: TrainState, shards: dict[str, Any]) -> None:
        tensors = shared_tensors(run.model, run.optimiser, run.average)
        load_shards(folder_in(self.output, shards["folder"]), tensors, self.world)
        set_shared_tensors(run.model, run.optimiser, tensors, shards["param_groups"])
        run.average.count = shards["averages"]

    def _read(self) -> dict[str, Any]:
        """The checkpoint; {} if there is none."""
        if not self.path.exists():
            return {}
        state = read_state(self.path)
        self._refuse_other_run(state)
        return state

    def _added_by_hand(self) -> dict[str, Any]:
        """What a user has written into config.json for `generate` and `serve`: a resumed run keeps it."""
        with contextlib.suppress(OSError, ValueError, TypeError):  # there is none yet, or it is damaged
            config = json.loads((self.output / CONFIG_FILE).read_bytes())
            return {name: config[name] for name in ("sampling", "prompts") if name in config}
        return {}

    def _exported_step(self) -> int | None:
        """The step of the exported files; None if they are incomplete."""
        try:
            return json.loads((self.output / CONFIG_FILE).read_bytes())["step"]
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _refuse_other_run(self, state: dict) -> None:
        current = self.config()
        for name in ("format", "version"):
            if state.get(name) != current[name]:
                raise UserError(
                    f"--resume: {self.path} has {name} {state.get(name)}, expected {current[name]}; start a new run"
                )
        for name, what in (("image_tokenizer", "image tokenizer"), ("text_tokenizer", "text tokenizer")):
            require_same_tokenizer(
                current[name]["fingerprint"],
                state[name]["fingerprint"],
                f"--resume: {self.path} was trained on tokens of another {what}",
                "give the dataset it was trained on",
            )
        for name, defaults in (("model", defaults_of(TransformerConfig)), ("training", self.defaults)):
            # A run may be made longer.
            require_same_settings(self.path, defaults | state[name], current[name], except_for=("steps",))


def defaults_of(settings: type) -> dict[str, Any]:
    """The values of the fields of a dataclass that have a default."""
    fields = dataclasses.fields(settings)
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def read_state(path: Path, option: str = "--resume") -> dict[str, Any]:
    """Reads a checkpoint, plain data and tensors, which stay in the file until they are used. Raises UserError if it is
    damaged or holds something else."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        if not isinstance(state, dict):
            raise RuntimeError("it is not a checkpoint of a run")
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        older = sorted(path.parent.glob("checkpoint-*.pt"))
        fix = f"copy {older[-1].name} over it" if older else "start again in another folder"
        raise UserError(f"{option}: {path} is not readable ({reason}); {fix}") from None
    return state


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint that `read_state` reads, tensor by tensor. Raises WriteError where the system refuses it."""
    with written_atomically(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a write failed, and then PyTorch's own clean-up
                raise error.__context__ from None
            raise


def detach_from_file(optimiser: torch.optim.Optimizer) -> None:
    """Copies the tensors that still lie in the file of a checkpoint, which the next one replaces."""
    for values in optimiser.state.values():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, DTensor) and value.device.type == "cpu":
                values[name] = value.clone()


def refuse_existing(path: Path) -> None:
    """Raises UserError if a new run would overwrite the checkpoint of another one."""
    if path.exists():
        raise UserError(f"{path} exists; continue it with --resume or choose another --output")


def require_same_settings(
    path: Path, saved: dict[str, Any], current: dict[str, Any], except_for: Collection[str] = ()
) -> None:
    """Raises UserError that lists the settings in which a checkpoint differs from the current run."""
    changes = [
        f"{key} {saved.get(key)} -> {value}"
        for key, value in current.items()
        if saved.get(key) != value and key not in except_for
    ]
    if changes:
        raise UserError(f"--resume: {path} was made with other settings ({', '.join(changes)}); give the same ones")
