"""Trains the dVAE on tar files of images: `pairmill train-dvae --images 'shards/*.tar' --steps 5000 --output DIR`.

Loss and schedules are those of the paper (section 2.1, appendix A.2), scaled down with the number of steps, or with
`--method quantised` those of models.training.vector_quantised, for runs too short for the paper's. The images, crops
and noise of a step follow from the seed and the number of the step, so a resumed run ends with the weights of an
uninterrupted one. On several GPUs or machines:
`torchrun --nproc-per-node=8 --no-python pairmill train-dvae ...`.

DIR receives `dvae.safetensors` (averaged weights), `checkpoint.pt` (to resume), `log.jsonl` and `pictures.png`
(held-out images above their reconstructions).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models import pixels
from models.errors import UserError, report_errors, system_fault
from models.files import (
    CHECKPOINT_FILE,
    DVAE_FILE,
    LOG_FILE,
    RECONSTRUCTIONS_FILE,
    output_folder,
    write_atomically,
)
from models.next_command import beside, print_output
from models.process_end import run_as_process
from models.progress import print_above
from models.tokenizers.dvae import (
    DVAE,
    kl_to_uniform,
    load_dvae,
    logit_laplace_nll,
    save_dvae,
    to_channels_last,
)
from models.training.checkpoint import (
    detach_from_file,
    read_state,
    refuse_existing,
    require_same_settings,
    write_state,
)
from models.training.distributed import World, average_gradients, distributed_world
from models.training.dvae_images import Member, batches, centre_view, list_images
from models.training.dvae_options import DVAETrainingConfig, TrainDVAECommand, parse_command
from models.training.dvae_reconstructions import reconstruction_grid, reconstruction_metrics
from models.training.log import StepProgress, append_json_line, start_log
from models.training.run_folder import TerminatedError, TerminationSignal, lock_folder, report_termination, terminated
from models.training.stability import SkippedUpdates, are_usable, diverged, is_finite
from models.training.vector_quantised import VectorQuantisedDVAE
from models.training.weight_average import kept_share

CODES_BATCHES = 24  # number of batches from whose latents the codebook starts
VALIDATION_IMAGES = 24  # most that are measured
GRID_IMAGES = 8


# --- one step --------------------------------------------------------------------------------------------------------


def losses(
    model: DVAE, x_BCHW: torch.Tensor, temperature: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(reconstruction, KL) of the relaxed bound, scalars in nats by value of an image (section 2.1), of images in 0..1,
    float [B, 3, H, W]."""
    y_BCHW = pixels.phi(x_BCHW)
    logits_BVhw = model.encoder(y_BCHW).float()
    uniform = torch.rand(logits_BVhw.shape, generator=generator, device=logits_BVhw.device).clamp_(1e-9, 1 - 1e-7)
    gumbel = -torch.log(-torch.log(uniform))
    relaxed_BVhw = F.softmax((logits_BVhw + gumbel) / temperature, dim=1)
    nll = logit_laplace_nll(y_BCHW, model.decoder(relaxed_BVhw)).mean()
    kl = kl_to_uniform(logits_BVhw).sum() / x_BCHW.numel()
    return nll, kl


# --- the run ---------------------------------------------------------------------------------------------------------


def train(
    images: str,
    model: DVAE,
    config: DVAETrainingConfig,
    output: Path,
    resume: bool,
    report_every: int = 200,
    world: World | None = None,
) -> None:
    """Trains to step `config.steps` and writes into `output`. Raises UserError for unusable input, TerminatedError if
    SIGTERM has stopped it."""
    world = world or World()
    with (
        output_folder(output),
        TerminationSignal() as termination,
        lock_folder(output) if world.is_main else contextlib.nullcontext(),
    ):
        _train(images, model, config, output, resume, report_every, world, termination)


