"""Trains the paper's transformer: `pairmill train --dataset DIR --size 3m --steps 200 --batch-size 4 --output DIR`.

Optimiser, loss weights and clipping are those of the paper (section 2.2, appendix B.2); the warm-up is cut to a tenth
of a short run, and a cosine follows. Every number that a step uses follows from the settings and the step's place, so
a run that was stopped and resumed has the losses of one that was not.

DIR receives `checkpoint.pt` (to resume), `model.safetensors` with `config.json` and `text_tokenizer.json` (to draw
from) and `log.jsonl` (one line a step, one a validation).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
import time
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from models.dataset import Manifest
from models.errors import UserError, write_whole
from models.stream import Stream
from models.transformer import IMAGE_WEIGHT, NO_TOKEN, SIZES, TEXT_WEIGHT, Transformer, TransformerConfig

CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "pairmill-transformer", 1
MAX_GRADIENT_NORM = 4.0
FINAL_LEARNING_RATE = 0.1  # of the peak, where the cosine ends
REPORT_EVERY_S = 5.0
VALIDATION_PAIRS = 128  # at most


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the resulting weights, beside the model's size and the dataset."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    precision: str = "float32"

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up over 5,000 updates or a tenth of a shorter run, then a cosine to a tenth of the peak."""
        warm_up = min(5_000, max(1, self.steps // 10))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        progress = (step - warm_up) / max(1, self.steps - warm_up)
        low = FINAL_LEARNING_RATE
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def default_learning_rate(width: int) -> float:
    """The paper's 4.5e-4 for its widths; narrow models learn faster with more."""
    return max(4.5e-4, 1e-3 * 256 / width)


def default_precision() -> str:
    """bfloat16 where the processor multiplies in it: twice as fast there, and slower than float32 elsewhere."""
    processor = torch.cpu.get_capabilities()
    return "bfloat16" if processor.get("avx512_bf16") or processor.get("amx_bf16") else "float32"


# --- the run ---------------------------------------------------------------------------------------------------------


def train(dataset: Path, size: str, config: TrainingConfig, output: Path, resume: bool = False,
          validate_every: int = 100) -> None:
    """Runs to `config.steps`, writing into `output`. Raises UserError for unusable input."""
    stream = Stream(dataset, "train", config.batch_size, config.seed)
    manifest = stream.manifest
    model_config = model_config_for(manifest, size)
    tokenizer_json = _read_text_tokenizer(dataset, manifest)
    validation = _read_validation(dataset, config.batch_size)

    torch.manual_seed(config.seed)
    model = Transformer(model_config)
    optimiser = make_optimiser(model, config.learning_rate)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(output, manifest, model_config, config)
    first_step = checkpoint.restore(model, optimiser, stream) if resume else checkpoint.refuse_existing()
    write_whole(output / "text_tokenizer.json", tokenizer_json)
    log = Log(output / "log.jsonl", first_step)

    guess = (math.log(model_config.text_vocabulary), math.log(model_config.image_vocabulary))
    print(f"train: {stream.pairs:,} pairs, {sum(len(batch.keys) for batch in validation):,} for validation; "
          f"{sum(p.numel() for p in model.parameters()):,} parameters; {config.precision}, "
          f"{torch.get_num_threads()} threads", flush=True)
    print(f"uniform guess: loss {TEXT_WEIGHT * guess[0] + IMAGE_WEIGHT * guess[1]:.4f}  "
          f"text {guess[0]:.4f}  image {guess[1]:.4f}", flush=True)
    if first_step == 0:
        log.validation(0, validate(model, validation, config.precision))

    if first_step >= config.steps:
        print(f"train: {output} has {first_step:,} steps already; give more --steps to go on", flush=True)
        return
    progress = Progress(first_step, config, tokens=model_config.text_length + model_config.codes)
    batches = iter(stream)
    for step in range(first_step, config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate_at(step)
        batch = next(batches)
        with autocast(config.precision):
            losses = model.loss(batch.text_BT, batch.codes_BN)
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()

        done = step + 1
        values = {name: value.item() for name, value in losses._asdict().items()}
        if not math.isfinite(values["total"]):
            raise UserError(f"the loss is {values['total']} at step {done}: start again with a --learning-rate below "
                            f"{config.learning_rate:g}")
        log.step(done, values, config.learning_rate_at(step), gradient_norm.item())
        progress.report(done, values)
        if done % validate_every == 0 or done == config.steps:
            log.validation(done, validate(model, validation, config.precision))
            checkpoint.save(model, optimiser, stream, done)
    print(f"train: wrote {output / 'model.safetensors'}", flush=True)


def model_config_for(manifest: Manifest, size: str) -> TransformerConfig:
    text, image = manifest.text_tokenizer, manifest.image_tokenizer
    return TransformerConfig.named(size, text.vocabulary, image.vocabulary,
                                   text_length=text.max_tokens, grid=image.grid)


def make_optimiser(model: Transformer, learning_rate: float) -> torch.optim.AdamW:
    """The paper's AdamW: no decay of biases, gains and embeddings."""
    decayed = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    others = [p for p in model.parameters() if not any(p is weight for weight in decayed)]
    groups = [{"params": decayed, "weight_decay": 4.5e-2}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.96), eps=1e-8, fused=True)


def autocast(precision: str) -> contextlib.AbstractContextManager:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def validate(model: Transformer, batches: list, precision: str) -> dict[str, float]:
    """Losses over all batches, each averaged over its own tokens; {} without batches."""
    sums, counts = {"text": 0.0, "image": 0.0}, {"text": 0, "image": 0}
    for batch in batches:
        with autocast(precision):
            losses = model.loss(batch.text_BT, batch.codes_BN)
        for name, tokens in (("text", (batch.text_BT != NO_TOKEN).sum().item()), ("image", batch.codes_BN.numel())):
            sums[name] += getattr(losses, name).item() * tokens
            counts[name] += tokens
    if not batches:
        return {}
    text, image = (sums[name] / max(1, counts[name]) for name in ("text", "image"))
    return {"total": TEXT_WEIGHT * text + IMAGE_WEIGHT * image, "text": text, "image": image}


def _read_validation(dataset: Path, batch_size: int) -> list:
    """The first pairs of the validation split, the same ones every time; none of a dataset that has none."""
    try:
        stream = Stream(dataset, "val", batch_size)
    except UserError as error:
        print(f"train: no validation: {error}", flush=True)
        return []
    batches = []
    for batch in stream:
        batches.append(batch)
        if len(batches) * batch_size >= VALIDATION_PAIRS:
            break
    return batches


def _read_text_tokenizer(dataset: Path, manifest: Manifest) -> bytes:
    path = dataset / "text_tokenizer.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; copy it again or build the dataset again") from None
    if hashlib.sha256(text).hexdigest() != manifest.text_tokenizer.fingerprint:
        raise UserError(f"{path} is not the tokenizer that made the tokens (its sha256 differs from the manifest's)")
    return text


# --- checkpoints -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a run leaves in its folder, and the check that a resumed run is the same run."""

    output: Path
    manifest: Manifest
    model_config: TransformerConfig
    config: TrainingConfig

    @property
    def path(self) -> Path:
        return self.output / "checkpoint.pt"

    def _described(self) -> dict:
        return {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "model": dataclasses.asdict(self.model_config),
            "training": dataclasses.asdict(self.config),
            "image_tokenizer": dataclasses.asdict(self.manifest.image_tokenizer),
            "text_tokenizer": dataclasses.asdict(self.manifest.text_tokenizer),
        }

    def save(self, model: Transformer, optimiser: torch.optim.Optimizer, stream: Stream, step: int) -> None:
        """Raises UserError when the disk refuses; the previous files are whole then."""
        described = self._described() | {"step": step}
        state = described | {"weights": model.state_dict(), "optimiser": optimiser.state_dict(),
                             "stream": stream.state_dict(), "random": torch.get_rng_state()}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        try:
            write_whole(self.path, buffer.getvalue())
            write_whole(self.output / "model.safetensors", save(weights))
            write_whole(self.output / "config.json", json.dumps(described, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise UserError(f"cannot write a checkpoint into {self.output}: {error.strerror}; the previous one is "
                            "whole: make room and go on with --resume") from None

    def refuse_existing(self) -> int:
        if self.path.exists():
            raise UserError(f"{self.path} exists; continue it with --resume or choose another --output")
        return 0

    def restore(self, model: Transformer, optimiser: torch.optim.Optimizer, stream: Stream) -> int:
        """Loads the checkpoint, if there is one; returns the first step to run."""
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--resume: {self.path} is not readable ({reason}); start again elsewhere") from None
        self._refuse_other_run(state)
        model.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        stream.load_state_dict(state["stream"])
        torch.set_rng_state(state["random"])
        return state["step"]

    def _refuse_other_run(self, state: dict) -> None:
        mine = self._described()
        for name in ("format", "version"):
            if state.get(name) != mine[name]:
                raise UserError(f"--resume: {self.path} has {name} {state.get(name)}, not {mine[name]}")
        for name, what in (("image_tokenizer", "image tokenizer"), ("text_tokenizer", "text tokenizer")):
            theirs = state[name]["fingerprint"]
            if theirs != mine[name]["fingerprint"]:
                raise UserError(f"--resume: {self.path} was trained on tokens of another {what} ({theirs[:12]}, the "
                                f"dataset has {mine[name]['fingerprint'][:12]}); give the dataset it was trained on")
        for name in ("model", "training"):
            changes = [f"{key} {state[name].get(key)} -> {value}" for key, value in mine[name].items()
                       if state[name].get(key) != value and key != "steps"]  # a run may be made longer
            if changes:
                raise UserError(f"--resume: {self.path} was made with other settings ({', '.join(changes)}); "
                                "give the same ones")


# --- telling ---------------------------------------------------------------------------------------------------------


class Log:
    """`log.jsonl`, and the validation losses on the screen. Resuming drops the lines after the checkpoint."""

    def __init__(self, path: Path, first_step: int):
        kept = []
        for line in path.read_text().splitlines(True) if first_step and path.exists() else ():
            if not line.endswith("\n") or json.loads(line)["step"] > first_step:  # the last line may be torn
                break
            kept.append(line)
        write_whole(path, "".join(kept))
        self._path = path

    def step(self, step: int, losses: dict[str, float], learning_rate: float, gradient_norm: float) -> None:
        self._append({"step": step, **losses, "learning_rate": learning_rate, "gradient_norm": gradient_norm})

    def validation(self, step: int, losses: dict[str, float]) -> None:
        if losses:
            self._append({"step": step, "validation": losses})
            print(f"step {step:,}  validation loss {losses['total']:.4f}  text {losses['text']:.4f}  "
                  f"image {losses['image']:.4f}", flush=True)

    def _append(self, entry: dict) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


class Progress:
    """A line every few seconds: losses of the step, tokens/s since the last line, time left at the run's mean speed."""

    def __init__(self, first_step: int, config: TrainingConfig, tokens: int):
        self._first, self._config, self._tokens = first_step, config, tokens
        self._started = self._last_time = time.monotonic()
        self._last_step = first_step

    def report(self, step: int, losses: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._last_time < REPORT_EVERY_S and step < self._config.steps:
            return
        speed = (step - self._last_step) * self._config.batch_size * self._tokens / (now - self._last_time)
        left_s = (self._config.steps - step) * (now - self._started) / (step - self._first)
        print(f"step {step:,}/{self._config.steps:,}  loss {losses['total']:.4f}  text {losses['text']:.4f}  "
              f"image {losses['image']:.4f}  {speed:,.0f} tokens/s  {left_s / 60:.1f} min left", flush=True)
        self._last_time, self._last_step = now, step


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill train", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="made by `pairmill build` or encode")
    parser.add_argument("--size", required=True, choices=SIZES, metavar="NAME", help=", ".join(SIZES))
    parser.add_argument("--steps", required=True, type=int, metavar="N", help="updates to make (the paper: 430,000)")
    parser.add_argument("--batch-size", required=True, type=int, metavar="B", help="pairs an update (the paper: 1,024)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="continue from DIR/checkpoint.pt if it is there")
    parser.add_argument("--learning-rate", type=float, help="at the peak (default: by width, from 1e-3 to 4.5e-4)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=default_precision(),
                        help="of the products (here: %(default)s)")
    parser.add_argument("--validate-every", type=int, metavar="N",
                        help="updates between validations and checkpoints (default: a tenth of the run, at most 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads (default: all)")
    args = parser.parse_args(arguments)
    validate_every = args.validate_every if args.validate_every is not None else max(1, min(1000, args.steps // 10))
    learning_rate = default_learning_rate(SIZES[args.size][2]) if args.learning_rate is None else args.learning_rate
    if min(args.steps, args.batch_size, args.threads, validate_every) < 1:
        raise UserError("--steps, --batch-size, --threads and --validate-every start at 1")
    if not 0 < learning_rate < math.inf or not 0 <= args.seed < 1 << 63:
        raise UserError("--learning-rate is above 0, --seed 0 or more and below 2^63")
    torch.set_num_threads(args.threads)
    config = TrainingConfig(args.steps, args.batch_size, learning_rate, args.seed, args.precision)
    try:
        train(args.dataset, args.size, config, args.output, args.resume, validate_every)
    except OSError as error:
        raise UserError(f"--output {args.output}: {error.strerror}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
