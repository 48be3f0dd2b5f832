"""The processes of `--workers` that read batches: they outlive SIGTERM, and their faults are one line."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from models.errors import UserError

_CAUGHT = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.")


@contextlib.contextmanager
def reading(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """The batches of a loader. Within the block its processes ignore SIGTERM, whose sender may signal all processes of
    a run, which still needs them; after the block it ends them. At the exit of a process that has failed,
    `multiprocessing` sends it before it waits for them."""
    is_over = multiprocessing.RawValue(ctypes.c_bool, False)
    loader.worker_init_fn = partial(_ignore_termination, is_over)
    try:
        yield iter(loader)
    finally:
        is_over.value = True


def _ignore_termination(is_over: ctypes.c_bool, _: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if is_over.value else None)


@contextlib.contextmanager
def reported_readers() -> Iterator[None]:
    """Raises UserError, one line, for a reader that was killed and for input that it cannot read; torch's own errors
    hold a traceback."""
    try:
        yield
    except Exception as error:
        if (line := _fault(str(error))) is None:
            raise
        raise UserError(line) from None


def _fault(message: str) -> str | None:
    if re.match(r"DataLoader worker \(pid(\(s\))? ", message):
        return (
            f"{message.splitlines()[0].strip().rstrip('.')}: the system kills processes if memory runs out; continue "
            "with --resume and fewer --workers"
        )
    caught = _CAUGHT.match(message)
    last = message.rstrip().rpartition("\n")[2]
    if caught and caught[1] == UserError.__name__:
        return last.partition(": ")[2]
    if caught and "Error: [Errno " in last:
        return f"a reader of --workers failed: {last}"
    return None
