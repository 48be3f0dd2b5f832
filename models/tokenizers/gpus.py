"""Shares the GPUs of a machine among the processes that encode there: they take them in turn."""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from typing import IO

import torch

from models.files import take_lock

_lock = threading.Lock()
_slots: dict[int, tuple[int, IO[bytes]]] = {}  # process -> its slot, and the file by whose lock it holds it


def device_of_process(device: str) -> str:
    """The device of this process, the same for all its threads: for `cuda` one of the machine's GPUs by number, so that
    no two GPUs differ by more than one in the processes that use them."""
    if device != "cuda" or (count := torch.cuda.device_count()) < 2:
        return device
    with _lock:
        if os.getpid() not in _slots:
            _slots[os.getpid()] = _take_slot()
        return f"cuda:{_slots[os.getpid()][0] % count}"


def _take_slot() -> tuple[int, IO[bytes]]:
    """The first number that no other process of the machine holds; the kernel frees it when this process ends.

    Processes that see other GPUs, by CUDA_VISIBLE_DEVICES, count for themselves.
    """
    visible = "".join(c if c.isalnum() else "-" for c in os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    folder = os.path.join(tempfile.gettempdir(), f"pairmill-gpus-{os.getuid()}-{visible}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for slot in itertools.count():
        if file := take_lock(os.path.join(folder, str(slot))):
            return slot, file
    raise AssertionError("numbers do not end")
