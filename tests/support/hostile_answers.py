"""The answers of the hostile server: one handler for each way to go wrong, named by the first part of the path."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from tests.support.images import (
    JPEG_START,
    animated_gif,
    gone_jpeg,
    gzip_bomb,
    jpeg,
    large_jpeg,
    png_of,
    rotated_jpeg,
    text_bomb,
)

if TYPE_CHECKING:
    from tests.support.hostile import HostileServer

BLOCK = bytes(1 << 16)
FOREVER_S = 60.0


class Request(NamedTuple):
    time: float  # on time.monotonic()
    host: int  # last number of the address
    path: str  # with query, without the first slash
    headers: dict[str, str]  # names in lower case


class Answer:
    """One answer in the making."""

    def __init__(self, server: HostileServer, request: Request, writer: asyncio.StreamWriter):
        self.server, self.request, self.writer = server, request, writer
        self.keep_alive = False

    @property
    def rest(self) -> str:
        """The path after the handler's name."""
        return self.request.path.partition("/")[2]

    @property
    def tries(self) -> int:
        """How often this path has been asked for, this time included."""
        return len(self.server.requests(self.request.path))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0)  # drain() lets nobody else have a turn as long as the client reads on
        self.server.sent[self.request.path] += len(data)

    async def head(self, status: str = "200 OK", **headers: object) -> None:
        """Headers by name, '_' for '-'; those that are None are left out."""
        headers = {"Content_Type": "image/jpeg", "Connection": "keep-alive" if self.keep_alive else "close"} | headers
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
        await self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("utf-8", "surrogateescape"))

    async def whole(self, body: bytes, status: str = "200 OK", **headers: object) -> None:
        """An answer that is as it should be."""
        self.keep_alive = True
        await self.head(status, Content_Length=len(body), **headers)
        await self.send(body)


Handler = Callable[[Answer], Awaitable[None]]
HANDLERS: dict[str, Handler] = {}


def handler(function: Handler) -> Handler:
    HANDLERS[function.__name__] = function
    return function


@handler
async def good(answer: Answer) -> None:
    """The rest of the path makes images different."""
    await answer.whole(jpeg(seed=zlib.crc32(answer.rest.encode())))


@handler
async def plain(answer: Answer) -> None:
    """Always the same."""
    await answer.whole(jpeg())


@handler
async def slow(answer: Answer) -> None:
    """Good, after a moment."""
    await asyncio.sleep(0.1)
    await good(answer)


@handler
async def large(answer: Answer) -> None:
    """WIDTHxHEIGHT/..."""
    width, height = map(int, answer.rest.partition("/")[0].split("x"))
    await answer.whole(large_jpeg(width, height))


@handler
async def endless(answer: Answer) -> None:
    await answer.head()
    await answer.send(JPEG_START)
    while True:
        await answer.send(BLOCK)


@handler
async def endless_page(answer: Answer) -> None:
    await answer.head()
    while True:
        await answer.send(b"<p>Buy now!</p>\n" * 4096)


@handler
async def drip(answer: Answer) -> None:
    """One byte a second."""
    body = jpeg()
    await answer.head(Content_Length=len(body))
    for byte in body:
        await answer.send(bytes([byte]))
        await asyncio.sleep(1)


@handler
async def stall(answer: Answer) -> None:
    await asyncio.sleep(FOREVER_S)


@handler
async def stall_once(answer: Answer) -> None:
    if answer.tries == 1:
        await asyncio.sleep(FOREVER_S)
    await good(answer)


@handler
async def announces_much(answer: Answer) -> None:
    await answer.head(Content_Length=10**15)
    await answer.send(jpeg())
    await asyncio.sleep(FOREVER_S)


@handler
async def announces_nonsense(answer: Answer) -> None:
    await answer.head(Content_Length="-5")
    await answer.send(jpeg())


@handler
async def no_length(answer: Answer) -> None:
    """The end of the connection is the end of the body."""
    await answer.head()
    await answer.send(jpeg())


@handler
async def too_short(answer: Answer) -> None:
    """Fewer bytes than announced, then the end."""
    body = jpeg()
    await answer.head(Content_Length=2 * len(body))
    await answer.send(body)


@handler
async def too_short_and_open(answer: Answer) -> None:
    """Fewer bytes than announced, then nothing."""
    body = jpeg()
    await answer.head(Content_Length=2 * len(body))
    await answer.send(body)
    await asyncio.sleep(FOREVER_S)