def _train(
    images: str,
    model: DVAE,
    config: DVAETrainingConfig,
    output: Path,
    resume: bool,
    report_every: int,
    world: World,
    termination: TerminationSignal,
) -> None:
    if config.batch_size % world.size:
        raise UserError(f"--batch-size {config.batch_size}: give a multiple of {world.size}, the number of processes")
    members, held_out = list_images(images)
    if world.is_main:
        print(f"train-dvae: {len(members):,} images, {len(held_out):,} held out", flush=True)
    val_BCHW = _validation_images(held_out, world)
    state = DVAETrainState.create(to_channels_last(model.train(), world.device), config)
    first_step = _restore(output, state, config, resume)
    if world.is_main:
        start_log(output, first_step)
    steps = _Steps(
        config=config,
        world=world,
        output=output,
        members=members,
        val_BCHW=val_BCHW,
        state=state,
        report_every=report_every,
        termination=termination,
    )
    steps.run(first_step)
    if world.is_main:
        _print_output(images, output)


def _validation_images(held_out: list[Member], world: World) -> torch.Tensor | None:
    """The first readable ones of the images held out, on the rank's device; None if there are none."""
    views = [view for view in map(centre_view, held_out[:VALIDATION_IMAGES]) if view is not None]
    return pixels.to_tensor(np.stack(views), world.device) if views else None


def _print_output(images: str, output: Path) -> None:
    path, dataset = output / DVAE_FILE, beside(str(output), "dataset")
    print_output(
        "train-dvae", path, ["encode", "--images", images, "--image-tokenizer", f"dvae:{path}", "--output", dataset]
    )


