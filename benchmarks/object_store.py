"""A store of S3's interface in memory, as far as Beam and `byte_ranges` use it, which counts its requests and takes its
time for each.

moto's server, which the tests use, sorts all keys for each page of a list: too slow for a quarter of a million.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

PAGE = 1000  # keys of a page, as of S3
DATE = "2026-01-01T00:00:00.000Z"


class Request(NamedTuple):
    """What was asked for, and the bytes of the body and of the answer's."""

    method: str
    key: str
    received: int
    sent: int


class ObjectStore:
    """Objects by their keys, in one bucket of any name."""

    def __init__(self, delay_s: float = 0.0, busy_deletes: int = 0):
        self.objects: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.answered_requests: list[Request] = []
        self.most_at_once = 0
        self._delay_s, self._busy_deletes, self._now = delay_s, busy_deletes, 0
        self._parts: dict[str, dict[int, bytes]] = {}  # by their numbers
        self._keys: list[str] = []  # sorted, as of the first page of a list

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        what = next((name for name in ("delete", "uploads", "uploadId", "list-type") if name in request.query), "")
        self.requests[f"{request.method} {what}".strip()] += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self._delay_s)
            answer = self._answer(request, what, body)
            sent = len(answer.body) if isinstance(answer.body, bytes) and request.method != "HEAD" else 0
            self.answered_requests.append(Request(request.method, _key(request), len(body), sent))
            return answer
        finally:
            self._now -= 1

    def _answer(self, request: web.Request, what: str, body: bytes) -> web.Response:
        key = _key(request)
        if what == "list-type":
            return self._list(request.query["prefix"], request.query.get("continuation-token", ""))
        if what == "delete":
            return self._delete(body)
        if what == "uploads":
            self._parts[key] = {}
            return _xml(f"<InitiateMultipartUploadResult><UploadId>{len(self._parts)}</UploadId>")
        if what == "uploadId":
            return self._part(request, key, body)
        if request.method == "PUT":
            source = request.headers.get("x-amz-copy-source")
            self.objects[key] = self.objects[source.partition("/")[2]] if source else body
            return _xml(f"<CopyObjectResult><ETag>{_etag(self.objects[key])}</ETag>") if source else _file(b"")
        if key not in self.objects:
            return _xml("<Error><Code>NoSuchKey</Code>", status=404)
        return _file(self.objects[key], request.http_range)

    def _part(self, request: web.Request, key: str, body: bytes) -> web.Response:
        number = int(request.query.get("partNumber", 0))
        if source := request.headers.get("x-amz-copy-source"):
            first, last = map(int, request.headers["x-amz-copy-source-range"].removeprefix("bytes=").split("-"))
            self._parts[key][number] = part = self.objects[source.partition("/")[2]][first : last + 1]
            return _xml(f"<CopyPartResult><ETag>{_etag(part)}</ETag>")
        if request.method == "PUT":
            self._parts[key][number] = body
            return _file(b"")
        self.objects[key] = b"".join(part for _, part in sorted(self._parts.pop(key).items()))
        return _xml(f"<CompleteMultipartUploadResult><ETag>{_etag(body)}</ETag>")

    def _list(self, prefix: str, after: str) -> web.Response:
        if not after:
            self._keys = sorted(self.objects)
        start = bisect.bisect_right(self._keys, after) if after else bisect.bisect_left(self._keys, prefix)
        page = [key for key in self._keys[start : start + PAGE] if key.startswith(prefix)]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{DATE}</LastModified><ETag>e</ETag><Size>1</Size></Contents>"
            for key in page
        )
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(page) == PAGE else ""
        return _xml(f"<ListBucketResult><KeyCount>{len(page)}</KeyCount>{rows}{more}")

    def _delete(self, body: bytes) -> web.Response:
        keys = [element.text or "" for element in ElementTree.fromstring(body).iter() if element.tag.endswith("Key")]
        busy = keys[:1] if self._busy_deletes > 0 else []
        self._busy_deletes -= 1
        for key in keys[len(busy) :]:
            self.objects.pop(key, None)
        errors = "".join(f"<Error><Key>{key}</Key><Code>SlowDown</Code><Message>slow</Message></Error>" for key in busy)
        return _xml(
            "<DeleteResult>"
            + "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys[len(busy) :])
            + errors
        )


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _key(request: web.Request) -> str:
    return request.path.lstrip("/").partition("/")[2]


def _file(data: bytes, part: slice = slice(None)) -> web.Response:
    """An object or, with status 206, a part of it."""
    headers = {"ETag": _etag(data), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    status = 200
    if part.start is not None:
        start, stop, _ = part.indices(len(data))
        if start >= stop:
            return web.Response(status=416, headers=headers)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        data, status = data[start:stop], 206
    return web.Response(body=data, headers=headers, status=status, content_type="application/octet-stream")


def _xml(text: str, status: int = 200) -> web.Response:
    """An answer whose root element is open."""
    root = text[1 : text.index(">")]
    return web.Response(
        text=f"<?xml version='1.0' encoding='UTF-8'?>{text}</{root}>", content_type="application/xml", status=status
    )


@contextlib.contextmanager
def serving(store: ObjectStore) -> Iterator[str]:
    """Serves a store from a thread of its own until the end of the block; yields its address."""
    loop, started, runners = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", store.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        started.set()

    def serve() -> None:
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=serve, name="object store", daemon=True)
    thread.start()
    started.wait()
    yield f"http://127.0.0.1:{runners[0].addresses[0][1]}"
    asyncio.run_coroutine_threadsafe(runners[0].cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
