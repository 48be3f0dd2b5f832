"""Trains the paper's transformer: `pairmill train --dataset DIR --size 3m --steps 200 --batch-size 4 --output DIR`.

Optimiser, loss weights, clipping, warm-up, halving on a plateau and averaged weights are those of the paper (section
2.2, appendix B.2). A step's numbers follow from the settings and the number of the step. So a resumed run has the
losses of an uninterrupted one, and a run in several processes (`torchrun --nproc-per-node N --no-python pairmill train
...`) has those of one process, except for rounding.

DIR receives `checkpoint.pt` (to resume), `model.safetensors` and `averaged.safetensors` with `config.json` and
`text_tokenizer.json` (to sample from), `log.jsonl` (a line for each step and validation), and `pictures/` on request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from functools import partial
from pathlib import Path

import torch
from torch import nn

from models.data.batch import NO_TOKEN, Batch
from models.data.format import REBUILD_HINT, Manifest
from models.data.retry import read_patiently
from models.data.stream import Stream
from models.errors import UserError, report_errors, system_fault
from models.files import CHECKPOINT_FILE, WEIGHTS_FILE, join, output_folder, write_atomically
from models.hashing import hash_fraction, stable_hash
from models.next_command import beside, print_output
from models.process_end import run_as_process
from models.progress import print_above
from models.tokenizers.info import TEXT_TOKENIZER_FILE, require_same_tokenizer
from models.training.checkpoint import Checkpoint, TrainState, defaults_of
from models.training.distributed import World, distributed_world, full_tensor, no_gradient_sync, wrap_model
from models.training.initial_weights import read_initial_weights, start_from
from models.training.log import Log, StepProgress, TrainingSpeed
from models.training.options import (
    BETA1,
    BETA2,
    DECAY,
    DEFAULT_RUN,
    RunOptions,
    TransformerTrainingConfig,
    parse_command,
)
from models.training.peak_flops import peak_flops
from models.training.prompt_grid import PromptGrid, load_prompt_grid
from models.training.readers import reading, reported_readers
from models.training.run_folder import TerminatedError, TerminationSignal, lock_folder, report_termination, terminated
from models.training.schedule import Plateau, ScheduleStart, plateau_interval
from models.training.stability import LossScale, SkippedUpdates, are_usable, diverged, is_finite
from models.training.validation import Validation
from models.training.weight_average import WeightAverage
from models.transformer.model import Shape, Transformer, TransformerConfig, weighted
from models.transformer.model import training_flops as flops_of

# --- the run ---------------------------------------------------------------------------------------------------------


def train(
    dataset: str | Path,
    size: str | Shape,
    config: TransformerTrainingConfig,
    output: Path,
    resume: bool = False,
    options: RunOptions = DEFAULT_RUN,
) -> None:
    """Trains to step `config.steps` and writes into `output`. Raises UserError for unusable input, TerminatedError if
    SIGTERM has stopped it."""
    with distributed_world(options.device) as world, contextlib.ExitStack() as held, reported_readers():
        _train(dataset, size, config, output, resume, options, world, held)


def _train(
    dataset: str | Path,
    size: str | Shape,
    config: TransformerTrainingConfig,
    output: Path,
    resume: bool,
    options: RunOptions,
    world: World,
    held: contextlib.ExitStack,
) -> None:
    _check_batch_size(config, options, world)
    stream = _open_stream(dataset, config, options, world)
    manifest = stream.manifest
    tokenizer_json = _read_text_tokenizer(dataset, manifest)
    validation = Validation.read(dataset, config, world, options)
    prompt_grid = (
        load_prompt_grid(options.prompts, manifest, tokenizer_json) if options.prompts and world.is_main else None
    )

    torch.manual_seed(config.seed)
    plain = Transformer(model_config_for(manifest, size, config))
    plain.recompute = options.recompute
    flops, parameters = flops_of(plain), sum(parameter.numel() for parameter in plain.parameters())
    plain = plain.to(world.device)
    if config.init_from and not world.from_main(resume and (output / CHECKPOINT_FILE).exists()):
        _start_from(plain, Path(config.init_from), manifest, tokenizer_json.decode(), world)
    state = _first_state(plain, config, options, world)

    held.enter_context(output_folder(output))
    if world.is_main:
        held.enter_context(lock_folder(output))
    termination = held.enter_context(TerminationSignal())
    checkpoint = _checkpoint(output, manifest, plain.config, config, options, world)
    first_step = checkpoint.restore(state, stream) if resume else checkpoint.start()
    world.barrier()  # no rank writes before all have checked the folder
    log = None
    if world.is_main:
        write_atomically(output / TEXT_TOKENIZER_FILE, tokenizer_json)
        log = Log(output, first_step, options.tensorboard, options.wandb, checkpoint.config())
        held.callback(log.close)
        _print_summary(stream, validation, plain.config, parameters, config, world)
    steps = _Steps(
        config=config,
        options=options,
        world=world,
        output=output,
        stream=stream,
        state=state,
        validation=validation,
        checkpoint=checkpoint,
        log=log,
        prompt_grid=prompt_grid,
        termination=termination,
    )
    steps.run(first_step, flops)


@dataclasses.dataclass
class _Steps:
    """What the steps of a run share."""

    config: TransformerTrainingConfig
    options: RunOptions
    world: World
    output: Path
    stream: Stream
    state: TrainState
    validation: Validation
    checkpoint: Checkpoint
    log: Log | None  # only the main process has one, and the grid
    prompt_grid: PromptGrid | None
    termination: TerminationSignal

    def run(self, first_step: int, flops: float) -> None:
        """Goes on to the last step; `flops` are those of one pair."""
        if first_step == 0:
            self._validate(0)
        if first_step >= self.config.steps:
            if self.world.is_main:
                text = f"{self.output} has {first_step:,} steps already; give more --steps to continue"
                print(f"train: {text}", flush=True)
            return
        speed = self._speed(flops)
        loader = self.stream.loader(self.options.workers)
        with reading(loader) as batches, StepProgress("train", first_step, self.config.steps) as progress:
            for step in range(first_step, self.config.steps):
                batch = next(batches)
                values = self._update(step, batch)
                if self.log:
                    progress.report(step + 1, partial(speed.text, values))
                self._finish(step + 1, batch)
        if self.world.is_main:
            _print_output(self.output)

    def _speed(self, flops: float) -> TrainingSpeed:
        model, peak = self.checkpoint.model_config, peak_flops(self.world.device, self.config.precision)
        tokens = model.text_length + model.codes
        return TrainingSpeed(self.config.batch_size, tokens, flops, peak_flops=self.world.size * peak)

    def _update(self, step: int, batch: Batch) -> dict[str, float]:
        """Changes the weights, if losses and gradients are finite; logs and returns the losses."""
        config, state, done = self.config, self.state, step + 1
        rate = config.learning_rate_at(step, state.plateau.halvings, state.schedule)
        if config.dropout:  # so that a resumed run drops the same; a new loader also draws a number
            torch.manual_seed(stable_hash(f"dropout/{config.seed}/{step}/{self.world.rank}") >> 1)
        values, gradient_norm = update(
            state, drop_captions(batch, config, step), rate, config, self.options, self.world
        )
        if is_finite(values["total"], gradient_norm):
            state.skipped.applied()
            state.scale.grow()
            state.plateau.observe(values["total"])
        elif not state.scale.shrink():
            state.skipped.skip(done, values["total"], gradient_norm, config.learning_rate, self.world)
        state.average.update(done)
        if self.log:
            self.log.step(done, values, rate, gradient_norm, state.skipped.total if state.skipped.in_a_row else None)
        return values

    def _finish(self, done: int, batch: Batch) -> None:
        """Validates, halves the learning rate and writes a checkpoint, each where this step is one for it."""
        options, is_last = self.options, done == self.config.steps
        losses = self._validate(done) if done % options.validate_every == 0 or is_last else {}
        if self.config.schedule == "plateau":
            losses = self._look_for_plateau(done, losses)
        stops = self.world.any(self.termination.received) and not is_last
        if stops or is_last or done % (options.save_every or options.validate_every) == 0:
            self._save(done, batch, losses, stops)

    def _look_for_plateau(self, done: int, losses: dict[str, float]) -> dict[str, float]:
        """Returns the losses of the validation, which it may need before the usual step."""
        if done % plateau_interval(self.config.steps, self.validation.pairs > 0):
            return losses
        losses = losses or self._validate(done, is_logged=False)
        plateau = self.state.plateau
        if plateau.update(losses.get("total", plateau.take_mean())) and self.world.is_main:
            print_above(f"step {done:,}  no gain: learning rate halved")
        return losses

    def _save(self, done: int, batch: Batch, losses: dict[str, float], stops: bool) -> None:
        """Writes a checkpoint and images of the prompts, if the weights are usable. Raises UserError if those of the
        last step are not, and TerminatedError if the run stops here."""
        if good := _is_good(self.state, losses, self.world):
            self.checkpoint.save(self.state, self.stream, batch, done)
        elif done == self.config.steps:
            raise diverged(done, "the weights are not usable", self.config.learning_rate)
        elif self.world.is_main:
            print_above(f"step {done:,}  the weights may be damaged: no checkpoint")
        if stops:
            raise terminated(done, good)
        if good and self.log and self.prompt_grid:
            self.log.image(done, self.prompt_grid.sample(self.output, done, self.world.device))
        self.world.barrier()

    def _validate(self, done: int, is_logged: bool = True) -> dict[str, float]:
        with autocast(self.config.precision, self.world.device):
            losses, by_source = self.validation.losses(self.state.model)
        if self.log and is_logged:
            self.log.validation(done, losses, by_source)
        return losses


def _check_batch_size(config: TransformerTrainingConfig, options: RunOptions, world: World) -> None:
    if config.batch_size % (world.size * options.accumulate):
        raise UserError(
            f"--batch-size {config.batch_size}: give a multiple of {world.size * options.accumulate}, the "
            "number of processes times --accumulate"
        )


def _open_stream(dataset: str | Path, config: TransformerTrainingConfig, options: RunOptions, world: World) -> Stream:
    return Stream(
        dataset,
        "train",
        config.batch_size,
        config.seed,
        config.text_length,
        rank=world.rank,
        ranks=world.size,
        bpe_dropout=config.bpe_dropout,
        lanes=config.lanes,
        weights=dict(config.source_weights) or None,
        cache=options.cache,
        cache_bytes=options.cache_bytes,
    )


def _first_state(
    plain: Transformer, config: TransformerTrainingConfig, options: RunOptions, world: World
) -> TrainState:
    # The optimiser's groups do not depend on the sharding: wrap_model replaces parameters in place.
    model = wrap_model(plain, world, options.sharding, config.precision)
    if options.compile:
        model.compile()
    return TrainState(
        model=model,
        optimiser=make_optimiser(plain, config.learning_rate, config.beta1, config.beta2, config.weight_decay),
        average=WeightAverage(plain),
        plateau=Plateau(),
        skipped=SkippedUpdates(),
        schedule=ScheduleStart.of(config.steps, config.warm_up),
        scale=LossScale.of(config.precision),
    )


def _checkpoint(
    output: Path,
    manifest: Manifest,
    model: TransformerConfig,
    config: TransformerTrainingConfig,
    options: RunOptions,
    world: World,
) -> Checkpoint:
    return Checkpoint(
        output=output,
        manifest=manifest,
        model_config=model,
        training=dataclasses.asdict(config),
        world=world,
        keep=options.keep,
        defaults=defaults_of(TransformerTrainingConfig),
    )


def _print_output(output: Path) -> None:
    print_output(
        "train",
        output / WEIGHTS_FILE,
        ["generate", "--checkpoint", output, "--prompt", "a red cat", "--output", beside(str(output), "images")],
        ["serve", "--checkpoint", output],
    )


def _start_from(model: Transformer, directory: Path, manifest: Manifest, tokenizer_json: str, world: World) -> None:
    initial = read_initial_weights(directory, model.config, manifest, tokenizer_json) if world.is_main else None
    new = start_from(model, initial, world)
    if world.is_main:
        print(f"train: starts from the weights of {directory}; new: {', '.join(new) or 'nothing'}", flush=True)


def update(
    state: TrainState, batch: Batch, rate: float, config: TransformerTrainingConfig, options: RunOptions, world: World
) -> tuple[dict[str, float], float]:
    """One step of the optimiser: returns the losses of all ranks in nats, and the gradient's norm before clipping. It
    changes nothing if one of them is not finite."""
    text_tokens = int(world.sum((batch.text_BT != NO_TOKEN).sum().to(world.device)))
    codes = config.batch_size * batch.codes_BN.shape[1]
    sums = torch.zeros(3, device=world.device)
    state.optimiser.zero_grad(set_to_none=True)
    parts = list(zip(batch.text_BT.chunk(options.accumulate), batch.codes_BN.chunk(options.accumulate), strict=True))
    for number, (text_BT, codes_BN) in enumerate(parts, 1):
        with no_gradient_sync(state.model, number < len(parts)):
            with autocast(config.precision, world.device):
                token_losses = state.model(text_BT.to(world.device), codes_BN.to(world.device))
            losses = token_losses.losses(text_tokens, codes, config.text_weight)
            # DDP and FSDP average over ranks, but the loss is a sum.
            (losses.total * (world.size * state.scale.factor)).backward()
        sums += torch.stack(losses).detach()
    state.scale.remove_from(state.model.parameters())
    norm = full_tensor(nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)).item()
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    values = dict(zip(losses._fields, world.sum(sums).tolist(), strict=True))
    if is_finite(values["total"], norm):  # the same on all ranks
        state.optimiser.step()
    return values, norm


def _is_good(state: TrainState, validation: dict[str, float], world: World) -> bool:
    """Whether the weights may replace those of the last checkpoint: the validation is finite, or if there is none the
    last update was."""
    finite = is_finite(*validation.values()) if validation else not state.skipped.in_a_row
    return finite and are_usable(state.model.parameters(), world)


def drop_captions(batch: Batch, config: TransformerTrainingConfig, step: int) -> Batch:
    """Blanks the captions of a share of the pairs, chosen by seed, step and key."""
    if not config.blank_captions:
        return batch
    hashes = (stable_hash(f"blank/{config.seed}/{step}/{key}") for key in batch.keys)
    blank_B = torch.tensor([hash_fraction(hash_64) < config.blank_captions for hash_64 in hashes])
    return batch._replace(text_BT=batch.text_BT.masked_fill(blank_B[:, None], NO_TOKEN))


def model_config_for(manifest: Manifest, size: str | Shape, config: TransformerTrainingConfig) -> TransformerConfig:
    """The configuration of a shape or a named size for a dataset's tokenizers."""
    text, image = manifest.text_tokenizer, manifest.image_tokenizer
    is_modern = config.recipe == "modern"
    return TransformerConfig.named(
        size,
        text.vocabulary,
        image.vocabulary,
        text_length=config.text_length or text.max_tokens,
        grid=image.shape.columns,
        rows=None if image.shape.is_square else image.shape.rows,
        full_attention=is_modern,
        rotary=config.rotary or is_modern,
        recipe=config.recipe,
        dropout=config.dropout,
    )


