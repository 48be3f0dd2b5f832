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

    def send_late(*arguments):
        time.sleep(0.5)
        send(*arguments)

    monkeypatch.setattr(socket.socket, "sendall", send_late)
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


@pytest.mark.parametrize("begin", ["prepare", "fork"])
def test_the_server_ends_with_a_launcher_that_was_killed(begin):
    launcher = launch(f"""
        import os, signal
        from beam_jobs import fork_server
        fork_server.WORKER_MODULE = "json"  # Beam's takes seconds to import
        serve = "import sys, beam_jobs.fork_server as s; s.WORKER_MODULE = 'json'; s.main(sys.argv[-1:])"
        fork_server.COMMAND = [*fork_server.COMMAND[:-2], "-c", serve]
        server = fork_server.ForkServer()
        server.{begin}()
        print(server._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{int(launcher.stdout)}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not launcher.stderr


def launch(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process that has no threads."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_server_that_was_forked_serves_and_stops(tmp_path):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    launcher = launch(
        """
        import os, signal, sys
        folder = sys.argv[1]
        sys.path.insert(0, folder)
        from beam_jobs import fork_server
        fork_server.WORKER_MODULE, fork_server.COMMAND = "stand_in", ["false"]
        server = fork_server.ForkServer()
        server.fork()
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
        for variables in ({}, {"STATUS": "3"}, {"SIGNAL": "9"}):
            print(server.start_worker({"TOLD": f"{folder}/told", **variables}).wait())
        killed = server.start_worker({"TOLD": f"{folder}/killed", "SLEEP": "600"})
        killed.kill()
        print(killed.wait())
        server.stop()
        print(os.path.exists(f"/proc/{server._process.pid}"))
        """,
        tmp_path,
    )
    assert launcher.stdout.split() == ["0", "3", "-9", "-9", "False"]
    assert (tmp_path / "told").read_text().endswith("True")  # a worker ignores Ctrl-C


# Each in a child of its own, without threads, of one process that has imported the command.
TWO_JOBS = """
import os, sys
import beam_jobs.select_pairs
from beam_jobs import fork_server
from pipeline import cli

fork_server.COMMAND = ["false"]
folder = sys.argv[1]
options = [f"--source=cc3m={folder}/cc3m.tsv", "--direct_num_workers=2"]

def as_a_command(arguments):
    sys.argv = ["pairmill", *arguments]
    return cli.main()

for name, main in ("called", cli.main), ("command", as_a_command):
    if not os.fork():
        for descriptor, stream in (1, "out"), (2, "err"):
            os.dup2(os.open(f"{folder}/{name}.{stream}", os.O_WRONLY | os.O_CREAT), descriptor)
        status = main(["select", *options, f"--output={folder}/{name}"])
        sys.stdout.flush()
        os._exit(status)
    print(name, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def two_jobs(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Two jobs whose workers no process but a fork of their own can start: the folder with what they printed, and how
    each ended."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "cc3m.tsv").write_text("a red boat on the blue sea\thttp://example.org/1.jpg\n" * 20)
    ended = launch(TWO_JOBS, folder).stdout.splitlines()
    return folder, dict(line.split() for line in ended)


def test_a_job_whose_workers_never_start_ends_with_one_line(two_jobs):
    folder, statuses = two_jobs
    assert (statuses["called"], (folder / "called.out").read_text()) == ("2", "")
    assert (folder / "called.err").read_text() == (
        "pairmill: the process that starts workers has ended; the same command continues with what was not finished\n"
    )


def test_a_command_forks_its_workers_from_itself(two_jobs):
    folder, statuses = two_jobs
    assert statuses["command"] == "0", (folder / "command.err").read_text()