@dataclasses.dataclass
class _Steps:
    """What the steps of a run share."""

    config: DVAETrainingConfig
    world: World
    output: Path
    members: list[Member]
    val_BCHW: torch.Tensor | None
    state: DVAETrainState
    report_every: int  # updates between checkpoints
    termination: TerminationSignal

    def run(self, first_step: int) -> None:
        """Goes on to the last step."""
        config, world = self.config, self.world
        found = batches(self.members, config.batch_plan, first_step, world.rank, world.size)
        with StepProgress("train-dvae", first_step, config.steps) as progress:
            for step, x_BCHW in enumerate(found, first_step):
                if step == config.codes_from:
                    self._start_codebook(step)
                terms, loss = self._update(step, x_BCHW.to(world.device))
                if world.is_main:
                    progress.report(step + 1, partial(_speed_text, loss, config.batch_size))
                self._finish(step, terms, loss)

    def _start_codebook(self, step: int) -> None:
        """Makes the codebook of quantised training from latents of the next batches."""
        learner, config = self.state.learner, self.config
        if not isinstance(learner, VectorQuantisedDVAE):
            return
        images = [x.to(self.world.device) for x in codebook_batches(batches(self.members, config.batch_plan, step))]
        kept = learner.init_codebook(images, config.seed)
        if self.world.is_main:
            print_above(f"train-dvae: the codebook starts; it keeps {kept:.1%} of the latents' variance")

    def _update(self, step: int, x_BCHW: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Update `step`, counted from 0, from this rank's images: returns the terms of the loss and their weighted sum.
        It changes nothing if a loss or gradient is not finite."""
        state, config, world = self.state, self.config, self.world
        learner = state.learner
        for group in state.optimiser.param_groups:
            group["lr"] = config.learning_rate_at(step)
        with torch.autocast(world.device.type, dtype=torch.bfloat16):
            if isinstance(learner, VectorQuantisedDVAE):
                terms, latents_NL, codes_N = learner.losses(x_BCHW)
                loss = torch.stack(list(terms.values())).sum()
            else:
                nll, kl = losses(learner, x_BCHW, config.temperature(step), self._noise_generator(step))
                terms = {"nll": nll, "kl": kl}
                loss = nll + config.kl_weight_at(step) * kl
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(learner.parameters(), world)
        mean_loss = (world.sum(loss.detach().clone()) / world.size).item()
        norm = _gradient_norm(learner)
        if not is_finite(mean_loss, norm):  # the same on all ranks
            state.skipped.skip(step + 1, mean_loss, norm, config.learning_rate, world)
            return terms, loss
        state.skipped.applied()
        state.optimiser.step()
        if isinstance(learner, VectorQuantisedDVAE) and codes_N is not None:
            learner.update_codebook(latents_NL, codes_N, config.dead_code_generator(step), world)
        state.average(step - config.codes_from if step >= config.codes_from else step, config.average)
        return terms, loss

    def _noise_generator(self, step: int) -> torch.Generator:
        """A generator for each step and rank."""
        world = self.world
        seed = ((self.config.seed << 32) + step) * world.size + world.rank
        return torch.Generator(world.device).manual_seed(seed % (1 << 64))

    def _finish(self, step: int, terms: dict[str, torch.Tensor], loss: torch.Tensor) -> None:
        """Reports and writes a checkpoint where this step is one for it. Raises UserError if the weights of the last
        step are not usable, and TerminatedError if the run stops here."""
        done = step + 1
        is_last = done == self.config.steps
        stops = self.world.any(self.termination.received) and not is_last
        if not (stops or is_last or done % self.report_every == 0):
            return
        is_good = _is_good(self.state, self.world)
        if stops:
            if is_good and self.world.is_main:
                _save(self.output, self.state, self.config, done)
            raise terminated(done, is_good)
        if is_last and not is_good:
            raise diverged(done, "the weights are not usable", self.config.learning_rate)
        if self.world.is_main:
            self._report(step, terms, loss, is_good)

    def _report(self, step: int, terms: dict[str, torch.Tensor], loss: torch.Tensor, is_good: bool) -> None:
        """Logs the step with measurements on the held-out images, and writes checkpoint, dVAE and grid."""
        done, dvae = step + 1, self.state.dvae() if is_good else None
        entry = self._log_entry(step, terms, loss)
        if self.val_BCHW is not None and dvae is not None:
            entry |= reconstruction_metrics(dvae, self.val_BCHW)
        print_above(_entry_text(entry))
        append_json_line(self.output / LOG_FILE, entry)
        if is_good:
            _save(self.output, self.state, self.config, done)
        else:
            print_above(f"step {done:,}  the weights may be damaged: no checkpoint")
        if dvae is not None:
            save_dvae(dvae, self.output / DVAE_FILE)
        if self.val_BCHW is not None and dvae is not None:
            write_atomically(self.output / RECONSTRUCTIONS_FILE, reconstruction_grid(dvae, self.val_BCHW[:GRID_IMAGES]))

    def _log_entry(self, step: int, terms: dict[str, torch.Tensor], loss: torch.Tensor) -> dict[str, Any]:
        config, skipped = self.config, self.state.skipped.total
        entry: dict[str, Any] = {"step": step + 1, "loss": round(loss.item(), 4)}
        entry |= {name: round(term.item(), 5) for name, term in terms.items()}
        entry |= {"temperature": round(config.temperature(step), 4)} if config.method == "relaxed" else {}
        entry["learning_rate"] = config.learning_rate_at(step)
        return entry | ({"skipped_updates": skipped} if skipped else {})


def _gradient_norm(learner: nn.Module) -> float:
    gradients = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients).item()


def _is_good(state: DVAETrainState, world: World) -> bool:
    """Whether the weights may replace those of the last checkpoint."""
    weights = itertools.chain(state.learner.parameters(), state.averaged.parameters(), state.averaged.buffers())
    return are_usable(weights, world) and not state.skipped.in_a_row


def _entry_text(entry: dict[str, Any]) -> str:
    values = (f"{name} {value:.4g}" for name, value in entry.items() if name != "step")
    return "  ".join([f"step {entry['step']:,}", *values])


def _speed_text(loss: torch.Tensor, batch_size: int, steps_s: float) -> str:
    return f"loss {loss.item():.4g}  {steps_s * batch_size:.1f} images/s"


@dataclasses.dataclass
class DVAETrainState:
    """The objects that updates change."""

    learner: DVAE | VectorQuantisedDVAE
    averaged: DVAE | VectorQuantisedDVAE
    optimiser: torch.optim.Optimizer
    skipped: SkippedUpdates = dataclasses.field(default_factory=SkippedUpdates)

    @classmethod
    def create(cls, model: DVAE, config: DVAETrainingConfig) -> DVAETrainState:
        """The state of a new run that starts from the model's weights."""
        learner = VectorQuantisedDVAE(model) if config.method == "quantised" else model
        optimiser = torch.optim.AdamW(
            learner.parameters(), lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4
        )
        return cls(learner, copy.deepcopy(learner).eval().requires_grad_(False), optimiser)

    def dvae(self) -> DVAE | None:
        """The dVAE of averaged weights; None before there is a codebook."""
        if isinstance(self.averaged, VectorQuantisedDVAE):
            return self.averaged.to_dvae() if self.averaged.has_codes else None
        return self.averaged

    @torch.no_grad()
    def average(self, updates: int, weight: float) -> None:
        """Updates the averaged weights, of which at most `weight` is kept: less at first, so that a short run's average
        does not retain its random start. Buffers are copied: a codebook holds averages already."""
        weight = kept_share(weight, updates + 1)
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.learner.parameters()), 1 - weight)
        for averaged, current in zip(self.averaged.buffers(), self.learner.buffers(), strict=True):
            averaged.copy_(current)

    def _parts(self) -> dict[str, Any]:
        return {"learner": self.learner, "averaged": self.averaged, "optimiser": self.optimiser}

    def state_dict(self) -> dict[str, Any]:
        """The states of learner, averaged weights and optimiser."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])


def codebook_batches(found: Generator[torch.Tensor, None, None]) -> list[torch.Tensor]:
    """The batches, float [B, 3, window, window], from whose latents the codebook starts, the same for all ranks."""
    taken = list(itertools.islice(found, CODES_BATCHES))
    found.close()
    return taken


def _save(output: Path, state: DVAETrainState, config: DVAETrainingConfig, step: int) -> None:
    saved = state.state_dict() | {
        "step": step,
        "skipped": dataclasses.asdict(state.skipped),
        "model_config": dataclasses.asdict(state.learner.config),
        "config": dataclasses.asdict(config),
    }
    write_state(output / CHECKPOINT_FILE, saved)


def _restore(output: Path, state: DVAETrainState, config: DVAETrainingConfig, resume: bool) -> int:
    """Loads DIR/checkpoint.pt if --resume was given; returns the first step to run."""
    path = output / CHECKPOINT_FILE
    if not resume:
        refuse_existing(path)
        return 0
    if not path.exists():
        return 0
    saved = read_state(path)
    if not {"model_config", "config", *state.state_dict()} <= saved.keys():
        raise UserError(f"--resume: {path} is not a checkpoint of train-dvae; choose another --output")
    require_same_settings(path, saved["model_config"], dataclasses.asdict(state.learner.config))
    require_same_settings(path, saved["config"], dataclasses.asdict(config))
    state.load_state_dict(saved)
    detach_from_file(state.optimiser)
    state.skipped.__dict__.update(saved.get("skipped", {}))  # older checkpoints have none
    return saved["step"]


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    command = parse_command(__doc__.split("\n")[0], arguments)
    torch.set_num_threads(command.threads)
    try:
        with distributed_world(command.device) as world:
            train(command.images, first_weights(command), command.config, command.output, command.resume, world=world)
    except OSError as error:
        place, message = error.filename or command.output, error.strerror or str(error)
        raise UserError(system_fault(error.errno, message, place) or f"{place}: {message}") from None
    except TerminatedError as error:
        return report_termination(error)
    return 0


def first_weights(command: TrainDVAECommand) -> DVAE:
    """A randomly initialised dVAE (appendix A.3), or that of --start-from. Raises UserError for an unreadable file."""
    if command.start_from is None:
        torch.manual_seed(command.config.seed)
        return DVAE(command.model)
    try:
        return load_dvae(command.start_from)
    except ValueError as error:
        raise UserError(f"--start-from: {error}") from None


if __name__ == "__main__":
    run_as_process(lambda: report_errors(main))
