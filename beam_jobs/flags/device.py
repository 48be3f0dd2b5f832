"""The option of the device that runs a job's models. Imports torch: select and fetch must not."""

from __future__ import annotations

import argparse

import torch

from beam_jobs.flags.common import Group
from models.tokenizers.image import DEVICES

AUTO = "auto"


def add_device_option(group: Group, of: str) -> None:
    """`of`: what the device runs."""
    group.add_argument(
        "--device",
        choices=(AUTO, *DEVICES),
        default=AUTO,
        help=f"device that runs {of}; auto is cuda if there is one, else cpu",
    )


def device_of(args: argparse.Namespace) -> str:
    """`cpu` or `cuda`: what --device names, or for `auto` what the machine that starts the job has."""
    if args.device != AUTO:
        return args.device
    return "cuda" if torch.cuda.is_available() else "cpu"
