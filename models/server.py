"""A page and an HTTP interface that draw pictures from text: `pairmill serve --checkpoint DIR --port 8000`.

    GET  /                      the page
    POST /generate              {"text", "num_images"} -> ["base64 of a JPEG", ...], as DALLE-server answers
    POST /v1/images             {"text", "num_images", "seed", ...} -> a job
    GET  /v1/images/ID          the job; .../events tells its progress; .../N.png is a picture; DELETE cancels
    GET  /healthz, /metrics     for a load balancer and for Prometheus
    GET  /openapi.json          the interface, described

It reads nothing from disk once it runs, and answers this machine only unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import secrets
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.drawing_queue import FAILED, DrawingQueue, Job, QueueFull, jpeg
from models.errors import UserError
from models.generate import Artist, Sampling, Task, add_model_arguments, load_for
from models.transformer import block_parameters

BUNDLED = Path(__file__).parent / "bundled" / "transformer"
WEB = Path(__file__).parent / "web"
PAGE = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"),
        "/page.js": ("page.js", "text/javascript"), "/icon.svg": ("icon.svg", "image/svg+xml")}
MAX_TEXT = 1000  # characters; a model reads 256 tokens
MAX_BODY = 64 * 1024  # bytes
MAX_SEED = (1 << 53) - 1  # what a JavaScript number holds exactly
ANY_SEED = 1 << 31  # those that are made up are short enough to be written down
POLL_S = 0.05
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
                               "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


# --- what is asked and answered --------------------------------------------------------------------------------------


def _words(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty: describe the picture in a few words")
    return text


Text = Annotated[str, Field(max_length=MAX_TEXT, description="what to draw"), AfterValidator(_words)]


class Ask(BaseModel):
    """DALLE-server's request."""

    model_config = ConfigDict(strict=True)  # "3" is no number
    text: Text
    num_images: int = Field(ge=1, description="how many pictures")


class ImagesAsk(Ask):
    """The same with everything that decides a picture."""

    model_config = ConfigDict(strict=True, extra="forbid")
    num_images: int = Field(1, ge=1)
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="the same seed draws the same pictures; null: any")
    temperature: float = Field(1.0, gt=0, le=100, allow_inf_nan=False)
    top_k: int = Field(0, ge=0, le=1 << 16, description="draw among so many of the likeliest codes; 0: all")
    top_p: float = Field(1.0, gt=0, le=1, description="draw among the likeliest codes with this share")
    guidance: float = Field(1.0, ge=0, le=100, allow_inf_nan=False, description="above 1: closer to the text")


class ImageAnswer(BaseModel):
    progress: float = Field(description="0 to 1")
    url: str | None = Field(description="of the PNG, once it is drawn")


class JobAnswer(BaseModel):
    """A job as it stands."""

    id: str
    status: Literal["queued", "drawing", "done", "cancelled", "failed"]
    text: str
    seed: int
    seconds: float = Field(description="of drawing, without the wait in the queue")
    images: list[ImageAnswer]


class ModelAnswer(BaseModel):
    """What draws here, and within which limits."""

    parameters: int = Field(description="of the transformer's blocks")
    fingerprint: str = Field(description="SHA-256 of the weights")
    image_size: int = Field(description="px")
    max_images: int
    max_text: int


class Wrong(BaseModel):
    """DALLE-server's form of an error."""

    Error: str


# --- the application -------------------------------------------------------------------------------------------------


class Metrics:
    def __init__(self):
        self.registry = CollectorRegistry()
        self.requests = Counter("pairmill_requests", "Requests answered", ["method", "path", "status"],
                                registry=self.registry)
        self.pictures = Counter("pairmill_pictures", "Pictures drawn", registry=self.registry)
        self.group_s = Histogram("pairmill_group_seconds", "Time to draw a group of pictures", registry=self.registry,
                                 buckets=(0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500))
        self.waiting = Gauge("pairmill_waiting_pictures", "Pictures in the queue", registry=self.registry)

    def drawn(self, pictures: int, seconds: float) -> None:
        self.pictures.inc(pictures)
        self.group_s.observe(seconds)


