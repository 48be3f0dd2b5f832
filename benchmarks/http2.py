"""Processor time of downloading alone, an image: aiohttp over HTTP/1.1, which `fetch` uses, beside httpx over HTTP/2.

    python -m benchmarks.http2 [--pictures N]

Both take the photographs of benchmarks/fetch.py over TLS from an nginx on the loopback, over at most 4 connections.
Needs nginx and openssl on the path, and httpx[http2].
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import h2  # noqa: F401 (httpx's HTTP/2, which it imports late)
import httpcore  # noqa: F401 (likewise)
import httpx

from benchmarks.fetch import PHOTOGRAPHS, make_photographs
from benchmarks.serving import nginx
from models.text_table import table

CONNECTIONS = 4
STREAMS = 16  # at once, over HTTP/2


@contextlib.contextmanager
def tls_nginx(folder: Path, work: Path) -> Iterator[int]:
    """The port of an nginx that speaks HTTP/1.1 and 2."""
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            work / "key",
            "-out",
            work / "certificate",
        ],
        check=True,
        capture_output=True,
    )
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is not installed"
    certified = f"ssl_certificate {work}/certificate; ssl_certificate_key {work}/key;"
    with nginx(program, folder, work, "ssl http2", certified) as port:
        yield port


async def all_of(get: Callable[[str], Awaitable[int]], urls: list[str], at_once: int) -> int:
    """Bytes of all."""
    room = asyncio.Semaphore(at_once)

    async def one(url: str) -> int:
        async with room:
            return await get(url)

    return sum(await asyncio.gather(*map(one, urls)))


async def with_aiohttp(urls: list[str], context: ssl.SSLContext) -> int:
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get(url: str) -> int:
            async with session.get(url) as response:
                return len(await response.read())

        return await all_of(get, urls, CONNECTIONS)


async def with_httpx(urls: list[str], context: ssl.SSLContext, http2: bool) -> int:
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(http1=not http2, http2=http2, verify=context, limits=limits, timeout=120) as client:

        async def get(url: str) -> int:
            response = await client.get(url)
            assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            return len(response.content)

        return await all_of(get, urls, STREAMS if http2 else CONNECTIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=1000, metavar="N")
    args = parser.parse_args()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with tempfile.TemporaryDirectory() as temporary:
        work, folder = Path(temporary), Path(temporary) / "photographs"
        folder.mkdir()
        for path in (work, folder):
            path.chmod(0o755)  # nginx's worker is another user if root started it
        make_photographs(folder)
        rows = []
        with tls_nginx(folder, work) as port:
            urls = [f"https://127.0.0.1:{port}/{n % PHOTOGRAPHS}.jpg?{n}" for n in range(args.pictures)]
            for name, run in (
                ("aiohttp, HTTP/1.1", lambda: with_aiohttp(urls, context)),
                ("httpx, HTTP/1.1", lambda: with_httpx(urls, context, False)),
                ("httpx, HTTP/2", lambda: with_httpx(urls, context, True)),
            ):
                started = time.process_time()
                length = asyncio.run(run())
                cpu_ms = (time.process_time() - started) * 1000 / len(urls)
                rows.append((name, round(length / 1e6, 1), round(cpu_ms, 2)))
        print(table(["", "MB", "CPU ms an image"], rows))


if __name__ == "__main__":
    main()
