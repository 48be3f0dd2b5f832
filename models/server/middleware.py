"""Applies to every request and response of the server: size limits, headers, the form of errors, metrics."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 * 1024  # bytes
DALLE_PATHS = ("/generate", "/dalle")  # their errors are {"Error": message}, as DALLE-server answers
log = logging.getLogger(__name__)
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Metrics:
    """The Prometheus metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pairmill_requests", "Requests answered", ["method", "path", "status"], registry=self.registry
        )
        self.images = Counter("pairmill_pictures", "Pictures drawn", registry=self.registry)
        self.group_s = Histogram(
            "pairmill_group_seconds",
            "Time to draw a group of pictures",
            registry=self.registry,
            buckets=(0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500),
        )
        self.waiting = Gauge("pairmill_waiting_pictures", "Pictures in the queue", registry=self.registry)

    def record_batch(self, images: int, seconds: float) -> None:
        """Counts a batch of images and the time that it took."""
        self.images.inc(images)
        self.group_s.observe(seconds)


async def validation_error(request: Request, error: Exception) -> JSONResponse:
    """Responds with 422 but without the input, which may not be valid JSON."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"loc": [str(part) for part in entry["loc"]], "msg": entry["msg"], "type": entry["type"]}
        for entry in error.errors()
    ]
    if request.url.path not in DALLE_PATHS:
        return JSONResponse({"detail": errors}, 422)
    message = "; ".join(f"{'.'.join(entry['loc'][1:]) or 'body'}: {entry['msg']}" for entry in errors)
    return error_response(request.url.path, f"Invalid request: {message}", 422)


async def http_error(request: Request, error: Exception) -> JSONResponse:
    """Responds with the error's status, message and headers."""
    assert isinstance(error, StarletteHTTPException)
    return error_response(request.url.path, error.detail, error.status_code, error.headers)


def error_response(path: str, message: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in the form of its path."""
    return JSONResponse({"Error" if path in DALLE_PATHS else "detail": message}, status, headers)


class ResponseMiddleware:
    """Adds the common headers to every response, counts and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        began, status = time.monotonic(), 0  # 0: the client disconnected before a response

        async def send_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *headers]
                # Not the path and method as sent: clients could make up any number of labels.
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in METHODS else "other"
                self._metrics.requests.labels(method, route, message["status"]).inc()
            await send(message)

        try:
            await self._app(scope, receive, send_response)
        finally:
            log.info(request_line(scope, status, time.monotonic() - began))


class SiteMiddleware:
    """Refuses requests that a page of another site makes a browser send: for a host name that is not ours, which leads
    here all the same (DNS rebinding), or with the origin of another site."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]):
        self._app = app
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = {origin.lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (fault := self._fault(scope)):
            await error_response(scope["path"], fault, 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if not self._is_ours(host):
            return "this server does not answer for that host name; start it with --allow-host NAME"
        if scope["method"] in ("GET", "HEAD", "OPTIONS") or not origin or origin in self._origins:
            return ""
        if origin.partition("://")[2] == host:
            return ""
        return "pages of that site may not use this server; start it with --allow-origin ORIGIN"

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header has one of our names, or an address: nobody's name server can give that."""
        name = re.sub(r":[0-9]*\Z", "", host)
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


class LimitsMiddleware:
    """Limits the size of request bodies and answers internal faults in the form of their path."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_response(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        body = await _read_body(receive)
        if body is None:
            message = f"the request is too long: send at most {MAX_BODY} bytes"
            refusal = error_response(scope["path"], message, 413, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, _replay(body, receive), send_response)
        except Exception:
            if not started:
                fault = error_response(scope["path"], "internal error; see the server's log", 500)
                await fault(scope, receive, send)
            raise  # uvicorn logs the traceback


def request_line(scope: Scope, status: int, seconds: float) -> str:
    """Client, method, path, status and seconds of a request, without what it asked for."""
    client = scope["client"][0] if scope.get("client") else "-"
    path = scope["raw_path"].decode("ascii", "backslashreplace")  # as sent: a decoded path may hold a line's end
    return f"{client} {scope['method']} {path} {status or '-'} {seconds:.3f} s"


async def _read_body(receive: Receive) -> bytes | None:
    """Reads the full body; None if it is longer than MAX_BODY."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Returns a `receive` that gives the body first, then the connection's further messages."""
    read = False

    async def replay() -> Message:
        nonlocal read
        if not read:
            read = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
