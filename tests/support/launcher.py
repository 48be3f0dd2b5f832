"""Commands in processes of their own, without the second or two in which each would import everything again.

A launcher has imported the commands, has started no thread, and forks a child for each run: a child of pytest's own
process may wait for ever for a lock that one of its threads (gRPC's, OpenMP's) held at the fork.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY = 65534


class Launcher:
    """Runs commands as `pairmill` would, one at a time."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def run(self, arguments: list[str], user: int | None = None, kill_after_s: float | None = None) -> tuple[int, str]:
        """The status of a run, -9 if it was killed with its process group, and what it printed as errors."""
        with tempfile.NamedTemporaryFile() as errors:
            order = {"arguments": arguments, "user": user, "errors": errors.name}
            print(json.dumps(order), file=self._process.stdin, flush=True)
            pid = int(self._process.stdout.readline())
            if kill_after_s is not None:
                time.sleep(kill_after_s)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            return int(self._process.stdout.readline()), Path(errors.name).read_text()


@contextlib.contextmanager
def launcher(cwd: Path, *commands: str) -> Iterator[Launcher]:
    """For the commands of these names, all of them imported before the first run."""
    with subprocess.Popen(
        [sys.executable, __file__, *commands],
        cwd=cwd,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield Launcher(process)
        process.stdin.close()


def serve(commands: list[str]) -> None:
    from pipeline import cli

    for command in commands:
        importlib.import_module(cli.COMMANDS[command][0])
    for line in sys.stdin:
        order = json.loads(line)
        if not (pid := os.fork()):
            os._exit(child(order))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def child(order: dict) -> int:
    """Becomes a session of its own and the user, and runs the command. Returns its status; 3 for a traceback."""
    os.setsid()
    for path, descriptor in ((os.devnull, 1), (order["errors"], 2)):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    if order["user"] is not None:
        os.setgroups([])
        os.setgid(order["user"])
        os.setuid(order["user"])
    from pipeline import cli

    try:
        return cli.main(order["arguments"])
    except SystemExit as exit_:
        return exit_.code
    except BaseException:
        traceback.print_exc()
        return 3
    finally:
        sys.stderr.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    serve(sys.argv[1:])
