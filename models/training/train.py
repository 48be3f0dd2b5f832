"""Trains the paper's transformer: `pairmill train --dataset DIR --size 3m --steps 200 --batch-size 4 --output DIR`.

Optimiser, loss weights, clipping, warm-up, halving on a plateau and averaged weights are those of the paper (section
2.2, appendix B.2). A step's numbers follow from the settings and the number of the step. So a resumed run has the
losses of an uninterrupted one, and a run in several processes (`torchrun --nproc-per-node N --no-python pairmill train
...`) has those of one process, except for rounding.

DIR receives `checkpoint.pt` (to resume), `model.safetensors` and `averaged.safetensors` with `config.json` and
`text_tokenizer.json` (to sample from), `log.jsonl` (a line for each step and validation), and `pictures/` on request.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import math
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from models.data.batch import NO_TOKEN, Batch
from models.data.format import REBUILD_HINT, Manifest
from models.data.stream import Stream
from models.errors import UserError
from models.files import join, read, write_atomically
from models.hashing import stable_hash
from models.next_command import beside, print_output
from models.progress import print_above
from models.tokenizers.info import TEXT_TOKENIZER_FILE, require_same_tokenizer
from models.training.checkpoint import Checkpoint, TrainState
from models.training.distributed import SHARDINGS, World, distributed_world, full_tensor, no_gradient_sync, wrap_model
from models.training.log import Log, StepProgress, TrainingSpeed
from models.training.peak_flops import peak_flops
from models.training.prompt_grid import load_prompt_grid
from models.training.schedule import SCHEDULES, Plateau, learning_rate
from models.training.validation import Validation
from models.training.weight_average import WeightAverage
from models.transformer.model import IMAGE_WEIGHT, SIZES, TEXT_WEIGHT, Transformer, TransformerConfig
from models.transformer.model import training_flops as flops_of

MAX_GRADIENT_NORM = 4.0


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

    def learning_rate_at(self, step: int, halvings: int = 0) -> float:
        """The rate of update `step`, counted from 0, after so many halvings."""
        return learning_rate(step, self.steps, self.learning_rate, self.schedule, halvings)


class RunOptions(NamedTuple):
    """How a run is executed; the resulting weights differ only by rounding."""

    validate_every: int = 100  # updates between validations, which also write checkpoints
    keep: int = 2  # number of checkpoints
    accumulate: int = 1  # parts into which a rank's share of a batch is split
    sharding: str = "ddp"
    recompute: bool = False  # activations, instead of keeping them
    compile: bool = False  # by torch.compile
    workers: int = 0  # processes a rank that read batches
    prompts: Path | None = None  # file of prompts, one a line, sampled at each validation
    tensorboard: bool = False
    wandb: str | None = None  # project of Weights & Biases


DEFAULT_RUN = RunOptions()


def default_learning_rate(width: int) -> float:
    """The paper's 4.5e-4 for wide models, more for narrow ones, which then learn faster."""
    return max(4.5e-4, 1e-3 * 256 / width)


def default_precision() -> str:
    """bfloat16 if the hardware multiplies in it, which is twice as fast; elsewhere it is slower than float32."""
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    processor = torch.cpu.get_capabilities()
    return "bfloat16" if processor.get("avx512_bf16") or processor.get("amx_bf16") else "float32"


# --- the run ---------------------------------------------------------------------------------------------------------


def train(
    dataset: str | Path,
    size: str,
    config: TransformerTrainingConfig,
    output: Path,
    resume: bool = False,
    options: RunOptions = DEFAULT_RUN,
) -> None:
    """Trains to step `config.steps` and writes into `output`. Raises UserError for unusable input."""
    with distributed_world() as world:
        _train(dataset, size, config, output, resume, options, world)


