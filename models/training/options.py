"""The settings and the command line of the transformer's trainer."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from models.command_line import CommandParser
from models.data.shard_cache import DEFAULT_CACHE_BYTES
from models.device import AUTO, add_device_option, add_threads_option, available_processors, device_of
from models.errors import UserError
from models.training.distributed import SHARDINGS
from models.training.schedule import SCHEDULES, ScheduleStart, learning_rate
from models.transformer.model import RECIPES, SIZES, TEXT_WEIGHT, Shape

# The paper's (appendix B.2).
BETA1, BETA2, DECAY = 0.9, 0.96, 4.5e-2  # of AdamW
MAX_GRADIENT_NORM = 4.0
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class TransformerTrainingConfig:
    """All settings that decide the resulting weights, beside the model's size and the dataset."""

    steps: int
    batch_size: int  # pairs an update, of all ranks together
    learning_rate: float  # at the peak
    seed: int = 0
    precision: str = "float32"
    schedule: str = "plateau"
    blank_captions: float = 0.0  # share of the pairs trained without caption, which guidance needs
    rotary: bool = False
    bpe_dropout: float = 0.0  # the paper: 0.1
    text_length: int | None = None  # tokens to which captions are cut; default: the dataset's (the paper: 256)
    init_from: str | None = None  # folder of the run whose weights are those of the start; default: random ones
    recipe: str = "paper"
    dropout: float = 0.0
    warm_up: int | None = None  # updates; default: 5,000, or a tenth of a shorter run
    clip: float = MAX_GRADIENT_NORM  # largest norm of the gradient
    text_weight: float = TEXT_WEIGHT  # of the total loss; the codes have the rest
    beta1: float = BETA1
    beta2: float = BETA2
    weight_decay: float = DECAY
    source_weights: tuple[tuple[str, float], ...] = ()  # how often an epoch contains a pair of a source; default: once
    lanes: int | None = None  # of the stream; default: 8, or one for each of more ranks

    def learning_rate_at(self, step: int, halvings: int = 0, start: ScheduleStart | None = None) -> float:
        """The rate of update `step`, counted from 0, after so many halvings; `start`: of a run made longer."""
        start = start or ScheduleStart.of(self.steps, self.warm_up)
        return learning_rate(step, self.steps, self.learning_rate, self.schedule, halvings, start)


class RunOptions(NamedTuple):
    """How a run is executed; the resulting weights differ only by rounding."""

    validate_every: int = 100  # updates between validations
    keep: int = 2  # number of checkpoints
    accumulate: int = 1  # parts into which a rank's share of a batch is split
    sharding: str = "ddp"
    recompute: bool = False  # activations, instead of keeping them
    compile: bool = False  # by torch.compile
    workers: int = 0  # processes a rank that read batches
    prompts: Path | None = None  # file of prompts, one a line, sampled at each checkpoint
    tensorboard: bool = False
    wandb: str | None = None  # project of Weights & Biases
    save_every: int | None = None  # updates between checkpoints; default: those between validations
    cache: Path | None = None  # folder for the shards of a dataset that is a URL
    cache_bytes: int = DEFAULT_CACHE_BYTES
    device: str = AUTO  # as --device names it


DEFAULT_RUN = RunOptions()


class TrainCommand(NamedTuple):
    """A parsed command line of `pairmill train`."""

    dataset: str
    size: Shape
    config: TransformerTrainingConfig
    output: Path
    resume: bool
    options: RunOptions
    threads: int


def default_learning_rate(width: int) -> float:
    """The paper's 4.5e-4 for wide models, more for narrow ones, which then learn faster."""
    return max(4.5e-4, 1e-3 * 256 / width)


def default_precision(device: str) -> str:
    """bfloat16 if the device multiplies in it, which is twice as fast; elsewhere it is slower than float32."""
    if torch.device(device).type == "cuda":
        if not torch.cuda.is_available():
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    processor = torch.cpu.get_capabilities()
    return "bfloat16" if processor.get("avx512_bf16") or processor.get("amx_bf16") else "float32"


