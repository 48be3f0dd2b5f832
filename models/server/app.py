"""A page and an HTTP interface that draw images from text: `pairmill serve --checkpoint DIR --port 8000`.

    GET  /                      the page
    POST /generate              {"text", "num_images"} -> ["base64 of a JPEG", ...], as DALLE-server answers
    POST /dalle                 {"text", "num_images"} -> {"generatedImgs": [...], ...}, as dalle-playground expects
    POST /v1/images             {"text", "num_images", "seed", ...} -> a job
    GET  /v1/images/ID          the job; .../events streams its progress; .../N.png is an image; DELETE cancels
    GET  /healthz, /metrics     for a load balancer and for Prometheus
    GET  /openapi.json, /docs   the description of the interface, and a page that shows it

The running server opens no files, and accepts connections from this machine only unless --host is given.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import fastapi_offline
import uvicorn
from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException as StarletteHTTPException

from models.command_line import CommandParser
from models.errors import UserError, report_errors
from models.process_end import run_as_process
from models.sampling.checkpoint import ImageGenerator, add_model_arguments, generator_from_args
from models.server.connections import uvicorn_settings
from models.server.job_queue import JobQueue
from models.server.middleware import (
    LimitsMiddleware,
    Metrics,
    ResponseMiddleware,
    SiteMiddleware,
    http_error,
    validation_error,
)
from models.server.routes import ServerState, routes

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")  # as browsers send it
WEB = Path(__file__).parent / "web"
SWAGGER_UI = Path(fastapi_offline.__file__).parent / "static"
STATIC_FILES = {
    "/": (WEB / "index.html", "text/html"),
    "/page.css": (WEB / "page.css", "text/css"),
    "/page.js": (WEB / "page.js", "text/javascript"),
    "/icon.svg": (WEB / "icon.svg", "image/svg+xml"),
    "/docs": (WEB / "docs.html", "text/html"),
    "/docs.js": (WEB / "docs.js", "text/javascript"),
    "/swagger-ui.css": (SWAGGER_UI / "swagger-ui.css", "text/css"),
    "/swagger-ui-bundle.js": (SWAGGER_UI / "swagger-ui-bundle.js", "text/javascript"),
}


def make_app(
    generator: ImageGenerator,
    max_images: int = 10,
    max_waiting: int = 64,
    allow_origins: Sequence[str] = (),
    allow_hosts: Sequence[str] = (),
) -> FastAPI:
    """Builds the application: at most `max_images` images a request, and `max_waiting` images in the queue.

    Browsers let pages of `allow_origins` (`https://host:port`) read the responses, and no other sites' pages. The
    server is asked for by an address, as localhost, or by a name of `allow_hosts`.
    """
    metrics = Metrics()
    queue = JobQueue(generator, max_waiting, metrics.record_batch)
    metrics.waiting.set_function(lambda: queue.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with queue:
            yield

    app = FastAPI(
        title="pairmill", summary="Images from text", version="1", lifespan=lifespan, docs_url=None, redoc_url=None
    )  # without FastAPI's documentation pages, which load scripts from elsewhere
    app.state.server = ServerState(queue, metrics, max_images)
    app.add_middleware(LimitsMiddleware)
    if allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=allow_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Content-Type",),
            expose_headers=("Location", "Retry-After"),
        )
    app.add_middleware(SiteMiddleware, hosts=allow_hosts, origins=allow_origins)
    app.add_middleware(ResponseMiddleware, metrics=metrics)  # the outermost: it sees every response
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(StarletteHTTPException, http_error)
    for path, (file, kind) in STATIC_FILES.items():
        content = file.read_bytes()  # at the start: no request opens a file
        app.add_api_route(path, _constant(content, kind), methods=["GET"], include_in_schema=False)
    app.include_router(routes)
    return app


def _constant(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def respond() -> Response:
        return Response(content, media_type=kind)

    return respond


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser("serve", __doc__.split("\n")[0])
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        metavar="P",
        help="port to listen on; 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--max-images",
        type=int,
        default=10,
        metavar="N",
        help="largest number of images in a request (default: %(default)s)",
    )
    parser.add_argument(
        "--max-waiting",
        type=int,
        default=64,
        metavar="N",
        help="largest number of images in the queue; requests beyond it are answered with 429 (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this site use the server from a browser, such as https://example.org; repeatable "
        "(default: none)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer requests for this host name, such as that of a proxy; repeatable (default: localhost, the name of "
        "this machine, and any address)",
    )
    add_model_arguments(parser)
    args = parser.parse_args(arguments)
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port {args.port}: give 0 to 65535")
    if not 1 <= args.max_images <= args.max_waiting:
        raise UserError(
            f"--max-images {args.max_images}, --max-waiting {args.max_waiting}: give 1 or more, and "
            "--max-waiting at least --max-images"
        )
    for origin in args.allow_origin:
        if not ORIGIN.fullmatch(origin):
            raise UserError(f"--allow-origin {origin}: give scheme, host and port alone, as http://localhost:3000")
    generator = generator_from_args(args)
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("models.server").setLevel(logging.INFO)  # a line for each request
    with _listen(args.host, args.port) as listening:
        host, port = listening.getsockname()[:2]
        names = (*args.allow_host, args.host, socket.gethostname())
        app = make_app(generator, args.max_images, args.max_waiting, args.allow_origin, names)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, **uvicorn_settings())
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        _Server(config, address).run(sockets=[listening])
    return 0


class _Server(uvicorn.Server):
    """Prints its address once it answers and takes Ctrl-C: what starts it may wait for that line."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self.address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"serve: {self.address}", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        raise UserError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --port or --host"
        ) from None
    return listening


if __name__ == "__main__":
    run_as_process(lambda: report_errors(main))
