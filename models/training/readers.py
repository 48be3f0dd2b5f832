"""The processes of `--workers` that read batches: they outlive SIGTERM, and their faults are one line."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator

from torch.utils.data import DataLoader

from models.errors import UserError

_CAUGHT = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.")


def keep_on_termination(loader: DataLoader) -> DataLoader:
    """The loader, whose processes ignore SIGTERM: its sender may signal all processes of a run, which still needs
    them. They end with the process that reads from them."""
    loader.worker_init_fn = _ignore_termination
    return loader


def _ignore_termination(_: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


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