@handler
async def too_long(answer: Answer) -> None:
    """CONNECTION: an image, and more bytes than announced."""
    body = jpeg()
    await answer.head(Content_Length=len(body), Connection=answer.rest)
    await answer.send(body + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")


@handler
async def half_announced(answer: Answer) -> None:
    """An image, of which only half is announced."""
    body = jpeg()
    await answer.head(Content_Length=len(body) // 2, Connection="keep-alive")
    await answer.send(body[: len(body) // 2])
    await asyncio.sleep(0.2)
    await answer.send(body[len(body) // 2 :])


@handler
async def gzipped(answer: Answer) -> None:
    """Not asked for, but harmless."""
    await answer.whole(gzip.compress(jpeg()), Content_Encoding="gzip")


@handler
async def bomb_gzip(answer: Answer) -> None:
    await answer.whole(gzip_bomb(), Content_Encoding="gzip")


@handler
async def bomb_png(answer: Answer) -> None:
    await answer.whole(png_of(60_000, 60_000), Content_Type="image/png")


@handler
async def bomb_text(answer: Answer) -> None:
    await answer.whole(text_bomb(), Content_Type="image/png")


@handler
async def half_gzipped(answer: Answer) -> None:
    """A compressed body that was cut before the server got it."""
    body = gzip.compress(jpeg())
    await answer.whole(body[: len(body) // 2], Content_Encoding="gzip")


@handler
async def loop(answer: Answer) -> None:
    await answer.whole(b"", "302 Found", Location=f"/{answer.request.path}")


@handler
async def to(answer: Answer) -> None:
    """A redirect to what the rest of the path says, in hex."""
    location = bytes.fromhex(answer.rest).decode("utf-8", "surrogateescape")
    await answer.whole(b"", "302 Found", Location=location)


@handler
async def slow_redirects(answer: Answer) -> None:
    """slow_redirects/N: N redirects, each after half a second, then an image."""
    number = int(answer.rest)
    if not number:
        await answer.whole(jpeg())
        return
    await asyncio.sleep(0.5)
    await answer.head("302 Found", Location=f"/slow_redirects/{number - 1}", Content_Length=0)


def redirect(location: str) -> str:
    """The path that `to` leads on."""
    return f"to/{location.encode('utf-8', 'surrogateescape').hex()}"


@handler
async def nowhere(answer: Answer) -> None:
    """A redirect that does not say where to."""
    await answer.whole(b"", "301 Moved Permanently")


@handler
async def status(answer: Answer) -> None:
    """STATUS/..."""
    await answer.whole(b"sorry", f"{answer.rest.partition('/')[0]} Sorry", Content_Type="text/plain")


@handler
async def busy(answer: Answer) -> None:
    """SECONDS/TRIES/...: 429 so often, with Retry-After unless it is 'x', then good."""
    seconds, tries, *_ = answer.rest.split("/")
    if answer.tries <= int(tries):
        await answer.whole(b"", "429 Too Many Requests", Retry_After=None if seconds == "x" else seconds)
    else:
        await good(answer)


@handler
async def unavailable(answer: Answer) -> None:
    """SECONDS/...: 503 with Retry-After."""
    await answer.whole(b"", "503 Service Unavailable", Retry_After=answer.rest.partition("/")[0])


@handler
async def unavailable_once(answer: Answer) -> None:
    """503, and the next time good."""
    if answer.tries == 1:
        await answer.whole(b"", "503 Service Unavailable")
    else:
        await good(answer)


@handler
async def reset(answer: Answer) -> None:
    """In the middle of the body."""
    body = jpeg()
    await answer.head(Content_Length=len(body))
    await answer.send(body[: len(body) // 2])
    await asyncio.sleep(0.1)
    _abort(answer)


@handler
async def reset_at_once(answer: Answer) -> None:
    _abort(answer)


def _abort(answer: Answer) -> None:
    linger = struct.pack("ii", 1, 0)  # closing then sends a reset, not an end
    answer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    answer.writer.transport.abort()


@handler
async def empty(answer: Answer) -> None:
    await answer.whole(b"")


@handler
async def page(answer: Answer) -> None:
    await answer.whole(b"<!DOCTYPE html><html><body>This picture has moved.</body></html>" * 100)


@handler
async def portal(answer: Answer) -> None:
    """Good, but a page for everybody as long as `server.portal` is set."""
    await (page if answer.server.portal else good)(answer)


@handler
async def truncated(answer: Answer) -> None:
    """A JPEG that was cut before the server got it."""
    await answer.whole(jpeg()[:-2000])


@handler
async def bad_chunks(answer: Answer) -> None:
    await answer.head(Transfer_Encoding="chunked")
    await answer.send(b"64\r\n" + jpeg()[:100] + b"\r\nno number\r\n" + bytes(100))


@handler
async def cut_chunks(answer: Answer) -> None:
    """The last chunk, which says that it is the last, is missing."""
    body = jpeg()
    await answer.head(Transfer_Encoding="chunked")
    await answer.send(b"%x\r\n%s\r\n" % (len(body), body))


@handler
async def endless_chunk_size(answer: Answer) -> None:
    await answer.head(Transfer_Encoding="chunked")
    while True:
        await answer.send(b"0" * 65536)


@handler
async def endless_headers(answer: Answer) -> None:
    await answer.send(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        await answer.send(b"X-%d: %s\r\n" % (number, b"x" * 1000))


@handler
async def endless_header(answer: Answer) -> None:
    await answer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        await answer.send(b"x" * 65536)


@handler
async def slow_headers(answer: Answer) -> None:
    await answer.send(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        await answer.send(b"X-%d: x\r\n" % number)
        await asyncio.sleep(0.1)


@handler
async def no_http(answer: Answer) -> None:
    await answer.send(b"220 smtp.example.org ready\r\n")


@handler
async def placeholder(answer: Answer) -> None:
    await answer.whole(b"", "302 Found", Location="/photo_unavailable_l.png")


@handler
async def same_placeholder(answer: Answer) -> None:
    """The image that stands for all that are gone, under their own names."""
    await answer.whole(gone_jpeg())


@handler
async def says(answer: Answer) -> None:
    """NAME/VALUE: a good image with that header."""
    name, value, *_ = answer.rest.replace("%20", " ").split("/")
    await answer.whole(jpeg(), **{name.replace("-", "_"): value})


@handler
async def sets_cookie(answer: Answer) -> None:
    """And sends on to a path of the same host."""
    await answer.whole(b"", "302 Found", Location="/good/cookie", Set_Cookie="id=1; Path=/")


@handler
async def rotated(answer: Answer) -> None:
    await answer.whole(rotated_jpeg())


@handler
async def animated(answer: Answer) -> None:
    await answer.whole(animated_gif(), Content_Type="image/gif")


@handler
async def thin(answer: Answer) -> None:
    """1 x 30,000 px; the header tells, and what follows is long."""
    await answer.head(Content_Type="image/png")
    await answer.send(png_of(1, 30_000))
    while True:
        await answer.send(BLOCK)
