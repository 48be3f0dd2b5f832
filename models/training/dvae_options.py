"""The settings and the command line of the dVAE's trainer."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from models.command_line import CommandParser
from models.device import add_device_option, add_threads_option, available_processors
from models.errors import UserError
from models.tokenizers.dvae import DVAEConfig
from models.training.dvae_images import BatchPlan
from models.training.schedule import cosine
from models.training.vector_quantised import DEAD_CODE_INTERVAL, DEAD_CODE_UNTIL

TEMPERATURE = (1.0, 1 / 16)
LEARNING_RATE_RATIO = 1.25e-6 / 1e-4
METHODS = ("relaxed", "quantised")
WARM_UP = 50  # updates of quantised training in which the learning rate rises
MAX_CODES = 1 << 16  # the decoder sees the relaxed codes, a share of each in each place
MAX_HIDDEN = 1 << 12  # sixteen times that of the paper: far more than trains, and no overflow
WITHOUT_CODES = 0.2  # share of the updates of quantised training before the codebook exists


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


class TrainDVAECommand(NamedTuple):
    """A parsed command line of `pairmill train-dvae`."""

    images: str  # glob of tar files
    config: DVAETrainingConfig
    model: DVAEConfig  # of random weights
    start_from: Path | None  # file of the weights of the start; default: random ones
    output: Path
    resume: bool
    threads: int
    device: str  # as --device names it


def parse_command(description: str, arguments: Sequence[str] | None) -> TrainDVAECommand:
    """Parses the options of `pairmill train-dvae`. Raises UserError for numbers outside their ranges."""
    parser = CommandParser("train-dvae", description)
    _add_options(parser)
    args = parser.parse_args(arguments)
    _check(args)
    config = DVAETrainingConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        window=args.window,
        learning_rate=args.learning_rate,
        kl_weight=args.kl_weight,
        seed=args.seed,
        warm=args.start_from is not None,
        method=args.method,
    )
    return TrainDVAECommand(
        images=args.images,
        config=config,
        model=DVAEConfig(args.hidden, args.vocabulary),
        start_from=args.start_from,
        output=args.output,
        resume=args.resume,
        threads=args.threads,
        device=args.device,
    )


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for numbers outside their ranges, and for options that exclude each other."""
    if args.window % 8 or not 8 <= args.window <= 256:
        raise UserError(f"--window {args.window}: give a multiple of 8 from 8 to 256")
    if min(args.steps, args.batch_size, args.hidden // 4, args.vocabulary) < 1:
        raise UserError("--steps, --batch-size and --vocabulary start at 1, --hidden at 4")
    if args.hidden > MAX_HIDDEN:
        raise UserError(f"--hidden {args.hidden}: give at most {MAX_HIDDEN:,}")
    if args.vocabulary > MAX_CODES:
        raise UserError(f"--vocabulary {args.vocabulary}: give at most {MAX_CODES:,} codes")
    if not (0 < args.learning_rate < math.inf and 0 <= args.kl_weight < math.inf and 0 <= args.seed < 1 << 31):
        raise UserError("--learning-rate is above 0, --kl-weight 0 or more, --seed 0 or more and below 2^31")
    if args.method == "quantised" and args.start_from:
        raise UserError(
            "--start-from: quantised training starts from random weights; leave it out, or use --method relaxed"
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", required=True, metavar="PATTERN", help="glob of tar files with images")
    add("--steps", required=True, type=int, metavar="N", help="number of updates (the paper: 3,000,000)")
    add(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder that receives checkpoints, weights and the log",
    )
    add("--resume", action="store_true", help="continue from DIR/checkpoint.pt if it exists")
    add(
        "--batch-size",
        type=int,
        default=DVAETrainingConfig.batch_size,
        metavar="B",
        help="images in each update (default: %(default)s)",
    )
    add(
        "--window",
        type=int,
        default=DVAETrainingConfig.window,
        metavar="N",
        help="side of the square that is cut out of each image of 256 px, in px; a multiple of 8 (default: "
        "%(default)s)",
    )
    add(
        "--hidden",
        type=int,
        default=32,
        metavar="N",
        help="channels of the network's first group of layers (default: %(default)s; the paper: 256)",
    )
    add(
        "--vocabulary",
        type=int,
        default=1024,
        metavar="N",
        help="number of different codes (default: %(default)s; the paper: 8192)",
    )
    add(
        "--learning-rate",
        type=float,
        default=DVAETrainingConfig.learning_rate,
        metavar="R",
        help="learning rate at the start, from which it falls (default: %(default)s)",
    )
    add(
        "--kl-weight",
        type=float,
        default=DVAETrainingConfig.kl_weight,
        metavar="W",
        help="final weight of the KL term in the loss, to which it rises from 0 (default: %(default)s)",
    )
    add(
        "--start-from",
        type=Path,
        metavar="FILE",
        help="trained dVAE to start from, whose width and vocabulary replace --hidden and --vocabulary",
    )
    add(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="how codes are learned: by the paper's relaxation, for long runs, or by vector quantisation, far better "
        "after some thousand updates, with a learning rate of 3e-3 (default: %(default)s)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="seed of the first weights, the crops and the noise (default: %(default)s)",
    )
    add_device_option(parser, "the model")
    add_threads_option(parser, available_processors())
