"""Trains the paper's transformer: `pairmill train --dataset DIR --size 3m --steps 200 --batch-size 4 --output DIR`.

Optimiser, loss weights, clipping, warm-up, halving on a plateau and averaged weights are those of the paper (section
2.2, appendix B.2). Every number that a step uses follows from the settings and the step's place, so a run that was
stopped and resumed has the losses of one that was not, and one shared by many processes (`torchrun --nproc-per-node N
--no-python pairmill train ...`) has, but for rounding, those of one process.

DIR receives `checkpoint.pt` (to resume), `model.safetensors` and `averaged.safetensors` with `config.json` and
`text_tokenizer.json` (to draw from), `log.jsonl` (one line a step, one a validation), and `pictures/` on request.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import math
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from models.data.batch import NO_TOKEN, Batch
from models.data.format import Manifest
from models.data.stream import Stream
from models.errors import UserError
from models.files import join, read, write_atomically
from models.training.checkpoint import Checkpoint, TrainState
from models.training.distributed import SHARDINGS, World, distributed_world, full_tensor, no_gradient_sync, wrap_model
from models.training.log import Log, Progress
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
    """Everything that decides the resulting weights, beside the model's size and the dataset."""

    steps: int
    batch_size: int  # pairs an update, of all processes together
    learning_rate: float  # at the peak
    seed: int = 0
    precision: str = "float32"
    schedule: str = "plateau"
    blank_captions: float = 0.0  # share of the pairs whose caption is hidden, so that drawing can be guided
    rotary: bool = False
    bpe_dropout: float = 0.0  # the paper: 0.1
    text_length: int | None = None  # tokens of a caption, cut there; by default the dataset's, the paper's 256

    def learning_rate_at(self, step: int, halvings: int = 0) -> float:
        return learning_rate(step, self.steps, self.learning_rate, self.schedule, halvings)


class RunOptions(NamedTuple):
    """How it is run; the weights that result are the same but for rounding."""

    validate_every: int = 100  # updates; as often a checkpoint is written
    keep: int = 2  # checkpoints
    accumulate: int = 1  # parts of a process's share of a batch, one after the other
    sharding: str = "ddp"
    recompute: bool = False
    compile: bool = False
    workers: int = 0  # processes that read, for each that trains
    prompts: Path | None = None  # a line each, drawn at every validation
    tensorboard: bool = False
    wandb: str | None = None  # project


DEFAULT_RUN = RunOptions()


def default_learning_rate(width: int) -> float:
    """The paper's 4.5e-4 for its widths; narrow models learn faster with more."""
    return max(4.5e-4, 1e-3 * 256 / width)


def default_precision() -> str:
    """bfloat16 where the hardware multiplies in it: twice as fast there, and slower than float32 elsewhere."""
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
    running: RunOptions = DEFAULT_RUN,
) -> None:
    """Runs to `config.steps`, writing into `output`. Raises UserError for unusable input."""
    with distributed_world() as world:
        _train(dataset, size, config, output, resume, running, world)


