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

import argparse
import contextlib
import copy
import dataclasses
import itertools
import math
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models import pixels
from models.errors import UserError, system_fault
from models.files import write_atomically
from models.image_files import png
from models.next_command import beside, print_output
from models.progress import print_above
from models.sampling.checkpoint import available_processors
from models.tokenizers.dvae import (
    DVAE,
    DVAEConfig,
    kl_to_uniform,
    load_dvae,
    logit_laplace_nll,
    save_dvae,
    to_channels_last,
)
from models.training.checkpoint import (
    CHECKPOINT_FILE,
    detach_from_file,
    read_state,
    refuse_existing,
    require_same_settings,
    write_state,
)
from models.training.distributed import World, average_gradients, distributed_world, end_rank
from models.training.dvae_images import BatchPlan, batches, centre_view, list_images
from models.training.log import StepProgress, append_json_line
from models.training.run_folder import TerminatedError, TerminationSignal, lock_folder, report_termination, terminated
from models.training.schedule import cosine
from models.training.stability import SkippedUpdates, are_usable, diverged, is_finite
from models.training.vector_quantised import DEAD_CODE_INTERVAL, DEAD_CODE_UNTIL, VectorQuantisedDVAE
from models.training.weight_average import kept_share

TEMPERATURE = (1.0, 1 / 16)
LEARNING_RATE_RATIO = 1.25e-6 / 1e-4
METHODS = ("relaxed", "quantised")
WARM_UP = 50  # updates of quantised training in which the learning rate rises
MAX_CODES = 1 << 16  # the decoder sees the relaxed codes, a share of each in each place
WITHOUT_CODES = 0.2  # share of the updates of quantised training before the codebook exists
CODES_BATCHES = 24  # number of batches from whose latents the codebook starts


