"""Logs a run to `log.jsonl` and the screen, and on request to TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.errors import UserError
from models.files import LOG_FILE, write_atomically
from models.progress import Progress, ProgressLine, print_above

WANDB_ID_FILE = "wandb-id.txt"


class Log:
    """Writes a line of JSON for each step and validation; a resumed run drops the lines after its checkpoint."""

    def __init__(
        self,
        output: Path,
        first_step: int,
        tensorboard: bool = False,
        wandb_project: str | None = None,
        settings: dict[str, Any] | None = None,
    ):
        """`settings` go to Weights & Biases. Raises UserError if it or TensorBoard is requested but not installed."""
        self._path = start_log(output, first_step)
        self._board = _tensorboard(output / "tensorboard", first_step) if tensorboard else None
        self._wandb = _wandb(wandb_project, output, settings or {}) if wandb_project else None

    def step(
        self,
        step: int,
        losses: dict[str, float],
        learning_rate: float,
        gradient_norm: float,
        skipped_updates: int | None = None,
    ) -> None:
        """Logs the losses of one update, in nats; of one that was not applied also the number of these so far."""
        values = {**losses, "learning_rate": learning_rate, "gradient_norm": gradient_norm}
        if skipped_updates is not None:
            values["skipped_updates"] = skipped_updates
        self._append({"step": step, **values})
        self._scalars(step, "train", values)

    def validation(self, step: int, losses: dict[str, float], by_source: dict[str, dict[str, float]]) -> None:
        """Logs and prints a validation's losses, in nats; nothing if there are none."""
        if not losses:
            return
        self._append({"step": step, "validation": losses, "by_source": by_source})
        print_above(
            f"step {step:,}  validation loss {losses['total']:.4f}  text {losses['text']:.4f}  "
            f"image {losses['image']:.4f}"
        )
        for source, values in by_source.items():
            print_above(
                f"  {source:<15} {values['total']:.4f}  text {values['text']:.4f}  image {values['image']:.4f}  "
                f"({values['pairs']} pairs)"
            )
        for name, values in {"validation": losses, **{f"validation/{s}": v for s, v in by_source.items()}}.items():
            self._scalars(step, name, values)

    def image(self, step: int, grid_HWC: np.ndarray) -> None:
        """Logs an image, uint8 [H, W, 3], to TensorBoard and Weights & Biases."""
        if self._board:
            self._board.add_image("pictures", grid_HWC, step, dataformats="HWC")
        if self._wandb:
            import wandb

            self._wandb.log({"pictures": wandb.Image(grid_HWC)}, step=step)

    def close(self) -> None:
        """Ends TensorBoard's and Weights & Biases' logs."""
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish()

    def _append(self, entry: dict[str, Any]) -> None:
        append_json_line(self._path, entry)

    def _scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)
        if self._wandb:
            self._wandb.log({f"{group}/{name}": value for name, value in values.items()}, step=step)


def start_log(output: Path, first_step: int) -> Path:
    """The path of the log of a run whose checkpoint is of step `first_step`, or that starts at 0: later lines are
    dropped, since the run writes them again."""
    path = output / LOG_FILE
    write_atomically(path, "".join(_lines_up_to(path, first_step)))
    return path


def _lines_up_to(path: Path, step: int) -> Iterator[str]:
    for line in path.read_text().splitlines(True) if step and path.exists() else ():
        try:
            written = json.loads(line)["step"]
        except ValueError:  # cut by a kill; earlier versions of train-dvae wrote the next line behind it
            continue
        if written > step:
            return
        if line.endswith("\n"):
            yield line


def append_json_line(path: Path, entry: dict[str, Any]) -> None:
    """Appends an entry to a log in JSON lines. JSON has no NaN: values that are not finite become null."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(_finite_or_null(entry), allow_nan=False) + "\n")


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite_or_null(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs its package: pip install tensorboard") from None
    return SummaryWriter(folder, purge_step=first_step + 1)


def _wandb(project: str, output: Path, settings: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("--wandb needs its package: pip install wandb") from None
    return wandb.init(project=project, dir=output, id=_wandb_id(output), resume="allow", config=settings)


def _wandb_id(output: Path) -> str:
    """The id of the run in this folder: random, since folders of other runs have the same name; kept for --resume."""
    path = output / WANDB_ID_FILE
    if not path.exists():
        write_atomically(path, f"{uuid.uuid4().hex}\n")
    return path.read_text(encoding="utf-8").strip()


class StepProgress:
    """Context manager: the progress line of a trainer."""

    def __init__(self, command: str, first_step: int, steps: int):
        self._line = ProgressLine(command, min_shown_s=0)
        self._first, self._steps = first_step, steps
        self._last_time, self._last_step = time.monotonic(), first_step

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._line.__exit__(*exception)

    def report(self, step: int, detail: Callable[[float], str]) -> None:
        """Shows that so many steps are done; `detail` gets the steps/s since it was called last."""
        if not self._line.is_due() and step < self._steps:
            return
        now = time.monotonic()
        rate = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._line.show(Progress(step, "steps", self._steps, before=self._first, detail=detail(rate)))
        self._last_time, self._last_step = now, step


class TrainingSpeed(NamedTuple):
    """What a step of the transformer's trainer computes."""

    pairs: int  # a step
    tokens: int  # a pair
    flops: float  # a pair
    peak_flops: float  # a second, of all ranks together

    def text(self, losses: dict[str, float], steps_s: float) -> str:
        """The step's losses in nats, tokens/s, and the share of the hardware's peak."""
        pairs_s = steps_s * self.pairs
        return (
            f"loss {losses['total']:.4f}  text {losses['text']:.4f}  image {losses['image']:.4f}  "
            f"{pairs_s * self.tokens:,.0f} tokens/s  {pairs_s * self.flops / self.peak_flops:.0%} of peak"
        )
