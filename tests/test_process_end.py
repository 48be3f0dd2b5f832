"""How a command's process ends, also while a thread of a library still needs the interpreter's lock."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.support.paths import ROOT

# A thread that returns from C++ during Python's finalisation aborts the process, as Arrow's and Gloo's sometimes do.
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


run_as_process(command)
"""
PAIRMILL = """
from pipeline import cli

cli.usage = lambda: keep_busy() or "the usage"
sys.argv = ["pairmill", "--help"]
cli.main()
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        ("return 3", 3, ""),
        ("raise SystemExit('wrong')", 1, "wrong\n"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt\n"),
        ("return 1 // 0", 1, "ZeroDivisionError: integer division or modulo by zero\n"),
    ],
)
def test_a_process_ends_with_the_status_of_its_command(end, status, error):
    ended = run(BUSY_THREAD + COMMAND.format(end=end))
    assert (ended.returncode, ended.stdout) == (status, "done\nlet go\n"), ended.stderr
    assert ended.stderr.endswith(error) and bool(ended.stderr) == bool(error)


def test_the_command_line_ends_so():
    ended = run(BUSY_THREAD + PAIRMILL)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the usage\nlet go\n", "")


def test_what_was_registered_before_is_called_as_well():
    """As by modules that `python -m` imports before the command runs."""
    script = """
        import os, tempfile
        from models.process_end import run_as_process

        folder = tempfile.TemporaryDirectory()
        print(folder.name)
        run_as_process(lambda: 0)
    """
    ended = run(textwrap.dedent(script))
    assert ended.returncode == 0 and not os.path.exists(ended.stdout.strip())


def test_a_job_as_a_module_leaves_nothing_in_temporary_folders(tmp_path):
    (tmp_path / "list.tsv").write_text("a brown dog runs across the beach .\thttp://a.example/1.jpg\n" * 2)
    (tmp_path / "temporary").mkdir()
    arguments = [f"--source=cc3m={tmp_path}/list.tsv", f"--output={tmp_path}/out", "--direct_num_workers=2"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "beam_jobs.select_pairs", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr
    assert not list((tmp_path / "temporary").iterdir())


def test_a_closed_output_is_no_error():
    command = f"{sys.executable} -m pipeline.cli --help >&-"
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")
