"""Whatever is killed while an engine runs a build, the same command gives the same bytes when it is run again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines import prism_process, worker_pool
from tests.support.launcher import Launcher
from tests.support.paths import files_of

KILLS = 17  # of each kind, with --exhaustive
LATEST_KILL_S = 12.0  # after the start
ENDS_WITHIN_S = 120.0  # of the kill: Beam waits a minute for a job server that is gone


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def engine_of(victim: str, cwd: Path) -> Iterator[tuple[list[str], list[int]]]:
    """Runs Prism, and a pool of workers if one of them is the victim. Gives the options for a job, and whose kill is
    meant: the process, or the parent of those that the job starts."""
    with contextlib.ExitStack() as stack:
        port, process = stack.enter_context(prism_process(cwd))
        options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}"]
        if victim != "worker":
            yield [*options, "--environment_type=LOOPBACK"], [process.pid]
            return
        pool_port, pool = stack.enter_context(worker_pool(cwd))
        yield [*options, "--environment_type=EXTERNAL", f"--environment_config=localhost:{pool_port}"], [pool.pid]


def kill(victim: str, pid: int) -> None:
    for each in children(pid) if victim == "worker" else [pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def run_and_kill(victim: str, elsewhere: Launcher, command: list[str], cwd: Path, after_s: float) -> tuple[bool, int]:
    """Whether the kill came before the job's end, and its status. The job ends soon, by itself or as the victim."""
    with engine_of(victim, cwd) as (options, pids):
        timer = threading.Timer(after_s, kill, (victim, pids[0]))
        if victim != "launcher":
            timer.start()
        started = time.monotonic()
        status, _ = elsewhere.run([*command, *options], cwd, kill_after_s=after_s if victim == "launcher" else None)
        took_s = time.monotonic() - started
        hit = status < 0 if victim == "launcher" else timer.finished.is_set()
        timer.cancel()
    assert took_s < after_s + ENDS_WITHIN_S
    return hit, status


@pytest.mark.parametrize("victim", ["engine", "launcher", "worker"])
def test_killed_and_run_again(victim, command, built, elsewhere, tmp_path, exhaustive):
    if victim != "engine" and not exhaustive:
        pytest.skip("only with --exhaustive: a minute each")
    chance, latest_s = random.Random(5), LATEST_KILL_S
    hits = number = 0
    while hits < (KILLS if exhaustive else 1):
        number += 1
        output = tmp_path / str(number)
        whole = ["build", *command, f"--output={output}"]
        hit, status = run_and_kill(victim, elsewhere, whole, tmp_path, after_s=chance.uniform(latest_s / 6, latest_s))
        hits += hit
        if not hit:  # a fast machine: the job had come to its end
            assert status == 0
            latest_s /= 2
        if status != 0:
            with engine_of("engine", tmp_path) as (options, _):
                status, said = elsewhere.run([*whole, *options], tmp_path)
            assert status == 0, said
        assert files_of(output) == built
