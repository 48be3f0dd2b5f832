"""A pool of Beam's workers on another host, as far as one machine can be two: namespaces of its own for network, mounts
and processes, a copy of the code at another path, another user. Of this host it reaches some ports, by their numbers.

Run as a script, in these namespaces, it makes the host and runs the pool; it needs nothing but the standard library."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

NOBODY = 65534
BASE = Path("/mnt")  # of the other host's own files
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
POOL = "apache_beam.runners.worker.worker_pool_main"


class Host(NamedTuple):
    """What the script is told."""

    root: str  # the folder with the code, whose packages are hidden
    packages: list[str]
    sockets: str  # a folder: NUMBER of each port, the pool's among them
    ports: list[int]  # of this host
    pool_port: int
    environment: dict[str, str]


class Running(NamedTuple):
    """A pool: its port on this host, and the process whose end is that of the host."""

    port: int
    process: subprocess.Popen

    @property
    def workers(self) -> list[int]:
        """Process ids of what the pool has started."""
        pools = [pool for script in _children(self.process.pid) for pool in _children(script)]
        return [worker for pool in pools for worker in _children(pool)]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_possible() -> bool:
    """Whether this user may make namespaces, and mount in them."""
    return os.geteuid() == 0 and not subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode


@contextlib.contextmanager
def other_host(root: Path, ports: Sequence[int], pool_port: int, log: Path) -> Iterator[Running]:
    """Runs a pool until the end of the block."""
    with tempfile.TemporaryDirectory() as sockets, _forwarding() as forward, open(log, "ab") as output:
        for port in ports:
            forward(f"{sockets}/{port}", port)
        packages = ["models", "pipeline", "beam_jobs"]
        kept = {name: os.environ[name] for name in os.environ if name.startswith(("AWS_", "STORAGE_"))}
        host = Host(str(root), packages, sockets, list(ports), pool_port, kept)
        command = [*NAMESPACES, sys.executable, __file__, json.dumps(host)]
        with subprocess.Popen(command, stdout=output, stderr=output) as process:
            forward(pool_port, f"{sockets}/{pool_port}")
            try:
                yield Running(pool_port, process)
            finally:
                process.kill()


# --- ports -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _forwarding():
    """Gives a function that lets a port or a socket lead to another one, until the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def forward(source: int | str, target: int | str) -> None:
        asyncio.run_coroutine_threadsafe(_listen(source, target), loop).result(10)

    yield forward
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


async def _listen(source: int | str, target: int | str) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await _connect(target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    if isinstance(source, int):
        await asyncio.start_server(connected, "127.0.0.1", source)
    else:
        await asyncio.start_unix_server(connected, source)


def _connect(target: int | str):
    if isinstance(target, int):
        return asyncio.open_connection("127.0.0.1", target)
    return asyncio.open_unix_connection(target)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


# --- in the namespaces -----------------------------------------------------------------------------------------------


def main() -> None:
    host = Host(*json.loads(sys.argv[1]))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    _mount(host)
    with _forwarding() as forward:
        for port in host.ports:
            forward(port, f"{host.sockets}/{port}")
        forward(f"{host.sockets}/{host.pool_port}", host.pool_port)
        environment = {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"]),  # workers start as `python`
            "PYTHONPATH": str(BASE / "code"),
            "HOME": str(BASE / "tmp"),
            "TMPDIR": str(BASE / "tmp"),
            **host.environment,
        }
        command = [sys.executable, "-m", POOL, "--service_port", str(host.pool_port), "--container_executable", _boot()]
        subprocess.run(command, cwd=BASE, env=environment, user=NOBODY, group=NOBODY, extra_groups=[], check=True)


def _mount(host: Host) -> None:
    """Copies the code to its new path, hides the old one, and lets another user reach Python itself."""
    _tmpfs(BASE)
    for name in host.packages:
        source = Path(host.root, name)
        shutil.copytree(source, BASE / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
        _tmpfs(source)
    shutil.copy(Path(__file__).with_name("boot.py"), BASE)
    (BASE / "tmp").mkdir()
    os.chown(BASE / "tmp", NOBODY, NOBODY)
    for prefix in {Path(sys.prefix), Path(sys.base_prefix)}:
        _open_way(prefix)
    assert not Path(host.root, "models", "errors.py").exists()


def _boot() -> str:
    """The program that the pool starts workers with."""
    program = BASE / "boot"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {BASE}/boot.py "$@"\n')
    program.chmod(0o755)
    return str(program)


def _open_way(folder: Path) -> None:
    """Puts an open folder over the first one on the way that only its owner may enter, such as /root."""
    if closed := next((each for each in reversed(folder.parents) if not each.stat().st_mode & 1), None):
        stage = BASE / "python" / folder.name
        stage.mkdir(parents=True)
        _bind(folder, stage)
        _tmpfs(closed)
        folder.mkdir(parents=True)
        _bind(stage, folder)


def _tmpfs(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)


def _bind(source: Path, target: Path) -> None:
    subprocess.run(["mount", "--bind", source, target], check=True)


if __name__ == "__main__":
    main()
