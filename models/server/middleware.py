"""What stands before and behind every answer of the server: limits, headers, the form of errors, counters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 * 1024  # bytes
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Metrics:
    def __init__(self):
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

    def drawn(self, images: int, seconds: float) -> None:
        self.images.inc(images)
        self.group_s.observe(seconds)


async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    """422 without the input: what was sent may not be JSON that can be sent back."""
    faults = [
        {"loc": [str(part) for part in fault["loc"]], "msg": fault["msg"], "type": fault["type"]}
        for fault in error.errors()
    ]
    if request.url.path == "/generate":
        said = "; ".join(f"{'.'.join(fault['loc'][1:]) or 'body'}: {fault['msg']}" for fault in faults)
        return JSONResponse({"Error": f"Invalid request: {said}"}, 422)
    return JSONResponse({"detail": faults}, 422)


async def answer_error(request: Request, error: StarletteHTTPException) -> JSONResponse:
    key = "Error" if request.url.path == "/generate" else "detail"
    return JSONResponse({key: error.detail}, error.status_code, error.headers)


class LimitsMiddleware:
    """Bounds a request's body, adds the headers that every answer has, and counts the answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *headers]
                # Never the path and method that were sent: there is no end to them.
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in METHODS else "other"
                self._metrics.requests.labels(method, route, message["status"]).inc()
            await send(message)

        body = await _read_body(receive)
        if body is None:
            refusal = JSONResponse({"detail": f"a request has at most {MAX_BODY} bytes"}, 413, {"Connection": "close"})
            await refusal(scope, receive, answer)
            return
        await self._app(scope, _replay(body, receive), answer)


async def _read_body(receive: Receive) -> bytes | None:
    """None for one that is too long."""
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
    """The body first, then what the connection says."""
    read = False

    async def replay() -> Message:
        nonlocal read
        if not read:
            read = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
