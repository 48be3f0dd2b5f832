"""How a command's process ends, while a library's thread still wants the interpreter's lock."""

import subprocess
import sys
import textwrap

import pytest

from tests.support.paths import ROOT

# A thread that comes back from C++ while Python takes itself apart aborts the process, as Arrow's and Gloo's sometimes
# do.
BUSY_THREAD = """
import atexit, sys, threading, time, torch

square = torch.rand(1500, 1500)


def multiply():
    while True:
        torch.mm(square, square)


def keep_busy():
    threading.Thread(target=multiply, daemon=True).start()
    time.sleep(0.2)
    atexit.register(print, "let go")
"""
COMMAND = """
from models.process_end import run_as_process


def command():
    keep_busy()
    print("done")
    {end}


raise SystemExit(run_as_process(command))
"""
PAIRMILL = """
from pipeline import cli

cli.usage = lambda: keep_busy() or "the usage"
sys.argv = ["pairmill", "--help"]
raise SystemExit(cli.main())
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("return 3", 3, ""),
        ("raise SystemExit('wrong')", 1, "wrong\n"),
        ("return 1 // 0", 1, "ZeroDivisionError: integer division or modulo by zero\n"),
    ],
)
def test_a_process_ends_with_the_status_of_its_command(end, status, said):
    ended = run(BUSY_THREAD + COMMAND.format(end=end))
    assert (ended.returncode, ended.stdout) == (status, "done\nlet go\n"), ended.stderr
    assert ended.stderr.endswith(said) and bool(ended.stderr) == bool(said)


def test_the_command_line_ends_so():
    ended = run(BUSY_THREAD + PAIRMILL)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the usage\nlet go\n", "")


def test_a_fork_ends_by_itself():
    """Beam's workers are forked from the launcher, and call the functions of `atexit` that they have from it."""
    script = """
        import atexit, os
        from models.process_end import run_as_process

        def command():
            if os.fork() == 0:
                atexit._run_exitfuncs()
                os._exit(7)
            return os.waitstatus_to_exitcode(os.wait()[1])

        raise SystemExit(run_as_process(command))
    """
    assert run(textwrap.dedent(script)).returncode == 7