@dataclasses.dataclass(frozen=True)
class DVAETrainingConfig:
    """All settings that decide the resulting weights."""

    steps: int
    batch_size: int = 16
    window: int = 128  # px cropped from each 256-px view: small windows give more variety a second
    learning_rate: float = 5e-4
    kl_weight: float = 6.6
    average: float = 0.999
    seed: int = 0
    warm: bool = False  # from trained weights, with temperature and KL weight at the end of their schedules
    method: str = "relaxed"  # as the paper; or "quantised"

    @property
    def batch_plan(self) -> BatchPlan:
        """The settings that determine the batches."""
        return BatchPlan(self.batch_size, self.window, self.seed, self.steps)

    @property
    def codes_from(self) -> int:
        """The first update with a codebook."""
        return int(WITHOUT_CODES * self.steps) if self.method == "quantised" else 0

    def temperature(self, step: int) -> float:
        """From 1 to 1/16 by a cosine over 150,000 updates, or over the first quarter of a shorter run."""
        if self.warm:
            return TEMPERATURE[1]
        return cosine(*TEMPERATURE, step, min(150_000, max(1, self.steps // 4)))

    def kl_weight_at(self, step: int) -> float:
        """From 0 to the full weight by a cosine over 5,000 updates, or over the first quarter of a shorter run."""
        start = self.kl_weight if self.warm else 0.0
        return cosine(start, self.kl_weight, step, min(5_000, max(1, self.steps // 4)))

    def learning_rate_at(self, step: int) -> float:
        """Falls to 1/80 by a cosine over 1,200,000 updates, or over all updates of a shorter run."""
        rate = cosine(self.learning_rate, self.learning_rate * LEARNING_RATE_RATIO, step, min(1_200_000, self.steps))
        return rate * min(1.0, (step + 1) / WARM_UP) if self.method == "quantised" else rate

    def dead_code_generator(self, step: int) -> torch.Generator | None:
        """The generator that picks latents for unused codes after update `step`; None if it replaces none."""
        if step % DEAD_CODE_INTERVAL or step >= DEAD_CODE_UNTIL * self.steps:
            return None
        return torch.Generator().manual_seed((self.seed << 32) + step)


# --- one step, and measuring -----------------------------------------------------------------------------------------


def losses(
    model: DVAE, x_BCHW: torch.Tensor, temperature: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(reconstruction, KL) of the relaxed bound, scalars in nats by value of an image (section 2.1)."""
    y_BCHW = pixels.phi(x_BCHW)
    logits_BVhw = model.encoder(y_BCHW).float()
    uniform = torch.rand(logits_BVhw.shape, generator=generator, device=logits_BVhw.device).clamp_(1e-9, 1 - 1e-7)
    gumbel = -torch.log(-torch.log(uniform))
    relaxed_BVhw = F.softmax((logits_BVhw + gumbel) / temperature, dim=1)
    nll = logit_laplace_nll(y_BCHW, model.decoder(relaxed_BVhw)).mean()
    kl = kl_to_uniform(logits_BVhw).sum() / x_BCHW.numel()
    return nll, kl


@torch.no_grad()
def reconstruction_metrics(model: DVAE, x_BCHW: torch.Tensor) -> dict[str, float]:
    """Measures reconstructions from hard codes: PSNR in dB, the share of the vocabulary used, the perplexity of the
    codes, and the bound that training relaxes: reconstruction + KL to the prior, in nats by value of an image."""
    codes, errors, bounds = [], [], []
    for x in x_BCHW.split(4):
        logits = model.logits(x).float()
        hard = logits.argmax(dim=1)
        maps = model.decoder.from_codes(hard).float()
        image = pixels.phi_inverse(torch.sigmoid(maps[:, :3]))
        errors.append((image - x).square().mean(dim=(1, 2, 3)))
        bounds.append(
            logit_laplace_nll(pixels.phi(x), maps).mean(dim=(1, 2, 3))
            + kl_to_uniform(logits).sum(dim=(1, 2)) / x[0].numel()
        )
        codes.append(hard.flatten())
    frequency = torch.bincount(torch.cat(codes), minlength=model.config.vocabulary).float()
    frequency /= frequency.sum()
    entropy = -(frequency * torch.log(frequency.clamp_min(1e-12))).sum().item()
    return {
        "psnr_db": round((-10 * torch.log10(torch.cat(errors).clamp_min(1e-10))).mean().item(), 2),
        "bound": round(torch.cat(bounds).mean().item(), 4),
        "vocabulary_used": round((frequency > 0).float().mean().item(), 4),
        "perplexity": round(math.exp(entropy), 1),
    }


def reconstruction_grid(model: DVAE, x_BCHW: torch.Tensor) -> bytes:
    """A PNG with the images in the upper row and their reconstructions below."""
    with torch.no_grad():
        pairs = torch.cat([x_BCHW, model.decode(model.encode(x_BCHW))])
    rows = pixels.to_uint8(pairs).reshape(2, -1, *x_BCHW.shape[2:], 3)
    grid = rows.transpose(0, 2, 1, 3, 4).reshape(2 * x_BCHW.shape[2], -1, 3)
    return png(grid, {})


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
    output.mkdir(parents=True, exist_ok=True)
    world = world or World()
    with TerminationSignal() as termination, lock_folder(output) if world.is_main else contextlib.nullcontext():
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
    views = [view for view in map(centre_view, held_out[:24]) if view is not None]
    val_BCHW = pixels.to_tensor(np.stack(views), world.device) if views else None

    state = DVAETrainState.create(to_channels_last(model.train(), world.device), config)
    first_step = _restore(output, state, config, resume)
    learner = state.learner
    with StepProgress("train-dvae", first_step, config.steps) as progress:
        for step, x_BCHW in enumerate(
            batches(members, config.batch_plan, first_step, world.rank, world.size), first_step
        ):
            if isinstance(learner, VectorQuantisedDVAE) and step == config.codes_from:
                batch_images = [x.to(world.device) for x in codebook_batches(batches(members, config.batch_plan, step))]
                kept = learner.init_codebook(batch_images, config.seed)
                if world.is_main:
                    print_above(f"train-dvae: the codebook starts; it keeps {kept:.1%} of the latents' variance")
            x_BCHW = x_BCHW.to(world.device)
            for group in state.optimiser.param_groups:
                group["lr"] = config.learning_rate_at(step)
            # A generator for each step and rank.
            generator = torch.Generator(world.device).manual_seed(
                (((config.seed << 32) + step) * world.size + world.rank) % (1 << 64)
            )
            terms, loss = _update(state, x_BCHW, config, step, generator, world)
            done = step + 1
            if world.is_main:
                progress.report(done, partial(_speed_text, loss, config.batch_size))
            stops = world.any(termination.received) and done < config.steps
            if not (done % report_every == 0 or done == config.steps or stops):
                continue
            good = _is_good(state, world)
            if stops:
                if good and world.is_main:
                    _save(output, state, config, done)
                raise terminated(done, good)
            if done == config.steps and not good:
                raise diverged(done, "the weights are not usable", config.learning_rate)
            if world.is_main:
                entry = {"step": done, "loss": round(loss.item(), 4)}
                entry |= {name: round(term.item(), 5) for name, term in terms.items()}
                entry |= {"temperature": round(config.temperature(step), 4)} if config.method == "relaxed" else {}
                entry["learning_rate"] = config.learning_rate_at(step)
                entry |= {"skipped_updates": state.skipped.total} if state.skipped.total else {}
                dvae = state.dvae() if good else None
                if val_BCHW is not None and dvae is not None:
                    entry |= reconstruction_metrics(dvae, val_BCHW)
                print_above(_entry_text(entry))
                append_json_line(output / "log.jsonl", entry)
                if good:
                    _save(output, state, config, done)
                else:
                    print_above(f"step {done:,}  the weights may be damaged: no checkpoint")
                if dvae is not None:
                    save_dvae(dvae, output / "dvae.safetensors")
                if val_BCHW is not None and dvae is not None:
                    write_atomically(output / "pictures.png", reconstruction_grid(dvae, val_BCHW[:8]))
    if world.is_main:
        path = output / "dvae.safetensors"
        dataset = beside(str(output), "dataset")
        print_output(
            "train-dvae", path, ["encode", "--images", images, "--image-tokenizer", f"dvae:{path}", "--output", dataset]
        )


def _update(
    state: DVAETrainState,
    x_BCHW: torch.Tensor,
    config: DVAETrainingConfig,
    step: int,
    generator: torch.Generator,
    world: World,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Update `step`, counted from 0, from this rank's images: returns the terms of the loss and their weighted sum. It
    changes nothing if a loss or gradient is not finite."""
    learner = state.learner
    with torch.autocast(world.device.type, dtype=torch.bfloat16):
        if isinstance(learner, VectorQuantisedDVAE):
            terms, latents_NL, codes_N = learner.losses(x_BCHW)
            loss = torch.stack(list(terms.values())).sum()
        else:
            nll, kl = losses(learner, x_BCHW, config.temperature(step), generator)
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
    """The batches from whose latents the codebook starts, the same for all ranks."""
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill train-dvae", description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True, metavar="PATTERN", help="glob of tar files with images")
    parser.add_argument(
        "--steps", required=True, type=int, metavar="N", help="number of updates (the paper: 3,000,000)"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="continue from DIR/checkpoint.pt if it exists")
    parser.add_argument(
        "--batch-size", type=int, default=DVAETrainingConfig.batch_size, help="images an update (default: %(default)s)"
    )
    parser.add_argument(
        "--window",
        type=int,
        default=DVAETrainingConfig.window,
        help="px a side of the crop from each 256-px view, a multiple of 8 (default: %(default)s)",
    )
    parser.add_argument(
        "--hidden", type=int, default=32, help="width of the first group (default: %(default)s; the paper: 256)"
    )
    parser.add_argument(
        "--vocabulary", type=int, default=1024, help="number of codes (default: %(default)s; the paper: 8192)"
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=DVAETrainingConfig.learning_rate,
        help="at the start (default: %(default)s)",
    )
    parser.add_argument(
        "--kl-weight",
        type=float,
        default=DVAETrainingConfig.kl_weight,
        help="weight of the KL term at its full value (default: %(default)s)",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FILE",
        help="trained dVAE to start from, with its width and vocabulary; the temperature stays low",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="relaxed: the paper's relaxation, for long runs; quantised: vector quantisation, far better after "
        "some thousand updates, with a learning rate of 3e-3 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and noise (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=available_processors(), help="CPU threads (default: all available)"
    )
    args = parser.parse_args(arguments)
    if args.window % 8 or not 8 <= args.window <= 256:
        raise UserError(f"--window {args.window}: give a multiple of 8 from 8 to 256")
    if min(args.steps, args.batch_size, args.hidden // 4, args.vocabulary, args.threads) < 1:
        raise UserError("--steps, --batch-size, --vocabulary and --threads start at 1, --hidden at 4")
    if args.vocabulary > MAX_CODES:
        raise UserError(f"--vocabulary {args.vocabulary}: give at most {MAX_CODES:,} codes")
    if not (0 < args.learning_rate < math.inf and 0 <= args.kl_weight < math.inf and 0 <= args.seed < 1 << 31):
        raise UserError("--learning-rate is above 0, --kl-weight 0 or more, --seed 0 or more and below 2^31")
    if args.method == "quantised" and args.start_from:
        raise UserError(
            "--start-from: quantised training starts from random weights; leave it out, or use --method relaxed"
        )
    torch.set_num_threads(args.threads)
    config = DVAETrainingConfig(
        args.steps,
        args.batch_size,
        args.window,
        args.learning_rate,
        args.kl_weight,
        seed=args.seed,
        warm=args.start_from is not None,
        method=args.method,
    )
    try:
        with distributed_world() as world:
            train(args.images, first_weights(args), config, args.output, args.resume, world=world)
    except OSError as error:
        place, message = error.filename or args.output, error.strerror or str(error)
        raise UserError(system_fault(error.errno, message, place) or f"{place}: {message}") from None
    except TerminatedError as error:
        return report_termination(error)
    return end_rank()


def first_weights(args: argparse.Namespace) -> DVAE:
    """A randomly initialised dVAE (appendix A.3), or that of --start-from. Raises UserError for an unreadable file."""
    if args.start_from is None:
        torch.manual_seed(args.seed)
        return DVAE(DVAEConfig(args.hidden, args.vocabulary))
    try:
        return load_dvae(args.start_from)
    except ValueError as error:
        raise UserError(f"--start-from: {error}") from None


if __name__ == "__main__":
    raise SystemExit(main())
