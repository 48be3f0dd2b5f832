"""Logs a run to `log.jsonl` and the screen, and on request to TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from models.files import write_atomically

REPORT_INTERVAL_S = 5.0


class Log:
    """Writes a line of JSON for each step and validation; a resumed run drops the lines after its checkpoint."""

    def __init__(self, output: Path, first_step: int, tensorboard: bool = False, wandb_project: str | None = None):
        """Raises UserError if TensorBoard or Weights & Biases is requested but not installed."""
        path = output / "log.jsonl"
        kept: list[str] = []
        for line in path.read_text().splitlines(True) if first_step and path.exists() else ():
            if not line.endswith("\n") or json.loads(line)["step"] > first_step:  # the last line may be incomplete
                break
            kept.append(line)
        write_atomically(path, "".join(kept))
        self._path = path
        self._board = _tensorboard(output / "tensorboard", first_step) if tensorboard else None
        self._wandb = _wandb(wandb_project, output) if wandb_project else None

    def step(self, step: int, losses: dict[str, float], learning_rate: float, gradient_norm: float) -> None:
        """Logs the losses of one update, in nats."""
        values = {**losses, "learning_rate": learning_rate, "gradient_norm": gradient_norm}
        self._append({"step": step, **values})
        self._scalars(step, "train", values)

    def validation(self, step: int, losses: dict[str, float], by_source: dict[str, dict[str, float]]) -> None:
        """Logs and prints a validation's losses, in nats; nothing if there are none."""
        if not losses:
            return
        self._append({"step": step, "validation": losses, "by_source": by_source})
        print(
            f"step {step:,}  validation loss {losses['total']:.4f}  text {losses['text']:.4f}  "
            f"image {losses['image']:.4f}",
            flush=True,
        )
        for source, values in by_source.items():
            print(
                f"  {source:<15} {values['total']:.4f}  text {values['text']:.4f}  image {values['image']:.4f}  "
                f"({values['pairs']} pairs)",
                flush=True,
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


def append_json_line(path: Path, entry: dict[str, Any]) -> None:
    """Appends an entry to a log in JSON lines."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs its package: pip install tensorboard") from None
    return SummaryWriter(folder, purge_step=first_step + 1)


def _wandb(project: str, output: Path) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("--wandb needs its package: pip install wandb") from None
    return wandb.init(project=project, dir=output, id=output.resolve().name, resume="allow")


class Progress:
    """Prints a line every few seconds: the step's losses, tokens/s and the share of the hardware's peak since the last
    line, and the time left at the run's mean speed."""

    def __init__(self, first_step: int, steps: int, pairs: int, tokens: int, flops: float, peak: float):
        """`pairs` a step, `tokens` and `flops` a pair; `peak`: operations a second of all ranks together."""
        self._first, self._steps, self._pairs, self._tokens = first_step, steps, pairs, tokens
        self._flops_of_peak = flops / peak
        self._started = self._last_time = time.monotonic()
        self._last_step = first_step

    def report(self, step: int, losses: dict[str, float]) -> None:
        """Prints a line if enough time has passed, and after the last step."""
        now = time.monotonic()
        if now - self._last_time < REPORT_INTERVAL_S and step < self._steps:
            return
        pairs_s = (step - self._last_step) * self._pairs / (now - self._last_time)
        left_s = (self._steps - step) * (now - self._started) / (step - self._first)
        print(
            f"step {step:,}/{self._steps:,}  loss {losses['total']:.4f}  text {losses['text']:.4f}  "
            f"image {losses['image']:.4f}  {pairs_s * self._tokens:,.0f} tokens/s  "
            f"{pairs_s * self._flops_of_peak:.0%} of peak  {left_s / 60:.1f} min left",
            flush=True,
        )
        self._last_time, self._last_step = now, step