def parse_command(description: str, arguments: Sequence[str] | None) -> TrainCommand:
    """Parses the options of `pairmill train`. Raises UserError for numbers outside their ranges."""
    parser = CommandParser("train", description)
    _add_run(parser)
    _add_model(parser.add_argument_group("the model"))
    _add_weights(parser.add_argument_group("settings that decide the weights"))
    _add_execution(parser.add_argument_group("settings of the run"))
    _add_data(parser.add_argument_group("reading the dataset"))
    args = parser.parse_args(arguments)
    size = _size(args)
    if args.learning_rate is None:
        args.learning_rate = default_learning_rate(size.width)
    if args.precision is None:
        args.precision = default_precision(device_of(args.device))
    if args.validate_every is None:
        args.validate_every = max(1, min(1000, args.steps // 10))
    args.source_weights = tuple(sorted(map(_source_weight, args.source_weight)))
    _check(args)
    args.cache_bytes = round(args.cache_gb * 1e9)
    config = {field.name: getattr(args, field.name) for field in dataclasses.fields(TransformerTrainingConfig)}
    options = RunOptions(**{name: getattr(args, name) for name in RunOptions._fields})
    return TrainCommand(
        dataset=args.dataset,
        size=size,
        config=TransformerTrainingConfig(**config),
        output=args.output,
        resume=args.resume,
        options=options,
        threads=args.threads,
    )


def _size(args: argparse.Namespace) -> Shape:
    named = SIZES[args.size] if args.size else (None, None, None)
    given = args.layers, args.heads, args.width
    layers, heads, width = (own if own is not None else other for own, other in zip(given, named, strict=True))
    if layers is None or heads is None or width is None:
        raise UserError("give --size, or all of --layers, --heads and --width")
    turns = args.rotary or args.recipe == "modern"
    if min(layers, heads, width) < 1 or width % (heads * (4 if turns else 1)):
        raise UserError(
            f"--layers {layers}, --heads {heads}, --width {width}: start at 1, and the width is a multiple of the "
            f"number of heads{', times 4 for rotary positions' if turns else ''}"
        )
    return Shape(layers, heads, width)


def _source_weight(text: str) -> tuple[str, float]:
    source, _, weight = text.partition("=")
    try:
        return source, float(weight)
    except ValueError:
        raise UserError(f"--source-weight {text}: give SOURCE=NUMBER, such as wit=2") from None


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for numbers outside their ranges."""
    counts = args.steps, args.batch_size, args.validate_every, args.keep, args.accumulate
    if min(counts) < 1 or args.workers < 0:
        raise UserError("--steps, --batch-size, --validate-every, --keep and --accumulate start at 1, --workers at 0")
    for name in ("text_length", "save_every", "lanes"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} starts at 1")
    if args.warm_up is not None and args.warm_up < 0:
        raise UserError("--warm-up starts at 0")
    if not 0 < args.learning_rate < math.inf or not 0 <= args.seed < 1 << 63:
        raise UserError("--learning-rate is above 0, --seed 0 or more and below 2^63")
    for name in ("blank_captions", "bpe_dropout", "dropout", "beta1", "beta2"):
        if not 0 <= getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give a number from 0 to below 1")
    if not 0 <= args.text_weight <= 1:
        raise UserError(f"--text-weight {args.text_weight}: give a share from 0 to 1")
    if not args.clip > 0 or not 0 <= args.weight_decay < math.inf or not 0 < args.cache_gb * 1e9 < math.inf:
        raise UserError("--clip and --cache-gb are above 0, --weight-decay is 0 or more")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", required=True, metavar="DIR", help="dataset made by `pairmill build`: folder or URL")
    add("--steps", required=True, type=int, metavar="N", help="number of updates (the paper: 430,000)")
    add("--batch-size", required=True, type=int, metavar="B", help="pairs in each update (the paper: 1,024)")
    add(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder that receives checkpoints, weights and the log",
    )
    add("--resume", action="store_true", help="continue from DIR/checkpoint.pt if it exists")


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--size", choices=SIZES, metavar="NAME", help=f"size of the model: {', '.join(SIZES)}")
    add("--layers", type=int, metavar="N", help="number of layers (default: that of --size)")
    add("--heads", type=int, metavar="N", help="attention heads of each layer (default: that of --size)")
    add("--width", type=int, metavar="N", help="width of the layers (default: that of --size)")
    add(
        "--recipe",
        choices=RECIPES,
        default="paper",
        help="the paper's network, or a modern one: RMSNorm, SwiGLU, normalised queries and keys, rotary positions "
        "alone, full attention, no biases (default: %(default)s)",
    )
    add("--rotary", action="store_true", help="add rotary positions to the paper's learned ones")
    add("--dropout", type=float, default=0.0, metavar="P", help="share of the layers' outputs to zero (default: 0)")
    add(
        "--text-length",
        type=int,
        metavar="T",
        help="tokens to which captions are cut; fewer train faster (default: the dataset's length, 256)",
    )


def _add_weights(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--learning-rate",
        type=float,
        metavar="R",
        help="peak of the learning rate (default: by width, 1e-3 to 4.5e-4)",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        default="plateau",
        help="learning rate after the warm-up: halved when validation stalls, a cosine, or constant with a decay over "
        "the last fifth (default: %(default)s)",
    )
    add(
        "--warm-up",
        type=int,
        metavar="N",
        help="updates in which the learning rate rises to its peak (default: 5,000, or a tenth of a shorter run)",
    )
    add("--beta1", type=float, default=BETA1, metavar="B", help="first decay of AdamW (default: %(default)s)")
    add("--beta2", type=float, default=BETA2, metavar="B", help="second decay of AdamW (default: %(default)s)")
    add(
        "--weight-decay",
        type=float,
        default=DECAY,
        metavar="W",
        help="weight decay of AdamW, applied to matrices alone (default: %(default)s)",
    )
    add(
        "--clip",
        type=float,
        default=MAX_GRADIENT_NORM,
        metavar="NORM",
        help="largest norm of the gradient, to which longer ones are scaled (default: %(default)s)",
    )
    add(
        "--text-weight",
        type=float,
        default=TEXT_WEIGHT,
        metavar="SHARE",
        help="weight of the text in the loss, from 0 to 1; the codes have the remainder (default: %(default)s)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        help="precision of matrix products; float16 scales the loss, for GPUs without bfloat16 (default: bfloat16 if "
        "the device multiplies in it, else float32)",
    )
    add(
        "--blank-captions",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the pairs to train without caption, which `generate --guidance` needs (default: 0)",
    )
    add(
        "--bpe-dropout",
        type=float,
        default=0.0,
        metavar="P",
        help="probability with which BPE skips a merge of tokens (default: 0; the paper: 0.1)",
    )
    add("--init-from", metavar="DIR", help="folder of another run, whose weights this one starts from")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="seed of the first weights and of the order of the pairs (default: %(default)s)",
    )


def _add_execution(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--validate-every",
        type=int,
        metavar="N",
        help="updates between validations (default: a tenth of the run, at most 1000)",
    )
    add("--save-every", type=int, metavar="N", help="updates between checkpoints (default: as between validations)")
    add("--keep", type=int, default=2, metavar="N", help="number of checkpoints to keep (default: %(default)s)")
    add(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="compute an update in N parts, to save memory (default: %(default)s)",
    )
    add(
        "--sharding",
        choices=SHARDINGS,
        default="ddp",
        help="keep the full model in each process of torchrun, or shard it among them (default: %(default)s)",
    )
    add("--recompute", action="store_true", help="recompute activations, which takes less memory and a third more work")
    add(
        "--compile",
        action="store_true",
        help="use torch.compile, which starts some minutes later and runs faster on a GPU",
    )
    add_device_option(group, "the model")
    add_threads_option(group, available_processors())
    add(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="file of prompts, one on each line, of which images are sampled at each checkpoint",
    )
    add("--tensorboard", action="store_true", help="log to TensorBoard as well, in the folder tensorboard of --output")
    add("--wandb", metavar="PROJECT", help="log to this project of Weights & Biases as well")


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that read batches; with 0, training itself reads them (default: %(default)s)",
    )
    add(
        "--source-weight",
        action="append",
        default=[],
        metavar="SOURCE=W",
        help="how often an epoch contains each pair of a source, such as wit=2; repeatable (default: once)",
    )
    add("--cache", type=Path, metavar="DIR", help="local folder for the shards of a dataset that is a URL")
    add(
        "--cache-gb",
        type=float,
        default=DEFAULT_CACHE_BYTES / 1e9,
        metavar="N",
        help="largest size of the folder of --cache, in GB (default: %(default)g)",
    )
    add(
        "--lanes",
        type=int,
        metavar="N",
        help="sequences of pairs that are shuffled apart and read side by side, the same for any number of processes "
        "(default: 8, or the number of processes if that is more)",
    )