def _train(
    dataset: str | Path,
    size: str,
    config: TransformerTrainingConfig,
    output: Path,
    resume: bool,
    running: RunOptions,
    world: World,
) -> None:
    if config.batch_size % (world.size * running.accumulate):
        raise UserError(
            f"--batch-size {config.batch_size}: give a multiple of {world.size * running.accumulate}, the "
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
    show = load_prompt_grid(running.prompts, manifest, tokenizer_json) if running.prompts and world.is_main else None

    torch.manual_seed(config.seed)
    plain = Transformer(model_config)
    plain.recompute = running.recompute
    flops, parameters = flops_of(plain), sum(parameter.numel() for parameter in plain.parameters())
    # The same groups whether parameters are whole or shared out: spread() replaces them where they are.
    model = wrap_model(plain.to(world.device), world, running.sharding, config.precision)
    if running.compile:
        model.compile()
    run = TrainState(model, make_optimiser(plain, config.learning_rate), WeightAverage(plain), Plateau())
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(output, manifest, model_config, dataclasses.asdict(config), world, running.keep)
    first_step = checkpoint.restore(run, stream) if resume else checkpoint.refuse_existing()
    world.barrier()  # nobody writes before everybody has looked
    log = None
    if world.is_main:
        write_atomically(output / "text_tokenizer.json", tokenizer_json)
        log = Log(output, first_step, running.tensorboard, running.wandb)
        _print_summary(stream, validation, model_config, parameters, config, world)
    if first_step == 0:
        _validate(run, validation, 0, config, log)
    if first_step >= config.steps:
        if world.is_main:
            print(f"train: {output} has {first_step:,} steps already; give more --steps to go on", flush=True)
        return

    peak = world.size * peak_flops(world.device, config.precision)
    progress = Progress(
        first_step, config.steps, config.batch_size, model_config.text_length + model_config.codes, flops, peak
    )
    batches = iter(stream.loader(running.workers))
    for step in range(first_step, config.steps):
        rate = config.learning_rate_at(step, run.plateau.halvings)
        batch = next(batches)
        values, gradient_norm = update(run, drop_captions(batch, config, step), rate, config, running, world)
        done = step + 1
        if not math.isfinite(values["total"]):
            raise UserError(
                f"the loss is {values['total']} at step {done}: start again with a --learning-rate below "
                f"{config.learning_rate:g}"
            )
        run.average.update(done)
        if log:
            log.step(done, values, rate, gradient_norm)
            progress.report(done, values)
        if done % running.validate_every == 0 or done == config.steps:
            losses = _validate(run, validation, done, config, log)
            if (
                run.plateau.update(losses.get("total", values["total"]))
                and config.schedule == "plateau"
                and world.is_main
            ):
                print(f"step {done:,}  no gain: learning rate halved", flush=True)
            checkpoint.save(run, stream, batch, done)
            if show:
                log.image(done, show.draw(output, done))
            world.barrier()
    if log:
        log.close()
        print(f"train: wrote {output / 'model.safetensors'}", flush=True)


def update(
    run: TrainState, batch: Batch, rate: float, config: TransformerTrainingConfig, running: RunOptions, world: World
) -> tuple[dict[str, float], float]:
    """One step of the optimiser: the losses over all processes, and the gradient's norm before clipping."""
    text_tokens = int(world.sum((batch.text_BT != NO_TOKEN).sum().to(world.device)))
    codes = config.batch_size * batch.codes_BN.shape[1]
    sums = torch.zeros(3, device=world.device)
    run.optimiser.zero_grad(set_to_none=True)
    parts = list(zip(batch.text_BT.chunk(running.accumulate), batch.codes_BN.chunk(running.accumulate), strict=True))
    for number, (text_BT, codes_BN) in enumerate(parts, 1):
        with no_gradient_sync(run.model, number < len(parts)):
            with autocast(config.precision, world.device):
                token_losses = run.model(text_BT.to(world.device), codes_BN.to(world.device))
            losses = token_losses.losses(text_tokens, codes)
            (losses.total * world.size).backward()  # DDP and FSDP take the mean over processes, this wants the sum
        sums += torch.stack(losses).detach()
    norm = full_tensor(nn.utils.clip_grad_norm_(run.model.parameters(), MAX_GRADIENT_NORM))
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.step()
    return dict(zip(losses._fields, world.sum(sums).tolist(), strict=True)), norm.item()


def drop_captions(batch: Batch, config: TransformerTrainingConfig, step: int) -> Batch:
    """With the captions of some pairs blank; which ones follows from seed, step and key."""
    if not config.blank_captions:
        return batch
    digests = (hashlib.sha256(f"blank/{config.seed}/{step}/{key}".encode()).digest() for key in batch.keys)
    hidden_B = torch.tensor([int.from_bytes(digest[:4], "big") < config.blank_captions * 2**32 for digest in digests])
    return batch._replace(text_BT=batch.text_BT.masked_fill(hidden_B[:, None], NO_TOKEN))


def model_config_for(
    manifest: Manifest, size: str, rotary: bool = False, text_length: int | None = None
) -> TransformerConfig:
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
    """The paper's AdamW: no decay of biases, gains and embeddings."""
    decayed = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    others = [p for p in model.parameters() if not any(p is weight for weight in decayed)]
    groups = [{"params": decayed, "weight_decay": 4.5e-2}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.96), eps=1e-8, fused=True)


