"""What a run leaves in its folder, written whole or not at all, and the check that a resumed run is the same run.

checkpoint.pt              everything to go on, of the last validation; checkpoint-STEP.pt: the ones before
model.safetensors          what drawing needs of the weights, in 16 bits
averaged.safetensors       the same of their running average
config.json                sizes, settings and the tokenizers' fingerprints
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
from pathlib import Path

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
from models.training.distributed import World
from models.training.schedule import Plateau
from models.training.weight_average import WeightAverage
from models.transformer.model import TransformerConfig, inference_weights

CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "pairmill-transformer", 2
FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclasses.dataclass
class TrainState:
    """What changes while a run goes on, beside the place in the data."""

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
    training: dict  # the settings that decide the weights
    world: World
    keep: int = 2  # of checkpoint.pt and those before it

    @property
    def path(self) -> Path:
        return self.output / "checkpoint.pt"

    def _config(self) -> dict:
        return {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "model": dataclasses.asdict(self.model_config),
            "training": self.training,
            "image_tokenizer": dataclasses.asdict(self.manifest.image_tokenizer),
            "text_tokenizer": dataclasses.asdict(self.manifest.text_tokenizer),
        }

    def save(self, run: TrainState, stream: Stream, after: Batch, step: int) -> None:
        """All processes take part, the first one writes. Raises UserError when the disk refuses; the previous files
        are whole then."""
        weights = get_model_state_dict(run.model, options=FULL_STATE)
        optimiser = get_optimizer_state_dict(run.model, run.optimiser, options=FULL_STATE)
        average = run.average.state_dict()
        if self.world.is_main:
            config = self._config() | {"step": step}
            buffer = io.BytesIO()
            torch.save(
                config
                | {
                    "weights": weights,
                    "optimiser": optimiser,
                    "average": average,
                    "plateau": dataclasses.asdict(run.plateau),
                    "stream": stream.state_dict(after),
                    "random": torch.get_rng_state(),
                },
                buffer,
            )
            try:
                write_atomically(self.path, buffer.getvalue())
                self._export(weights, average["parameters"], config)
            except OSError as error:
                raise UserError(
                    f"cannot write a checkpoint into {self.output}: {error.strerror}; the previous one is "
                    "whole: make room and go on with --resume"
                ) from None
        self.world.barrier()

    def _export(self, weights: dict, averaged: dict, config: dict) -> None:
        """What is made of checkpoint.pt; config.json comes last but for the copies and says that the rest is there."""
        for name, values in (("model", weights), ("averaged", averaged)):
            write_atomically(self.output / f"{name}.safetensors", save(inference_weights(values)))
        write_atomically(self.output / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
        if self.keep > 1:
            self._keep_as(self.output / f"checkpoint-{config['step']:08d}.pt")
            for old in sorted(self.output.glob("checkpoint-*.pt"))[: -self.keep]:
                old.unlink()

    def _keep_as(self, path: Path) -> None:
        """checkpoint.pt under a second name, which takes no room until that is the next one."""
        path.unlink(missing_ok=True)
        try:
            os.link(self.path, path)
        except OSError:  # a file system without hard links
            write_atomically(path, self.path.read_bytes())

    def refuse_existing(self) -> int:
        if self.path.exists():
            raise UserError(f"{self.path} exists; continue it with --resume or choose another --output")
        return 0

    def restore(self, run: TrainState, stream: Stream) -> int:
        """Loads the checkpoint, if there is one; returns the first step to run. The number of processes, and what is
        shared out among them, may be another now."""
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            older = sorted(self.output.glob("checkpoint-*.pt"))
            mend = f"copy {older[-1].name} over it" if older else "start again elsewhere"
            raise UserError(f"--resume: {self.path} is not readable ({reason}); {mend}") from None
        self._refuse_other_run(state)
        # The first process sends what it has read to the others, which keep their share of it.
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.world.size > 1)
        mine = state if self.world.is_main else {"weights": {}, "optimiser": {}}
        set_model_state_dict(run.model, mine["weights"], options=options)
        set_optimizer_state_dict(run.model, run.optimiser, mine["optimiser"], options=options)
        run.average.load_state_dict(state["average"])
        run.plateau.__dict__.update(state["plateau"])
        stream.load_state_dict(state["stream"])
        torch.set_rng_state(state["random"])
        if self.world.is_main and self._exported_step() != state["step"]:  # stopped right after it was written
            config = {name: state[name] for name in (*self._config(), "step")}
            self._export(state["weights"], state["average"]["parameters"], config)
        return state["step"]

    def _exported_step(self) -> int | None:
        """The step of the files to draw from; None where they are not all there."""
        try:
            return json.loads((self.output / "config.json").read_bytes())["step"]
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _refuse_other_run(self, state: dict) -> None:
        mine = self._config()
        for name in ("format", "version"):
            if state.get(name) != mine[name]:
                raise UserError(f"--resume: {self.path} has {name} {state.get(name)}, not {mine[name]}")
        for name, what in (("image_tokenizer", "image tokenizer"), ("text_tokenizer", "text tokenizer")):
            theirs = state[name]["fingerprint"]
            if theirs != mine[name]["fingerprint"]:
                raise UserError(
                    f"--resume: {self.path} was trained on tokens of another {what} ({theirs[:12]}, the "
                    f"dataset has {mine[name]['fingerprint'][:12]}); give the dataset it was trained on"
                )
        for name in ("model", "training"):
            changes = [
                f"{key} {state[name].get(key)} -> {value}"
                for key, value in mine[name].items()
                if state[name].get(key) != value and key != "steps"
            ]  # a run may be made longer
            if changes:
                raise UserError(
                    f"--resume: {self.path} was made with other settings ({', '.join(changes)}); give the same ones"
                )
