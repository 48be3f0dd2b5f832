"""A loopback server for the demo and the tests: the sample's images, the source files, and answers that go wrong.

    python sample/serve.py [--port 8093]

    with start() as server:  # on a free port
        urllib.request.urlopen(f"{server.url}/sources/cc3m.tsv")

What it serves, GET and HEAD, HTTP/1.1 with keep-alive:

    /images/NAME, /odd/NAME           files as they are, single ranges too; a list of links under the folder's own path
    /sources/NAME                     the source files, whose URLs lead to this very server
    /odd-routes/status/CODE/...       that status; with Retry-After where it is 429 or 503
    /odd-routes/redirect/CODE/PATH    a redirect to /PATH
    /odd-routes/circle/...            a redirect to itself
    /odd-routes/inward/...            a redirect to a private address
    /odd-routes/removed/NAME          a redirect to odd/photo_unavailable.png, or to its _l form for names in _l
    /odd-routes/mirror/ANY/NAME       the image NAME once more
    /odd-routes/noai/NAME             the image NAME with X-Robots-Tag: noai; likewise noimageai
    /odd-routes/slow/NAME             the image NAME after half a second
    /odd-routes/flaky/NAME            503 at every first try, the image NAME at every second
    /odd-routes/stall/...             no answer for as long as the client waits, a minute at most
    /odd-routes/drip/NAME             the image NAME, byte by byte, ten a second
    /odd-routes/cut/NAME              half of the image NAME under the length of the whole
    /odd-routes/huge/...              512 MiB, as the header says
    /odd-routes/endless/...           512 MiB, of which the header says nothing
"""

from __future__ import annotations

import argparse
import collections
import html
import mimetypes
import re
import select
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

if not __package__:  # run as a script: `sample` is the folder above, not a package yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sample.make_sources import DEFAULT_BASE, HERE, write_sources

HOST, DEFAULT_PORT = "127.0.0.1", urlsplit(DEFAULT_BASE).port
RETRY_AFTER_S = 1
SLOW_S = 0.5
STALL_S = 60.0
DRIP_S = 0.1  # a byte
HUGE_BYTES = 512 << 20
BLOCK = bytes(1 << 16)
FIRST_BLOCK = b"\xff\xd8\xff\xe0".ljust(len(BLOCK), b"\0")  # as a JPEG begins: what is none is dropped at once
PRIVATE_URL = "http://10.0.0.1/chair.jpg"
TYPES = {".webp": "image/webp", ".tsv": "text/tab-separated-values; charset=utf-8", ".jsonl": "application/jsonl"}


class Server:
    """A running server. Leave its `with` block, or call close(), to stop it."""

    def __init__(self, port: int = 0):
        self._http = _HTTPServer((HOST, port), _Handler)
        self.port: int = self._http.server_address[1]
        self.url = f"http://{HOST}:{self.port}"  # without a slash at its end
        self.requests = self._http.requests
        self._temporary = None
        if self.url != DEFAULT_BASE:  # the committed files name the default port
            self._temporary = tempfile.TemporaryDirectory(prefix="sample-sources-")
            write_sources(self._temporary.name, self.url)
            self._http.folders["sources"] = _files(Path(self._temporary.name))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="sample", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.closing.set()  # wakes the requests that wait
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def start(port: int = 0) -> Server:
    """A server on the loopback, in threads of this process; port 0 takes a free one. OSError if the port is taken."""
    return Server(port)


