"""Commands in processes of their own, without the seconds in which each would import everything again.

A launcher imports a command when it is first asked for, has started no thread, and forks a child for each run: a child
of pytest's own process may wait for ever for a lock that one of its threads (gRPC's, OpenMP's) held at the fork. The
process that forks a job's workers is forked here, too.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from pipeline import cli
from tests.support.narrowing import instance, required
from tests.support.paths import ROOT

NOBODY = 65534
END = "\n"


class Launcher:
    """Runs commands as `pairmill` would; threads may run some at once."""

    def __init__(self, orders: IO[str]):
        self._orders = orders

    def run(
        self,
        arguments: Sequence[object],
        cwd: Path,
        user: int | None = None,
        kill_after_s: float | None = None,
        kill_when: Callable[[], bool] | None = None,
        kill_by: signal.Signals = signal.SIGKILL,
        environment: Mapping[str, str] | None = None,
        printed: Path | None = None,
        terminal: str | None = None,
    ) -> tuple[int, str]:
        """The status of a run, -9 if it was killed, and what it printed as errors.

        Its process group gets the signal after a time, or when something is so, which is asked every 5 ms.
        `environment` is added to the present one; `printed` gets its standard output,
        or `terminal` all that it prints.
        """
        with tempfile.TemporaryDirectory() as folder:
            errors, answers = os.path.join(folder, "errors"), os.path.join(folder, "answers")
            os.mkfifo(answers)
            Path(errors).touch()  # a run may be killed before it opens it
            order = {
                "arguments": list(map(str, arguments)),
                "user": user,
                "answers": answers,
                "cwd": str(cwd),
                "environment": dict(environment or {}),
                "streams": [terminal] * 3 if terminal else [os.devnull, str(printed or os.devnull), errors],
            }
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()
            with open(answers) as lines:
                pid = int(lines.readline())
                if kill_after_s is not None:
                    kill_at = time.monotonic() + kill_after_s
                    kill_when = functools.partial(passed, kill_at)
                if kill_when and not ends_before(kill_when, lines.fileno()):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, kill_by)
                return int(lines.readline()), "" if terminal else Path(errors).read_text()


def passed(moment: float) -> bool:
    return time.monotonic() >= moment


def ends_before(condition: Callable[[], bool], answers: int) -> bool:
    """Waits until the condition holds, or there is an answer: the run has ended."""
    while not condition():
        if select.select([answers], [], [], 0.005)[0]:
            return True
    return False


@contextlib.contextmanager
def launcher() -> Iterator[Launcher]:
    """Runs one in a new process, with the environment of now, until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        orders = required(process.stdin)
        yield Launcher(orders)
        orders.write(END)  # closing is not enough: other children of pytest have the pipe, too
        orders.close()


def serve(orders: IO[str]) -> None:
    while (line := orders.readline()) not in (END, ""):
        order = json.loads(line)
        for module in modules_of(order["arguments"][0]):
            importlib.import_module(module)
        if is_job(cli.COMMANDS[order["arguments"][0]][0]):
            importlib.import_module("tests.support.quick_graphs").remember()
        if os.fork() == 0:
            os._exit(run(order))
        reap()


def modules_of(command: str) -> list[str]:
    """The command's own, and what it imports only at work."""
    module, _ = cli.COMMANDS[command]
    if is_job(module):
        return [module, "apache_beam.runners.worker.sdk_worker_main"]
    if command == "train":
        return [module, "tests.support.tiny_training", "torch._dynamo"]  # which optimisers import
    return [module]


def is_job(module: str) -> bool:
    return module.startswith("beam_jobs.")


def reap() -> None:
    with contextlib.suppress(ChildProcessError):  # all have ended
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run(order: dict) -> int:
    """Runs the command in a child, and tells its pid and its status."""
    if not (pid := os.fork()):
        end(child(order))
    with open(order["answers"], "w") as answers:
        print(pid, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)
    return 0


def end(status: int) -> NoReturn:
    """Ends a process as Python does, but without taking all modules apart, which takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # the stubs lack it
    atexit._run_exitfuncs()
    os._exit(status)


def child(order: dict) -> int:
    """Becomes a session of its own and the user, and runs the command. Returns its status; 3 for a traceback."""
    os.setsid()
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may ignore it
    os.environ.update(order["environment"])
    for descriptor, path in enumerate(order["streams"]):  # the first terminal that it opens is the session's
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
    if order["user"] is not None:
        os.setgroups([])
        os.setgid(order["user"])
        os.setuid(order["user"])
    module, _ = cli.COMMANDS[order["arguments"][0]]
    if is_job(module):
        importlib.import_module(module).prepare_process()
    try:
        return cli.main(order["arguments"])
    except SystemExit as exit_:
        return instance(exit_.code, int)
    except BaseException:
        traceback.print_exc()
        return 3
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.stdin)