def autocast(precision: str, device: torch.device | str = "cpu") -> contextlib.AbstractContextManager:
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _validate(
    run: TrainState, validation: Validation, step: int, config: TransformerTrainingConfig, log: Log | None
) -> dict[str, float]:
    with autocast(config.precision, validation.world.device):
        losses, by_source = validation.losses(run.model)
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
    guess = (math.log(model.text_vocabulary), math.log(model.image_vocabulary))
    shared = f", {world.size} processes" if world.size > 1 else ""
    print(
        f"train: {stream.pairs:,} pairs, {validation.pairs:,} for validation; {parameters:,} parameters; "
        f"{config.precision}, {world.device.type}, {torch.get_num_threads()} threads{shared}",
        flush=True,
    )
    print(
        f"uniform guess: loss {TEXT_WEIGHT * guess[0] + IMAGE_WEIGHT * guess[1]:.4f}  "
        f"text {guess[0]:.4f}  image {guess[1]:.4f}",
        flush=True,
    )


def _read_text_tokenizer(dataset: str | Path, manifest: Manifest) -> bytes:
    path = join(dataset, "text_tokenizer.json")
    try:
        text = read(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; copy it again or build the dataset again") from None
    if hashlib.sha256(text).hexdigest() != manifest.text_tokenizer.fingerprint:
        raise UserError(f"{path} is not the tokenizer that made the tokens (its sha256 differs from the manifest's)")
    return text


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill train", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--dataset", required=True, metavar="DIR", help="a folder or URL, made by `pairmill build` or encode"
    )
    parser.add_argument("--size", required=True, choices=SIZES, metavar="NAME", help=", ".join(SIZES))
    parser.add_argument("--steps", required=True, type=int, metavar="N", help="updates to make (the paper: 430,000)")
    parser.add_argument("--batch-size", required=True, type=int, metavar="B", help="pairs an update (the paper: 1,024)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="continue from DIR/checkpoint.pt if it is there")
    weights = parser.add_argument_group("what decides the weights")
    weights.add_argument("--learning-rate", type=float, help="at the peak (default: by width, from 1e-3 to 4.5e-4)")
    weights.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default="plateau",
        help="after the warm-up: halved when validation stalls, or a cosine (default %(default)s)",
    )
    weights.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=default_precision(),
        help="of the products (here: %(default)s)",
    )
    weights.add_argument(
        "--blank-captions",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of pairs that are trained without caption, for `generate --guidance` (default 0)",
    )
    weights.add_argument("--bpe-dropout", type=float, default=0.0, metavar="P", help="(default 0; the paper: 0.1)")
    weights.add_argument(
        "--text-length",
        type=int,
        metavar="T",
        help="tokens of a caption, cut there; short ones train faster (default: the dataset's, 256)",
    )
    weights.add_argument("--rotary", action="store_true", help="rotary positions beside the learned ones")
    weights.add_argument("--seed", type=int, default=0)
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--validate-every",
        type=int,
        metavar="N",
        help="updates between validations and checkpoints (default: a tenth of the run, at most 1000)",
    )
    how.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints (default %(default)s)")
    how.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="compute an update in N parts, for less memory (default 1)",
    )
    how.add_argument(
        "--sharding",
        choices=SHARDINGS,
        default="ddp",
        help="under torchrun: the whole model in each process, or shared out (default %(default)s)",
    )
    how.add_argument("--recompute", action="store_true", help="keep no activations: less memory, a third more work")
    how.add_argument("--compile", action="store_true", help="torch.compile: some minutes first, then faster on a GPU")
    how.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read (default: none)")
    how.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads (default: all)")
    how.add_argument("--prompts", type=Path, metavar="FILE", help="a line each: drawn at every validation")
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
    running = RunOptions(
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
        train(args.dataset, args.size, config, args.output, args.resume, running)
    except OSError as error:
        raise UserError(f"--output {args.output}: {error.strerror}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
