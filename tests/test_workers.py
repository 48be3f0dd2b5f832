"""Calls in forked processes: what comes back, from where, and what happens when one of them ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.errors import UserError
from pipeline.workers import in_worker, worker_processes
from tests.conftest import ROOT


def nap(number: int) -> tuple[int, int]:
    time.sleep(0.1)
    return number, os.getpid()


def fail(error: Exception) -> None:
    raise error


def unsendable() -> object:
    return lambda: None


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_calls_go_to_the_processes_while_there_are_any():
    with worker_processes(2, 2), ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: in_worker(nap, number), range(12)))
    assert [number for number, _ in found] == list(range(12))
    processes = {process for _, process in found}
    assert len(processes) == 2 and os.getpid() not in processes
    assert not any(os.path.exists(f"/proc/{process}") for process in processes)
    assert in_worker(nap, 1) == (1, os.getpid())


def test_errors_come_back():
    with worker_processes(1, 1):
        with pytest.raises(UserError, match="make room"):
            in_worker(fail, UserError("make room"))
        with pytest.raises(RuntimeError, match="KeyError: 'a bug'"):
            in_worker(fail, KeyError("a bug"))
        assert in_worker(nap, 1)[0] == 1


def test_a_process_that_is_killed_is_told():
    with worker_processes(1, 2):
        for call in (end, end, end):  # the other call's, too
            with pytest.raises(RuntimeError, match="a worker process ended"):
                in_worker(call)


def test_an_answer_that_can_not_be_sent_is_told():
    with worker_processes(1, 2), pytest.raises(RuntimeError, match="a worker process ended"):
        in_worker(unsendable)


def test_the_processes_end_with_the_first_one():
    """Killed, it can't tell them."""
    program = ("import os, signal; from pipeline.workers import in_worker, worker_processes\n"
               "with worker_processes(1, 1):\n"
               "    print(in_worker(os.getpid), flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL
    for _ in range(100):
        try:
            state = Path(f"/proc/{int(run.stdout)}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # ended, and nobody has asked for its status
            return
        time.sleep(0.05)
    pytest.fail("the process goes on")
