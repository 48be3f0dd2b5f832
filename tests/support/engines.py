"""Beam's services in processes of their own: Prism, Python's job service, pools of workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

START_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def service(
    command: list[str], port: int, cwd: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """Runs a command that listens at a port until the end of the block; what it prints goes to a file in `cwd`."""
    # The worker pool starts its workers as `python`: the one of this environment, which need not be activated.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    with (
        open(cwd / f"service-{port}.log", "wb") as log,
        subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PATH": path, **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_for(port, process)
            yield process
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Returns once a process listens at a port."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f"{process.args!r} does not listen at {port}")


@contextlib.contextmanager
def python_service(
    module: str, port_option: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Runs a Beam service at a free port, which it gives."""
    port = free_port()
    with service([sys.executable, "-m", module, port_option, str(port)], port, cwd, environment):
        yield port


def prism_program() -> str:
    """The program that `make engines` builds, or one on the PATH; skips the test without one."""
    folders = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    return shutil.which("prism", path=folders) or pytest.skip("needs Beam's Prism: make engines")


@contextlib.contextmanager
def prism_process(cwd: Path) -> Iterator[tuple[int, subprocess.Popen]]:
    """Runs Prism's job service. Gives its port and process."""
    port = free_port()
    command = [prism_program(), f"--job_port={port}", "--serve_http=false", "--idle_shutdown_timeout=-1s"]
    with service(command, port, cwd) as process:
        yield port, process


@contextlib.contextmanager
def prism(cwd: Path) -> Iterator[int]:
    """Runs Prism's job service at a free port, which it gives."""
    with prism_process(cwd) as (port, _):
        yield port


@contextlib.contextmanager
def worker_pool(cwd: Path) -> Iterator[tuple[int, subprocess.Popen]]:
    """Runs a pool, which starts workers where an engine asks it to. Gives its port and process."""
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    with service([sys.executable, "-m", module, "--service_port", str(port)], port, cwd) as process:
        yield port, process