def _train(
    dataset: str | Path,
    size: str,
    config: TransformerTrainingConfig,
    output: Path,
    resume: bool,
    options: RunOptions,
    world: World,
) -> None:
    if config.batch_size % (world.size * options.accumulate):
        raise UserError(
            f"--batch-size {config.batch_size}: give a multiple of {world.size * options.accumulate}, the "
            "number of processes times --accumulate"
        )
    stream = Stream(
        dataset,
        "train",
        config.batch_size,
        config.seed,
        config.text_length,
        rank=world.rank,
        ranks=world.size,
        bpe_dropout=config.bpe_dropout,
    )
    manifest = stream.manifest
    model_config = model_config_for(manifest, size, config.rotary, config.text_length)
    tokenizer_json = _read_text_tokenizer(dataset, manifest)
    validation = Validation.read(dataset, config.batch_size, world, config.text_length)
    prompt_grid = (
        load_prompt_grid(options.prompts, manifest, tokenizer_json) if options.prompts and world.is_main else None
    )

    torch.manual_seed(config.seed)
    plain = Transformer(model_config)
    plain.recompute = options.recompute
    flops, parameters = flops_of(plain), sum(parameter.numel() for parameter in plain.parameters())
    # The optimiser's groups do not depend on the sharding: wrap_model replaces parameters in place.
    model = wrap_model(plain.to(world.device), world, options.sharding, config.precision)
    if options.compile:
        model.compile()
    state = TrainState(model, make_optimiser(plain, config.learning_rate), WeightAverage(plain), Plateau())
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(output, manifest, model_config, dataclasses.asdict(config), world, options.keep)
    first_step = checkpoint.restore(state, stream) if resume else checkpoint.start()
    world.barrier()  # no rank writes before all have checked the folder
    log = None
    if world.is_main:
        write_atomically(output / TEXT_TOKENIZER_FILE, tokenizer_json)
        log = Log(output, first_step, options.tensorboard, options.wandb)
        _print_summary(stream, validation, model_config, parameters, config, world)
    if first_step == 0:
        _validate(state, validation, 0, config, log)
    if first_step >= config.steps:
        if world.is_main:
            print(f"train: {output} has {first_step:,} steps already; give more --steps to continue", flush=True)
        return

    tokens = model_config.text_length + model_config.codes
    speed = TrainingSpeed(
        config.batch_size, tokens, flops, peak_flops=world.size * peak_flops(world.device, config.precision)
    )
    batches = iter(stream.loader(options.workers))
    with StepProgress("train", first_step, config.steps) as progress:
        for step in range(first_step, config.steps):
            rate = config.learning_rate_at(step, state.plateau.halvings)
            batch = next(batches)
            values, gradient_norm = update(state, drop_captions(batch, config, step), rate, config, options, world)
            done = step + 1
            if not math.isfinite(values["total"]):
                raise UserError(
                    f"the loss is {values['total']} at step {done}: start again with a --learning-rate below "
                    f"{config.learning_rate:g}"
                )
            state.average.update(done)
            if log:
                log.step(done, values, rate, gradient_norm)
                progress.report(done, partial(speed.text, values))
            if done % options.validate_every == 0 or done == config.steps:
                losses = _validate(state, validation, done, config, log)
                if (
                    state.plateau.update(losses.get("total", values["total"]))
                    and config.schedule == "plateau"
                    and world.is_main
                ):
                    print_above(f"step {done:,}  no gain: learning rate halved")
                checkpoint.save(state, stream, batch, done)
                if log and prompt_grid:
                    log.image(done, prompt_grid.sample(output, done))
                world.barrier()
    if log:
        log.close()
        print_output(
            "train",
            output / "model.safetensors",
            ["generate", "--checkpoint", output, "--prompt", "a red cat", "--output", beside(str(output), "images")],
            ["serve", "--checkpoint", output],
        )


def update(
    state: TrainState, batch: Batch, rate: float, config: TransformerTrainingConfig, options: RunOptions, world: World
) -> tuple[dict[str, float], float]:
    """One step of the optimiser: returns the losses of all ranks in nats, and the gradient's norm before clipping."""
    text_tokens = int(world.sum((batch.text_BT != NO_TOKEN).sum().to(world.device)))
    codes = config.batch_size * batch.codes_BN.shape[1]
    sums = torch.zeros(3, device=world.device)
    state.optimiser.zero_grad(set_to_none=True)
    parts = list(zip(batch.text_BT.chunk(options.accumulate), batch.codes_BN.chunk(options.accumulate), strict=True))
    for number, (text_BT, codes_BN) in enumerate(parts, 1):
        with no_gradient_sync(state.model, number < len(parts)):
            with autocast(config.precision, world.device):
                token_losses = state.model(text_BT.to(world.device), codes_BN.to(world.device))
            losses = token_losses.losses(text_tokens, codes)
            (losses.total * world.size).backward()  # DDP and FSDP average over ranks, but the loss is a sum
        sums += torch.stack(losses).detach()
    norm = full_tensor(nn.utils.clip_grad_norm_(state.model.parameters(), MAX_GRADIENT_NORM))
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.optimiser.step()
    return dict(zip(losses._fields, world.sum(sums).tolist(), strict=True)), norm.item()