def _files(folder: Path) -> dict[str, Path]:
    """A folder's files by name: what is not in here can't be asked for, whatever the path looks like."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 256  # a fetcher opens many connections at once

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]):
        super().__init__(address, handler)
        self.folders = {name: _files(HERE / name) for name in ("images", "odd", "sources")}
        self.requests: list[tuple[str, int]] = []  # (path with query, status; 0 where none was sent)
        self.closing = threading.Event()
        self._tries: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def tries(self, path: str) -> int:
        """How often a path has been asked for, this time included."""
        with self._lock:
            self._tries[path] += 1
            return self._tries[path]

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Clients that hang up are no news here; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that an idle connection is kept
    disable_nagle_algorithm = True  # else header and body wait for each other's acknowledgement
    server: _HTTPServer

    def do_GET(self) -> None:
        folder, _, rest = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if folder == "odd-routes":
            route, _, rest = rest.partition("/")
            answer = _ROUTES.get(route)
            if answer:
                return answer(self, rest)
        elif rest in self.server.folders.get(folder, ()):
            return self._file(self.server.folders[folder][rest])
        elif folder in self.server.folders and not rest:
            return self._listing(folder)
        return self._status(404)

    do_HEAD = do_GET

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        path = getattr(self, "path", "")  # missing where the request line was none
        self.server.requests.append((path, int(code)))

    def log_message(self, format: str, *args: object) -> None:
        pass

    # answers that are as they should be

    def _answer(self, status: int, body: bytes, **headers: object) -> None:
        """Headers by name, '_' for '-'."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _file(self, path: Path, **headers: object) -> None:
        data = path.read_bytes()
        headers |= {"Content_Type": _content_type(path.name), "Accept_Ranges": "bytes"}
        part = _range(self.headers.get("Range"), len(data))
        if part is None:
            return self._answer(200, data, **headers)
        if not part:
            return self._answer(416, b"", Content_Range=f"bytes */{len(data)}")
        where = f"bytes {part.start}-{part.stop - 1}/{len(data)}"
        return self._answer(206, data[part.start : part.stop], Content_Range=where, **headers)

    def _listing(self, folder: str) -> None:
        links = (f'<a href="{html.escape(name)}">{html.escape(name)}</a><br>' for name in self.server.folders[folder])
        self._answer(200, "\n".join(links).encode(), Content_Type="text/html; charset=utf-8")

    def _status(self, status: int, **headers: object) -> None:
        body = f"{status} {HTTPStatus(status).phrase}\n".encode() if status != 204 else b""
        self._answer(status, body, Content_Type="text/plain; charset=utf-8", **headers)

    def _redirect(self, location: str, status: int = 302) -> None:
        self._answer(status, b"", Location=location)

    def _image(self, name: str, **headers: object) -> None:
        path = self.server.folders["images"].get(name.rpartition("/")[2])
        if path:
            self._file(path, **headers)
        else:
            self._status(404)

    # answers that are not

    def _any_status(self, rest: str) -> None:
        code = rest.partition("/")[0]
        status = int(code) if code in {str(int(known)) for known in HTTPStatus if known >= 200} else 404
        self._status(status, **({"Retry_After": RETRY_AFTER_S} if status in (429, 503) else {}))

    def _any_redirect(self, rest: str) -> None:
        code, _, target = rest.partition("/")
        if code in ("301", "302", "303", "307", "308") and target:
            self._redirect(f"/{target}", int(code))
        else:
            self._status(404)

    def _removed(self, rest: str) -> None:
        large = "_l" if Path(rest).stem.endswith("_l") else ""
        self._redirect(f"/odd/photo_unavailable{large}.png")

    def _slow(self, rest: str) -> None:
        self.server.closing.wait(SLOW_S)
        self._image(rest)

    def _flaky(self, rest: str) -> None:
        if self.server.tries(self.path) % 2:
            self._status(503, Retry_After=RETRY_AFTER_S)
        else:
            self._image(rest)

    def _stall(self, rest: str) -> None:
        self.log_request(0)
        self._wait_for_client(STALL_S)
        self.close_connection = True

    def _drip(self, rest: str) -> None:
        data = self._begin_image(rest)
        for byte in data:
            if self._wait_for_client(DRIP_S):
                break
            self.wfile.write(bytes([byte]))

    def _cut(self, rest: str) -> None:
        data = self._begin_image(rest)
        self.wfile.write(data[: len(data) // 2])

    def _huge(self, rest: str) -> None:
        self._zeros({"Content-Length": str(HUGE_BYTES)})

    def _endless(self, rest: str) -> None:
        self._zeros({"Connection": "close"})  # without a length, the end of the connection is the end of the body

    def _begin_image(self, name: str) -> bytes:
        """Sends the header of an image and returns the body; the connection will not be used again."""
        self.close_connection = True
        path = self.server.folders["images"].get(name)
        if path is None:
            self._status(404)
            return b""
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", _content_type(name))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return b"" if self.command == "HEAD" else data

    def _zeros(self, headers: dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for number in range(HUGE_BYTES // len(BLOCK) if self.command != "HEAD" else 0):
            if self.server.closing.is_set():
                break
            self.wfile.write(BLOCK if number else FIRST_BLOCK)

    def _wait_for_client(self, seconds: float) -> bool:
        """Waits; True as soon as the client has hung up or the server closes."""
        waited = 0.0
        while waited < seconds and not self.server.closing.is_set():
            step = min(0.1, seconds - waited)
            if select.select([self.connection], [], [], step)[0]:
                return True  # only a hang-up: nobody sends a second request before the first is answered
            waited += step
        return self.server.closing.is_set()


_ROUTES: dict[str, Callable[[_Handler, str], None]] = {
    "status": _Handler._any_status,
    "redirect": _Handler._any_redirect,
    "circle": lambda handler, rest: handler._redirect(handler.path),
    "inward": lambda handler, rest: handler._redirect(PRIVATE_URL),
    "removed": _Handler._removed,
    "mirror": _Handler._image,
    "noai": lambda handler, rest: handler._image(rest, X_Robots_Tag="noai"),
    "noimageai": lambda handler, rest: handler._image(rest, X_Robots_Tag="noimageai"),
    "slow": _Handler._slow,
    "flaky": _Handler._flaky,
    "stall": _Handler._stall,
    "drip": _Handler._drip,
    "cut": _Handler._cut,
    "huge": _Handler._huge,
    "endless": _Handler._endless,
}


def _content_type(name: str) -> str:
    """By the ending, compression left in place: a .gz is sent as it is stored."""
    kind, encoding = mimetypes.guess_type(name)
    default = kind if kind and not encoding else "application/octet-stream"
    return TYPES.get(Path(name).suffix, default)


def _range(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for; empty if there are none such, None for all of them.

    Anything but one range of bytes may be ignored (RFC 9110, 14.2), and is.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "", re.ASCII)
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(0, size - int(match[2])), size)
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    return range(int(match[1]), last + 1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Serves the sample on the loopback until interrupted.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)")
    port = parser.parse_args(arguments).port
    try:
        server = start(port)
    except (OSError, OverflowError) as error:
        print(f"can't listen on {HOST}:{port}: {error}; choose another with --port", file=sys.stderr)
        return 2
    with server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(f"serving {server.url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
