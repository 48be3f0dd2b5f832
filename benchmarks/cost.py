"""What a command costs, with all processes that it starts: time on the clock and of processors, and memory."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from models.files import write_atomically

SET_CHILD_SUBREAPER = 36  # of prctl(2)
SECONDS_BETWEEN_SAMPLES = 0.5
SHARE_OF_SAMPLING = 0.02
"""At most this share of a processor goes into looking at the memory of others."""
TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    seconds: float
    processor_s: float
    memory_gb: float  # the highest sum over the processes of their PSS, which counts shared pages once


NOTHING = Cost(0, 0, 0)


def cost_of(command: list[str], log: Path | None = None, kept: Path | None = None) -> Cost:
    """What a command costs, from its start to its end. Raises SystemExit with what it printed if it fails.

    Args:
        log: what the command prints to the standard error is added to this file.
        kept: a file with what interrupted runs of the command have cost, which are counted, too. It is brought up to
            date while the command runs.
    """
    # Processes whose parent has ended become ours, so that their processor time is counted.
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    earlier = read_cost(kept) if kept and kept.exists() else NOTHING
    begun, before = time.perf_counter(), os.times()
    seen: set[int] = set()
    most, done = [earlier.memory_gb], threading.Event()

    def spent(processor_s: float) -> Cost:
        return Cost(earlier.seconds + time.perf_counter() - begun, earlier.processor_s + processor_s, most[0])

    def watch() -> None:
        pause = SECONDS_BETWEEN_SAMPLES
        while not done.wait(pause):
            sampled = time.thread_time()
            running = descendants(process.pid)
            seen.update(running)
            most[0] = max(most[0], sum(map(pss_bytes, running)) / 1e9)
            if kept:
                write_cost(kept, spent(sum(map(processor_seconds, running))))
            pause = max(SECONDS_BETWEEN_SAMPLES, (time.thread_time() - sampled) / SHARE_OF_SAMPLING)

    with open(log, "a+b") if log else tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        watcher = threading.Thread(target=watch)
        watcher.start()
        process.wait()
        done.set()
        watcher.join()
        if process.returncode:
            errors.seek(0)
            raise SystemExit(errors.read().decode())
    for other in seen - {process.pid}:
        with contextlib.suppress(ChildProcessError):  # its parent has waited for it
            os.waitpid(other, 0)
    after = os.times()
    cost = spent(after.children_user + after.children_system - before.children_user - before.children_system)
    if kept:
        write_cost(kept, cost)
    return cost


def read_cost(path: Path) -> Cost:
    return Cost(**json.loads(path.read_text()))


def write_cost(path: Path, cost: Cost) -> None:
    write_atomically(path, json.dumps(cost._asdict()))


def descendants(root: int) -> list[int]:
    """A process and those that it has started, directly or not."""
    parents = dict(_parents())
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                yield int(entry), int(_stat(int(entry))[1])


def pss_bytes(process: int) -> int:
    """0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def processor_seconds(process: int) -> float:
    """Of a process and those of its children that it has waited for; 0 of one that has ended."""
    try:
        return sum(map(int, _stat(process)[11:15])) / TICKS
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _stat(process: int) -> list[str]:
    """Of proc_pid_stat(5), what comes after the name: state, parent, ..."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