def drop_captions(batch: Batch, config: TransformerTrainingConfig, step: int) -> Batch:
    """Blanks the captions of a share of the pairs, chosen by seed, step and key."""
    if not config.blank_captions:
        return batch
    hashes = (stable_hash(f"blank/{config.seed}/{step}/{key}") for key in batch.keys)
    blank_B = torch.tensor([hash_64 >> 32 < config.blank_captions * 2**32 for hash_64 in hashes])
    return batch._replace(text_BT=batch.text_BT.masked_fill(blank_B[:, None], NO_TOKEN))


def model_config_for(
    manifest: Manifest, size: str, rotary: bool = False, text_length: int | None = None
) -> TransformerConfig:
    """The configuration of a named size for a dataset's tokenizers."""
    text, image = manifest.text_tokenizer, manifest.image_tokenizer
    return TransformerConfig.named(
        size,
        text.vocabulary,
        image.vocabulary,
        text_length=text_length or text.max_tokens,
        grid=image.grid,
        rotary=rotary,
    )


def make_optimiser(model: Transformer, learning_rate: float) -> torch.optim.AdamW:
    """The paper's AdamW, without decay of biases, gains and embeddings (appendix B.2)."""
    decayed = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    others = [p for p in model.parameters() if not any(p is weight for weight in decayed)]
    groups = [{"params": decayed, "weight_decay": 4.5e-2}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.96), eps=1e-8, fused=True)


