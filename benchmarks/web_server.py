"""A small static web server for measurements: quick, on every loopback address, with latency and failures if asked.

    python -m benchmarks.web_server FOLDER [--latency LOW HIGH] [--failures SHARE]

Prints its port, then a line of JSON with the number of requests by status when its standard input ends. The latency of
a host follows from its name, and whether a URL fails from its text: both sides of a comparison meet the same.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import sys
import zlib
from pathlib import Path

FAILURES = ("404 Not Found", "503 Service Unavailable")  # in turn


class Server:
    """Answers GET with the file of a folder that the path names; what follows a question mark tells URLs apart."""

    def __init__(self, folder: Path, latency_s: tuple[float, float], failures: float):
        self._files = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
        self._latency_s, self._failures = latency_s, failures
        self.answers: collections.Counter[str] = collections.Counter()

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                url = request.split(b" ", 2)[1].decode()
                delay_s, status = self.fate(_host(request), url)
                if delay_s:
                    await asyncio.sleep(delay_s)
                body = self._files.get(url.partition("?")[0], b"") if status == "200 OK" else b""
                self.answers[status] += 1
                head = f"HTTP/1.1 {status}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
                close = b"connection: close" in request.lower()
                writer.write(f"{head}Connection: {'close' if close else 'keep-alive'}\r\n\r\n".encode())
                writer.write(body)
                await writer.drain()
                if close:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    def fate(self, host: bytes, url: str) -> tuple[float, str]:
        """Seconds until the answer, and its status."""
        drawn = zlib.crc32(host) / 2**32
        low, high = self._latency_s
        failing = zlib.crc32(url.encode(), 1) / 2**32
        status = "200 OK" if failing >= self._failures else FAILURES[failing < self._failures / 2]
        return low + drawn * (high - low), status


def _host(request: bytes) -> bytes:
    """The value of the Host header, without the port, which differs from run to run."""
    return request.lower().partition(b"\r\nhost:")[2].partition(b"\r\n")[0].strip().partition(b":")[0]


async def serve(server: Server) -> None:
    listening = await asyncio.start_server(server.serve_connection, "0.0.0.0", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(server.answers), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0), metavar="S", help="seconds, from and to")
    parser.add_argument("--failures", type=float, default=0.0, metavar="SHARE", help="of the URLs; half 404, half 503")
    args = parser.parse_args()
    asyncio.run(serve(Server(args.folder, tuple(args.latency), args.failures)))


if __name__ == "__main__":
    main()
