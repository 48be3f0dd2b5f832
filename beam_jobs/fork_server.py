"""Forks the local runner's workers from a process that has imported their modules; by itself, each would spend seconds
on that. On Linux that process is itself forked from the launcher, before it has threads.

The forkserver of `multiprocessing` runs the main script again in every worker, hands Ctrl-C back to it, and leaves a
folder in the temporary directory when its parent is killed; this one does not.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from models.process_end import exit_process

WORKER_MODULE = "apache_beam.runners.worker.sdk_worker_main"
PACKAGES = ("beam_jobs", "models", "pipeline")

# Ctrl-C reaches every process of the terminal: only the launcher acts on it. What a process ignores when it starts, it
# ignores from its first moment on, and so do those that it forks.
COMMAND = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", __name__]


class Request(NamedTuple):
    """What a worker starts with."""

    modules: list[str]  # that it needs imported
    environment: dict[str, str]
    folder: str  # the current one
    is_worker: bool  # False: only import the modules


class ForkServer:
    """A process that forks workers. It ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | _Forked | None = None
        self._requests: socket.socket | None = None

    def fork(self) -> None:
        """Forks the process from this one, which has imported what workers need: a new one would import it again.

        To be called before anything starts a thread: locks that a thread holds stay locked in the child. Does nothing
        where system libraries do not bear a fork without exec (macOS); the process is started when it is needed.
        """
        if sys.platform != "linux":
            return
        self._requests, server_end = _socket_pair()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until the child ignores it
        if not (pid := os.fork()):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            self._requests.close()
            _end_with(server_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        server_end.close()
        self._process = _Forked(pid)
        atexit.register(self._process.kill)

    def stop(self) -> None:
        """Ends the process, if there is one: the job has no worker processes."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def prepare(self) -> None:
        """Starts the process, if there is none, and lets it import what this one has imported. Returns at once."""
        self._send(Request(_loaded_modules(), {}, os.getcwd(), is_worker=False)).close()

    def start_worker(self, environment: dict[str, str]) -> Worker:
        """Forks a worker of Beam with these variables in its environment."""
        return Worker(self._send(Request(_loaded_modules(), environment, os.getcwd(), is_worker=True)))

    def _send(self, request: Request) -> socket.socket:
        launcher_end, server_end = _socket_pair()
        with contextlib.suppress(BrokenPipeError):  # it has just ended: the worker's `wait` tells
            with self._lock, server_end:
                socket.send_fds(self._running(), [b"1"], [server_end.fileno()])
            launcher_end.sendall(json.dumps(request._asdict()).encode() + b"\n")
        return launcher_end

    def _running(self) -> socket.socket:
        if self._requests is None or self._process is None or self._process.poll() is not None:
            self._requests, server_end = _socket_pair()
            with server_end:
                descriptor = server_end.fileno()
                self._process = subprocess.Popen([*COMMAND, str(descriptor)], pass_fds=[descriptor])
            atexit.register(self._process.kill)
        return self._requests


class _Forked:
    """A child that was forked, with the methods of subprocess.Popen."""

    def __init__(self, pid: int):
        self.pid = pid
        self._has_ended = False

    def poll(self) -> int | None:
        self._wait(os.WNOHANG)
        return 0 if self._has_ended else None

    def wait(self) -> None:
        self._wait(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> None:
        if not self._has_ended:
            self._has_ended = os.waitpid(self.pid, options)[0] == self.pid


class Worker:
    """A worker, seen from the launcher."""

    def __init__(self, channel: socket.socket):
        self._channel = channel

    def wait(self) -> int | None:
        """Returns its exit status once it has ended: as subprocess does, negative for a signal; None if the server has
        ended before."""
        status = b""
        with contextlib.suppress(ConnectionResetError):  # the server has not read its request
            status = self._channel.recv(16)
        self._channel.close()
        return int(status) if status else None

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._channel.shutdown(socket.SHUT_WR)


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(True)  # Beam's Google client gives all new sockets of the process a timeout
    return pair


def _loaded_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in PACKAGES and name != __name__]


class _Server:
    """The other end: imports, forks, and tells how workers ended."""

    def __init__(self, requests: socket.socket):
        self._requests = requests
        self._workers: dict[int, socket.socket] = {}
        self._ended, self._wakeup = socket.socketpair()  # SIGCHLD arrives here
        self._wakeup.setblocking(False)

    def serve(self) -> Request | None:
        """Returns in each worker that it forks what it starts with, and None in the server, once the launcher is gone.

        A worker whose launcher has closed its channel is killed.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        importlib.import_module(WORKER_MODULE)
        while True:
            ready, _, _ = select.select([self._requests, self._ended, *self._workers.values()], [], [])
            self._kill(pid for pid, channel in self._workers.items() if channel in ready)
            if self._ended in ready:
                self._ended.recv(4096)
            self._report_ended()
            if self._requests in ready:
                _, descriptors, _, _ = socket.recv_fds(self._requests, 1, 1)
                if not descriptors:
                    self._kill(self._workers)
                    return None
                if request := self._fork(socket.socket(fileno=descriptors[0])):
                    return request

    def _fork(self, channel: socket.socket) -> Request | None:
        """Returns the request in the worker, and None in the server."""
        with channel.makefile("rb") as lines:
            request = Request(**json.loads(lines.readline()))
        for name in request.modules:
            importlib.import_module(name)
        gc.freeze()  # the workers share these objects' memory, as long as no collection touches them
        if not request.is_worker:
            channel.close()
            return None
        if pid := os.fork():
            self._workers[pid] = channel
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (self._requests, self._ended, self._wakeup, channel, *self._workers.values()):
            other.close()
        return request

    def _kill(self, pids: Iterable[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def _report_ended(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._workers.pop(pid) as channel, contextlib.suppress(BrokenPipeError):  # nobody waits any more
                channel.sendall(b"%d" % os.waitstatus_to_exitcode(status))


def main(arguments: Sequence[str]) -> None:
    _serve(socket.socket(fileno=int(arguments[0])))


def _serve(requests: socket.socket) -> NoReturn:
    request = _Server(requests).serve()
    if request:
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        logging.getLogger().handlers.clear()  # as in a new process: a worker sends its records to the launcher
        importlib.import_module(WORKER_MODULE).main([])
    exit_process(0)  # finalisation would copy the memory that it shares with the others: a second of processor time


def _end_with(requests: socket.socket) -> NoReturn:
    """Serves, and ends the process as Python would: nothing reaches what the launcher was about to do at the fork."""
    status: object = 1
    try:
        _serve(requests)
    except SystemExit as exit_:
        status = exit_.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