def autocast(precision: str, device: torch.device | str = "cpu") -> contextlib.AbstractContextManager:
    """A context in which products are computed in `precision`."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _validate(
    state: TrainState, validation: Validation, step: int, config: TransformerTrainingConfig, log: Log | None
) -> dict[str, float]:
    with autocast(config.precision, validation.world.device):
        losses, by_source = validation.losses(state.model)
    if log:
        log.validation(step, losses, by_source)
    return losses


def _print_summary(
    stream: Stream,
    validation: Validation,
    model: TransformerConfig,
    parameters: int,
    config: TransformerTrainingConfig,
    world: World,
) -> None:
    uniform = (math.log(model.text_vocabulary), math.log(model.image_vocabulary))
    shared = f", {world.size} processes" if world.size > 1 else ""
    print(
        f"train: {stream.pairs:,} pairs, {validation.pairs:,} for validation; {parameters:,} parameters; "
        f"{config.precision}, {world.device.type}, {torch.get_num_threads()} threads{shared}",
        flush=True,
    )
    print(
        f"uniform guess: loss {TEXT_WEIGHT * uniform[0] + IMAGE_WEIGHT * uniform[1]:.4f}  "
        f"text {uniform[0]:.4f}  image {uniform[1]:.4f}",
        flush=True,
    )


def _read_text_tokenizer(dataset: str | Path, manifest: Manifest) -> bytes:
    path = join(dataset, TEXT_TOKENIZER_FILE)
    try:
        text = read(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; {REBUILD_HINT}") from None
    require_same_tokenizer(
        hashlib.sha256(text).hexdigest(),
        manifest.text_tokenizer.fingerprint,
        f"{path} is not the tokenizer of the dataset's tokens",
        REBUILD_HINT,
    )
    return text


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill train", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--dataset", required=True, metavar="DIR", help="dataset made by `pairmill build`: folder or URL"
    )
    parser.add_argument(
        "--size", required=True, choices=SIZES, metavar="NAME", help=f"size of the model: {', '.join(SIZES)}"
    )
    parser.add_argument("--steps", required=True, type=int, metavar="N", help="number of updates (the paper: 430,000)")
    parser.add_argument("--batch-size", required=True, type=int, metavar="B", help="pairs an update (the paper: 1,024)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="continue from DIR/checkpoint.pt if it exists")
    weights = parser.add_argument_group("settings that decide the weights")
    weights.add_argument(
        "--learning-rate", type=float, help="peak of the learning rate (default: by width, 1e-3 to 4.5e-4)"
    )
    weights.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="plateau",
        help="learning rate after the warm-up: halved when validation stalls, or a cosine (default %(default)s)",
    )
    weights.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=default_precision(),
        help="precision of matrix products (default here: %(default)s)",
    )
    weights.add_argument(
        "--blank-captions",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of pairs trained without caption, for `generate --guidance` (default 0)",
    )
    weights.add_argument(
        "--bpe-dropout",
        type=float,
        default=0.0,
        metavar="P",
        help="probability of BPE dropout (default 0; the paper: 0.1)",
    )
    weights.add_argument(
        "--text-length",
        type=int,
        metavar="T",
        help="tokens to which captions are cut; fewer train faster (default: the dataset's length, 256)",
    )
    weights.add_argument("--rotary", action="store_true", help="add rotary positions to the learned ones")
    weights.add_argument("--seed", type=int, default=0, help="of weights and order (default 0)")
    how = parser.add_argument_group("settings of the run")
    how.add_argument(
        "--validate-every",
        type=int,
        metavar="N",
        help="updates between validations and checkpoints (default: a tenth of the run, at most 1000)",
    )
    how.add_argument(
        "--keep", type=int, default=2, metavar="N", help="number of checkpoints to keep (default %(default)s)"
    )
    how.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="compute an update in N parts, to save memory (default 1)",
    )
    how.add_argument(
        "--sharding",
        choices=SHARDINGS,
        default="ddp",
        help="under torchrun: the full model in each process, or sharded (default %(default)s)",
    )
    how.add_argument("--recompute", action="store_true", help="recompute activations: less memory, a third more work")
    how.add_argument(
        "--compile", action="store_true", help="use torch.compile: starts some minutes later, then runs faster on a GPU"
    )
    how.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read batches (default: 0)")
    how.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all)")
    how.add_argument("--prompts", type=Path, metavar="FILE", help="prompts, one a line, sampled at each validation")
    how.add_argument("--tensorboard", action="store_true", help="write DIR/tensorboard")
    how.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases")
    args = parser.parse_args(arguments)
    validate_every = args.validate_every if args.validate_every is not None else max(1, min(1000, args.steps // 10))
    rate = default_learning_rate(SIZES[args.size][2]) if args.learning_rate is None else args.learning_rate
    counts = args.steps, args.batch_size, args.threads, validate_every, args.keep, args.accumulate
    if min(counts) < 1 or args.workers < 0:
        raise UserError(
            "--steps, --batch-size, --threads, --validate-every, --keep and --accumulate start at 1, --workers at 0"
        )
    if args.text_length is not None and args.text_length < 1:
        raise UserError("--text-length starts at 1")
    if not 0 < rate < math.inf or not 0 <= args.seed < 1 << 63:
        raise UserError("--learning-rate is above 0, --seed 0 or more and below 2^63")
    if not (0 <= args.blank_captions < 1 and 0 <= args.bpe_dropout < 1):
        raise UserError("--blank-captions and --bpe-dropout are shares: from 0 to below 1")
    torch.set_num_threads(args.threads)
    config = TransformerTrainingConfig(
        args.steps,
        args.batch_size,
        rate,
        args.seed,
        args.precision,
        args.schedule,
        args.blank_captions,
        args.rotary,
        args.bpe_dropout,
        args.text_length,
    )
    options = RunOptions(
        validate_every,
        args.keep,
        args.accumulate,
        args.sharding,
        args.recompute,
        args.compile,
        args.workers,
        args.prompts,
        args.tensorboard,
        args.wandb,
    )
    try:
        train(args.dataset, args.size, config, args.output, args.resume, options)
    except OSError as error:
        raise UserError(f"--output {args.output}: {error.strerror}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