def make_optimiser(
    model: Transformer, learning_rate: float, beta1: float = BETA1, beta2: float = BETA2, weight_decay: float = DECAY
) -> torch.optim.AdamW:
    """The paper's AdamW by default, without decay of biases, gains and embeddings (appendix B.2)."""
    decayed = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    others = [p for p in model.parameters() if not any(p is weight for weight in decayed)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(beta1, beta2), eps=1e-8, fused=True)


def autocast(precision: str, device: torch.device | str = "cpu") -> contextlib.AbstractContextManager:
    """A context in which products are computed in `precision`."""
    enabled = precision != "float32"
    return torch.autocast(torch.device(device).type, getattr(torch, precision) if enabled else None, enabled)


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
        f"uniform guess: loss {weighted(*uniform):.4f}  text {uniform[0]:.4f}  image {uniform[1]:.4f}",
        flush=True,
    )


def _read_text_tokenizer(dataset: str | Path, manifest: Manifest) -> bytes:
    path = join(dataset, TEXT_TOKENIZER_FILE)
    try:
        text = read_patiently(path)
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
    command = parse_command(__doc__.split("\n")[0], arguments)
    torch.set_num_threads(command.threads)
    try:
        train(command.dataset, command.size, command.config, command.output, command.resume, command.options)
    except OSError as error:
        place, message = error.filename or command.output, error.strerror or str(error)
        raise UserError(system_fault(error.errno, message, place) or f"{place}: {message}") from None
    except TerminatedError as error:
        return report_termination(error)
    return 0


if __name__ == "__main__":
    run_as_process(lambda: report_errors(main))
