"""Web servers on the loopback for benchmarks, in processes of their own: nginx, or benchmarks/web_server.py."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


def free_port() -> int:
    """A TCP port of the loopback that nothing listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@contextlib.contextmanager
def nginx(
    program: str,
    folder: Path,
    work: Path,
    listen: str = "backlog=4096",
    more: str = "",
    addresses: Sequence[str] = ("127.0.0.1",),
    port: int | None = None,
) -> Iterator[int]:
    """The port (a free one if None) of an nginx with one worker that serves a folder at each address; `listen` are
    options of its line, and `more` goes into its block of the server."""
    port = port or free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {work}/nginx; " for kind in kinds)
    listens = "".join(f"listen {address}:{port} {listen}; " for address in addresses)
    settings = work / "nginx.conf"
    settings.write_text(f"""
        worker_processes 1; daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log;
        events {{ worker_connections 4096; }}
        http {{ access_log off; sendfile on; keepalive_requests 100000; types {{ image/jpeg jpg; }} {places}
               server {{ {listens} root {folder}; {more} }} }}""")
    running = subprocess.Popen([program, "-p", str(work), "-c", str(settings), "-e", str(work / "nginx.log")])
    try:
        for _ in range(50):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection((addresses[0], port)):
                break
            time.sleep(0.1)
        yield port
    finally:
        running.terminate()
        running.wait()


@contextlib.contextmanager
def own_server(folder: Path, *options: str) -> Iterator[int]:
    """The port of benchmarks/web_server.py."""
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.web_server", str(folder), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout
    try:
        yield int(running.stdout.readline())
    finally:
        said, _ = running.communicate()
        print(f"  answers of the server: {said.decode().strip()}")
