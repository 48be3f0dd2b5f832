"""`--device` and `--threads` of all commands that compute with PyTorch: one option, one meaning."""

from __future__ import annotations

import argparse
import os

import torch

from models.errors import UserError

AUTO = "auto"
MAX_THREADS = 1 << 12  # more than machines have processors, and no overflow


def add_device_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup, runs: str) -> None:
    """Adds --device; `runs` names what the device runs."""
    parser.add_argument(
        "--device",
        type=device_name,
        default=AUTO,
        metavar="DEVICE",
        help=f"device that runs {runs}: cpu, cuda, cuda:1, ...; auto is cuda if there is one, else cpu "
        "(default: %(default)s)",
    )


def add_threads_option(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    default: int | None = None,
    help_default: str = "all available",
) -> None:
    """Adds --threads, the number of CPU threads. `default`: None if the command decides when it knows its model."""
    parser.add_argument(
        "--threads", type=thread_count, default=default, metavar="N", help=f"CPU threads (default: {help_default})"
    )


def thread_count(text: str) -> int:
    """The argparse type of numbers of threads."""
    if not (text.isdecimal() and len(text) <= 4) or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text}: give 1 to {MAX_THREADS:,}")
    return int(text)


def available_processors() -> int:
    """Number of processors that this process may use: containers and batch systems often give it fewer than there
    are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(text: str) -> str:
    """The argparse type of devices. Raises UserError for what PyTorch would not take for one."""
    if text != AUTO:
        try:
            torch.device(text)
        except RuntimeError:
            raise UserError(f"--device {text}: give auto, cpu, cuda, or cuda:1 for the second GPU") from None
    return text


def device_of(name: str) -> str:
    """The device that a value of --device names; for `auto` what this machine has."""
    if name != AUTO:
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def kind_of(device: str) -> str:
    """`cuda` for `cuda:1`: what outputs record, since a resumed job may run on another device of the same kind."""
    return torch.device(device).type


def check_device(device: str) -> None:
    """Raises UserError for a device that this machine lacks."""
    wanted = torch.device(device)
    if wanted.type != "cpu" and (wanted.index or 0) >= _count(wanted.type):
        raise UserError(f"--device {device}: PyTorch finds no such accelerator here; use --device cpu")


def _count(kind: str) -> int:
    """Number of devices of a kind that PyTorch finds."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return torch.accelerator.device_count() if accelerator and accelerator.type == kind else 0