class Studio(NamedTuple):
    """What every request shares."""

    queue: DrawingQueue
    metrics: Metrics
    max_images: int  # a request

    def submit(self, task: Task) -> Job:
        """Raises HTTPException: 422 for what cannot be drawn, 429 when too much waits."""
        if task.count > self.max_images:
            raise HTTPException(422, f"num_images {task.count}: at most {self.max_images}")
        try:
            return self.queue.submit(task)
        except QueueFull as error:
            raise HTTPException(429, "Too Many Requests. Please try again later",
                                {"Retry-After": str(error.retry_after_s)}) from None
        except UserError:
            raise HTTPException(422, "text holds nothing that the model can read") from None

    def answer(self, job: Job) -> JobAnswer:
        codes = self.queue.artist.model.config.codes
        images = [ImageAnswer(progress=picture.codes / codes,
                              url=f"/v1/images/{job.id}/{i}.png" if picture.png else None)
                  for i, picture in enumerate(job.pictures)]
        return JobAnswer(id=job.id, status=job.status, text=job.task.prompt, seed=job.task.seed,
                         seconds=round(job.seconds, 2), images=images)


def make_app(artist: Artist, max_images: int = 10, max_waiting: int = 64) -> FastAPI:
    """At most `max_images` pictures a request, and `max_waiting` pictures in the queue."""
    metrics = Metrics()
    queue = DrawingQueue(artist, max_waiting, metrics.drawn)
    metrics.waiting.set_function(lambda: queue.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with queue:
            yield

    app = FastAPI(title="pairmill", summary="Pictures from text", version="1", lifespan=lifespan,
                  docs_url=None, redoc_url=None)  # those pages load scripts from elsewhere
    app.state.studio = Studio(queue, metrics, max_images)
    app.add_middleware(Guard, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(StarletteHTTPException, _answer_error)
    for path, (name, kind) in PAGE.items():
        content = (WEB / name).read_bytes()  # now: no request ever opens a file
        app.add_api_route(path, _constant(content, kind), methods=["GET"], include_in_schema=False)
    app.include_router(routes)
    return app


def _constant(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=kind)

    return answer


routes = APIRouter()


def the_studio(request: Request) -> Studio:
    return request.app.state.studio


InStudio = Annotated[Studio, Depends(the_studio)]


@routes.post("/generate", responses={422: {"model": Wrong}, 429: {"model": Wrong}, 503: {"model": Wrong}})
async def generate(ask: Ask, request: Request, studio: InStudio) -> list[str]:
    """Draws, then answers with the pictures: base64 of a JPEG each. Cancelled when the client goes."""
    job = studio.submit(Task(ask.text, ask.num_images, any_seed()))
    try:
        while not job.over and not await request.is_disconnected():
            await asyncio.sleep(POLL_S)
    finally:
        studio.queue.cancel(job)  # nothing, if it is over
    if job.status == FAILED:
        raise HTTPException(500, "drawing failed; the server's log says why")
    if not all(picture.png for picture in job.pictures):
        raise HTTPException(499, "cancelled: the client has gone, or the server is closing")
    return [base64.b64encode(jpeg(picture.pixels_HWC)).decode() for picture in job.pictures]


@routes.post("/v1/images", status_code=202, responses={429: {"description": "the queue is full; see Retry-After"}})
async def submit(ask: ImagesAsk, response: Response, studio: InStudio) -> JobAnswer:
    """Puts a job into the queue."""
    sampling = Sampling(ask.temperature, ask.top_k, ask.top_p, ask.guidance)
    job = studio.submit(Task(ask.text, ask.num_images, any_seed() if ask.seed is None else ask.seed, sampling))
    response.headers["Location"] = f"/v1/images/{job.id}"
    return studio.answer(job)


def find(job_id: Annotated[str, InPath(max_length=64)], studio: InStudio) -> Job:
    if job := studio.queue.find(job_id):
        return job
    raise HTTPException(404, "no such job: finished ones are forgotten after a while")


Found = Annotated[Job, Depends(find)]
MISSING = {404: {"description": "no such job: finished ones are forgotten after a while"}}


@routes.get("/v1/images/{job_id}", responses=MISSING)
async def look(job: Found, studio: InStudio) -> JobAnswer:
    return studio.answer(job)


@routes.delete("/v1/images/{job_id}", responses=MISSING)
async def cancel(job: Found, studio: InStudio) -> JobAnswer:
    """Stops drawing; pictures that are done stay. A finished job stays as it is."""
    studio.queue.cancel(job)
    return studio.answer(job)


@routes.get("/v1/images/{job_id}/events", response_class=EventSourceResponse, responses=MISSING)
async def events(job: Found, studio: InStudio) -> AsyncIterable[ServerSentEvent]:
    """Events `progress`, and one last of the name of the final status; each holds the job. A `preview` has the
    number of a picture and a data: URL with the rows drawn so far."""
    job.watchers += 1
    try:
        seen, previews = -1, [b""] * len(job.pictures)
        while not job.over:
            if job.version != seen:
                seen = job.version
                yield ServerSentEvent(event="progress", data=studio.answer(job))
                for i, picture in enumerate(job.pictures):
                    if picture.preview and picture.preview is not previews[i]:
                        previews[i] = picture.preview
                        url = f"data:image/jpeg;base64,{base64.b64encode(picture.preview).decode()}"
                        yield ServerSentEvent(event="preview", data={"image": i, "url": url})
            await asyncio.sleep(POLL_S)
        yield ServerSentEvent(event=job.status, data=studio.answer(job))
    finally:
        job.watchers -= 1


@routes.get("/v1/images/{job_id}/{number}.png", response_class=Response, responses={
    200: {"content": {"image/png": {}}}, 404: {"description": "no such job, or not drawn yet"}})
async def picture(job: Found, number: Annotated[int, InPath(ge=0, le=1 << 16)]) -> Response:
    """The PNG with prompt, seed and fingerprints in its text chunks."""
    if number >= len(job.pictures) or not job.pictures[number].png:
        raise HTTPException(404, "no such picture" if job.over else "not drawn yet")
    return Response(job.pictures[number].png, media_type="image/png",
                    headers={"Content-Disposition": f'inline; filename="{job.task.seed}-{number}.png"'})


@routes.get("/v1/model")
async def model(studio: InStudio) -> ModelAnswer:
    artist = studio.queue.artist
    return ModelAnswer(parameters=block_parameters(artist.model), fingerprint=artist.fingerprint, max_text=MAX_TEXT,
                       image_size=artist.image_tokenizer.info.image_size, max_images=studio.max_images)


@routes.get("/healthz", response_class=PlainTextResponse)
async def health() -> str:
    return "Health"  # DALLE-server's word


@routes.get("/metrics", response_class=PlainTextResponse)
async def prometheus(studio: InStudio) -> Response:
    return Response(generate_latest(studio.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def any_seed() -> int:
    return secrets.randbelow(ANY_SEED)


# --- errors and limits -----------------------------------------------------------------------------------------------


async def _refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    """422 without the input: what was sent may not be JSON that can be sent back."""
    faults = [{"loc": [str(part) for part in fault["loc"]], "msg": fault["msg"], "type": fault["type"]}
              for fault in error.errors()]
    if request.url.path == "/generate":
        said = "; ".join(f"{'.'.join(fault['loc'][1:]) or 'body'}: {fault['msg']}" for fault in faults)
        return JSONResponse({"Error": f"Invalid request: {said}"}, 422)
    return JSONResponse({"detail": faults}, 422)


async def _answer_error(request: Request, error: StarletteHTTPException) -> JSONResponse:
    key = "Error" if request.url.path == "/generate" else "detail"
    return JSONResponse({key: error.detail}, error.status_code, error.headers)


class Guard:
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


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill serve", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="made by `pairmill train`")
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="0 takes any (default %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to answer at (default: this machine only)")
    parser.add_argument("--max-images", type=int, default=10, metavar="N", help="a request (default %(default)s)")
    parser.add_argument("--max-waiting", type=int, default=64, metavar="N",
                        help="pictures in the queue; above that the answer is 429 (default %(default)s)")
    add_model_arguments(parser)
    args = parser.parse_args(arguments)
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port {args.port}: give 0 to 65535")
    if not 1 <= args.max_images <= args.max_waiting:
        raise UserError("--max-images is 1 or more, --max-waiting as many or more")
    if args.checkpoint is None:
        if not BUNDLED.is_dir():
            raise UserError("--checkpoint DIR is missing: give a folder made by `pairmill train` (`make demo` leaves "
                            "a small one in demo/model)")
        args.checkpoint = BUNDLED
    artist = load_for(args)
    with _listen(args.host, args.port) as listening:
        host, port = listening.getsockname()[:2]
        app = make_app(artist, args.max_images, args.max_waiting)
        print(f"serve: http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # now: who reads the address and connects at once is not turned away
    except OSError as error:
        raise UserError(f"cannot answer at {host} port {port}: {error.strerror}; choose another --port or --host"
                        ) from None
    return listening


if __name__ == "__main__":
    raise SystemExit(main())
