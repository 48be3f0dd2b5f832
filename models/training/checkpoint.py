"""Writes the files of a run atomically, and checks that a resumed run has the same settings.

checkpoint.pt              the state to resume from, of the last validation; checkpoint-STEP.pt: earlier ones
model.safetensors          the weights that sampling needs, in 16 bits
averaged.safetensors       the running average of these weights
config.json                sizes, settings and the tokenizers' fingerprints
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from models.data.batch import Batch
from models.data.format import Manifest
from models.data.stream import Stream
from models.errors import UserError
from models.files import write_atomically
from models.sampling.checkpoint import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, CONFIG_FILE
from models.tokenizers.info import require_same_tokenizer
from models.training.distributed import World
from models.training.schedule import Plateau
from models.training.weight_average import WeightAverage
from models.transformer.model import TransformerConfig, inference_weights

CHECKPOINT_FILE = "checkpoint.pt"  # of a training run: the state to resume from
FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclasses.dataclass
class TrainState:
    """The objects that updates change, beside the position in the data."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: WeightAverage
    plateau: Plateau


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The folder of one run."""

    output: Path
    manifest: Manifest
    model_config: TransformerConfig
    training: dict[str, Any]  # the settings that decide the weights
    world: World
    keep: int = 2  # number of checkpoints to keep

    @property
    def path(self) -> Path:
        """The file to resume from."""
        return self.output / CHECKPOINT_FILE

    def _config(self) -> dict[str, Any]:
        return {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "model": dataclasses.asdict(self.model_config),
            "training": self.training,
            "image_tokenizer": dataclasses.asdict(self.manifest.image_tokenizer),
            "text_tokenizer": dataclasses.asdict(self.manifest.text_tokenizer),
        }

    def save(self, run: TrainState, stream: Stream, after: Batch, step: int) -> None:
        """Writes the state after batch `after`, which was update number `step`. All ranks call it, rank 0 writes.

        Raises UserError if the disk is full or fails; the previous files are then intact.
        """
        weights = get_model_state_dict(run.model, options=FULL_STATE)
        optimiser = get_optimizer_state_dict(run.model, run.optimiser, options=FULL_STATE)
        average = run.average.state_dict()
        if self.world.is_main:
            config = self._config() | {"step": step}
            state = config | {
                "weights": weights,
                "optimiser": optimiser,
                "average": average,
                "plateau": dataclasses.asdict(run.plateau),
                "stream": stream.state_dict(after),
                "random": torch.get_rng_state(),
            }
            try:
                write_atomically(self.path, torch_bytes(state))
                self._export(weights, average["parameters"], config)
            except OSError as error:
                raise UserError(
                    f"cannot write a checkpoint into {self.output}: {error.strerror}; the previous one is "
                    "intact: free some space and continue with --resume"
                ) from None
        self.world.barrier()

    def _export(self, weights: dict, averaged: dict, config: dict) -> None:
        """Writes the files to sample from. config.json follows the weights: its step proves them complete."""
        for name, values in (("model", weights), ("averaged", averaged)):
            write_atomically(self.output / f"{name}.safetensors", save(inference_weights(values)))
        write_atomically(self.output / CONFIG_FILE, json.dumps(config, indent=1, sort_keys=True) + "\n")
        if self.keep > 1:
            self._keep_as(self.output / f"checkpoint-{config['step']:08d}.pt")
            for old in sorted(self.output.glob("checkpoint-*.pt"))[: -self.keep]:
                old.unlink()

    def _keep_as(self, path: Path) -> None:
        """Gives checkpoint.pt a second name, by a hard link if the file system has them."""
        path.unlink(missing_ok=True)
        try:
            os.link(self.path, path)
        except OSError:  # a file system without hard links
            write_atomically(path, self.path.read_bytes())

    def start(self) -> int:
        """Returns the first step of a new run, 0. Raises UserError if the folder holds a checkpoint."""
        refuse_existing(self.path)
        return 0

    def restore(self, run: TrainState, stream: Stream) -> int:
        """Loads the checkpoint, if one exists; returns the first step to run. The number of ranks and the sharding may
        have changed.

        Raises UserError for a damaged checkpoint and for one of another run.
        """
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            older = sorted(self.output.glob("checkpoint-*.pt"))
            fix = f"copy {older[-1].name} over it" if older else "start again in another folder"
            raise UserError(f"--resume: {self.path} is not readable ({reason}); {fix}") from None
        self._refuse_other_run(state)
        # Rank 0 sends the state to the others, which keep their shards.
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.world.size > 1)
        full_state = state if self.world.is_main else {"weights": {}, "optimiser": {}}
        set_model_state_dict(run.model, full_state["weights"], options=options)
        set_optimizer_state_dict(run.model, run.optimiser, full_state["optimiser"], options=options)
        run.average.load_state_dict(state["average"])
        run.plateau.__dict__.update(state["plateau"])
        stream.load_state_dict(state["stream"])
        torch.set_rng_state(state["random"])
        if self.world.is_main and self._exported_step() != state["step"]:  # killed before the export
            config = {name: state[name] for name in (*self._config(), "step")}
            self._export(state["weights"], state["average"]["parameters"], config)
        return state["step"]

    def _exported_step(self) -> int | None:
        """The step of the exported files; None if they are incomplete."""
        try:
            return json.loads((self.output / CONFIG_FILE).read_bytes())["step"]
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _refuse_other_run(self, state: dict) -> None:
        current = self._config()
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
        for name in ("model", "training"):
            # A run may be made longer.
            require_same_settings(self.path, state[name], current[name], except_for=("steps",))


def torch_bytes(state: dict[str, Any]) -> bytes:
    """The bytes of torch.save."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


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
