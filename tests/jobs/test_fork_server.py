"""Workers are forked from one process that has imported their modules; the launcher learns how each ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from beam_jobs import fork_server

# Stands in for Beam's worker: what it does is told by its environment.
STAND_IN = """
import atexit, os, signal, sys, threading, time, pathlib

class Noted:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT)
        self.write = os.write

    def note(self, text):
        self.write(self.file, text + b" ")

    def __del__(self):
        self.note(b"taken apart")

def note_end(path):
    noted = sys.noted = Noted(path)  # Python takes sys apart, too
    atexit.register(noted.note, b"atexit")
    threading.Thread(target=lambda: (time.sleep(0.1), noted.note(b"thread"))).start()

def main(arguments):
    pathlib.Path(os.environ["TOLD"]).write_text(
        f"{os.getcwd()} {os.environ.get('ONLY_LAUNCHER')} {signal.getsignal(signal.SIGINT) is signal.SIG_IGN}"
    )
    if "END" in os.environ:
        note_end(os.environ["END"])
    if "STATUS" in os.environ:
        sys.exit(int(os.environ["STATUS"]))
    if "SIGNAL" in os.environ:
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    time.sleep(float(os.environ.get("SLEEP", 0)))
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    command = "import sys, beam_jobs.fork_server as s; s.WORKER_MODULE = 'stand_in'; s.main(sys.argv[-1:])"
    monkeypatch.setattr(fork_server, "COMMAND", [*fork_server.COMMAND[:-2], "-c", command])
    monkeypatch.setattr(fork_server, "_loaded_modules", list)
    return fork_server.ForkServer()


def environment(tmp_path, **variables: str) -> dict[str, str]:
    return {"TOLD": str(tmp_path / "told"), **variables}


@pytest.mark.parametrize(
    ("variables", "status"), [({}, 0), ({"STATUS": "3"}, 3), ({"SIGNAL": "9"}, -9), ({"SIGNAL": "11"}, -11)]
)
def test_a_workers_status_arrives(server, tmp_path, variables, status):
    assert server.start_worker(environment(tmp_path, **variables)).wait() == status


def test_a_worker_has_the_folder_and_the_environment_of_its_request(server, tmp_path, monkeypatch):
    server.prepare()
    monkeypatch.setenv("ONLY_LAUNCHER", "1")
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path / "later")
    server.start_worker(environment(tmp_path)).wait()
    assert (tmp_path / "told").read_text() == f"{tmp_path / 'later'} None True"  # and it ignores Ctrl-C


def test_a_worker_ends_as_python_does_but_takes_nothing_apart(server, tmp_path):
    assert server.start_worker(environment(tmp_path, END=str(tmp_path / "end"))).wait() == 0
    assert (tmp_path / "end").read_text() == "thread atexit "


def test_a_timeout_of_all_sockets_changes_nothing(server, tmp_path, monkeypatch):
    send = socket.socket.sendall
    monkeypatch.setattr(socket.socket, "sendall", lambda *arguments: (time.sleep(0.5), send(*arguments)))
    server.prepare()
    socket.setdefaulttimeout(0.1)
    try:
        assert server.start_worker(environment(tmp_path, SLEEP="0.3")).wait() == 0
    finally:
        socket.setdefaulttimeout(None)


def test_a_killed_worker_ends_at_once_and_others_go_on(server, tmp_path):
    first, second = (server.start_worker(environment(tmp_path, SLEEP=seconds)) for seconds in ("600", "0.5"))
    first.kill()
    assert (first.wait(), second.wait()) == (-signal.SIGKILL, 0)


def test_a_server_that_has_ended_is_told_and_started_again(server, tmp_path):
    server.prepare()
    server._process.send_signal(signal.SIGSTOP)
    worker = server.start_worker(environment(tmp_path))
    server._process.kill()
    assert worker.wait() is None
    server._process.wait()
    assert server.start_worker(environment(tmp_path)).wait() == 0


def test_the_server_ends_with_a_launcher_that_was_killed():
    script = """
        import os, signal
        from beam_jobs.fork_server import ForkServer
        server = ForkServer()
        server.prepare()
        print(server._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    launcher = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{int(launcher.stdout)}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not launcher.stderr


def test_a_job_whose_workers_never_start_ends_with_one_line(tmp_path):
    (tmp_path / "cc3m.tsv").write_text("a red boat on the blue sea\thttp://example.org/1.jpg\n")
    script = """
        import sys
        from beam_jobs import fork_server
        from pipeline import cli
        fork_server.COMMAND = ["false"]
        folder = sys.argv[1]
        options = [f"--source=cc3m={folder}/cc3m.tsv", f"--output={folder}/out", "--direct_num_workers=2"]
        sys.exit(cli.main(["select", *options]))
    """
    job = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert (job.returncode, job.stdout) == (2, "")
    assert job.stderr == (
        "pairmill: the process that starts workers has ended; the same command continues with what was not finished\n"
    )
