"""The HTTP routes of the server and the state that they share."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterable
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.errors import UserError
from models.image_files import jpeg
from models.sampling.generate import GenerationRequest
from models.server.job_queue import FAILED, Job, JobQueue, QueueFull
from models.server.middleware import Metrics
from models.server.schemas import (
    MAX_TEXT,
    DalleResponse,
    ErrorResponse,
    GenerateBody,
    ImageResponse,
    ImagesBody,
    JobResponse,
    ModelResponse,
    SamplingResponse,
)
from models.transformer.model import block_parameters

ANY_SEED = 1 << 31  # chosen seeds are below this: short enough to be copied by hand
POLL_S = 0.05
NO_SUCH_JOB = "no such job: the server forgets finished jobs after a while"
MISSING: dict[int | str, dict[str, Any]] = {404: {"description": NO_SUCH_JOB}}


class ServerState(NamedTuple):
    """The queue, metrics and limits that all requests share."""

    queue: JobQueue
    metrics: Metrics
    max_images: int  # of a request

    def submit(self, request: GenerationRequest, client: str) -> Job:
        """Puts a job into the queue. Raises HTTPException: 422 for unusable requests, 429 when the queue is full."""
        if request.count > self.max_images:
            raise HTTPException(422, f"num_images {request.count}: give at most {self.max_images}")
        try:
            return self.queue.submit(request, client)
        except QueueFull as error:
            raise HTTPException(
                429, "Too Many Requests. Please try again later", {"Retry-After": str(error.retry_after_s)}
            ) from None
        except UserError:
            raise HTTPException(
                422, "text holds nothing that the model can read: describe the image in a few words"
            ) from None

    def job_response(self, job: Job) -> JobResponse:
        """The job's current state as it is sent to clients."""
        codes = self.queue.generator.model.config.codes
        images = [
            ImageResponse(progress=image.codes / codes, url=f"/v1/images/{job.id}/{i}.png" if image.png else None)
            for i, image in enumerate(job.images)
        ]
        return JobResponse(
            id=job.id,
            status=job.status,
            text=job.request.prompt,
            seed=job.request.seed,
            sampling=SamplingResponse(**job.request.sampling._asdict()),
            seconds=round(job.seconds, 2),
            images=images,
        )


routes = APIRouter()


def server_state(request: Request) -> ServerState:
    """What the application of a request shares among requests."""
    return request.app.state.server


InState = Annotated[ServerState, Depends(server_state)]


DALLE_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (405, 413, 422, 429, 499, 500)
}


@routes.post("/generate", responses=DALLE_ERRORS)
async def generate(body: GenerateBody, request: Request, state: InState) -> list[str]:
    """Draws images and returns them, each as base64 of a JPEG. The job is cancelled when the client disconnects."""
    return await _draw(body, request, state)


@routes.post("/dalle", responses=DALLE_ERRORS)
async def dalle(body: GenerateBody, request: Request, state: InState) -> DalleResponse:
    """Draws images and returns them in dalle-playground's form; otherwise as POST /generate."""
    return DalleResponse(generatedImgs=await _draw(body, request, state), generatedImgsFormat="jpeg")


async def _draw(body: GenerateBody, request: Request, state: ServerState) -> list[str]:
    """Draws the images: base64 of a JPEG each. Raises HTTPException for a job that does not end with all of them."""
    sampling = state.queue.generator.sampling
    job = state.submit(GenerationRequest(body.text, body.num_images, any_seed(), sampling), client_of(request))
    try:
        while not job.is_finished and not await request.is_disconnected():
            await asyncio.sleep(POLL_S)
    finally:
        state.queue.cancel(job)  # has no effect on a finished job
    if job.status == FAILED:
        raise HTTPException(500, "drawing failed; see the server's log")
    if not all(image.png for image in job.images):
        raise HTTPException(499, "cancelled: the client disconnected, or the server is shutting down")
    return [base64.b64encode(jpeg(image.pixels_HWC)).decode() for image in job.images if image.pixels_HWC is not None]


@routes.post("/v1/images", status_code=202, responses={429: {"description": "the queue is full; see Retry-After"}})
async def submit(body: ImagesBody, request: Request, response: Response, state: InState) -> JobResponse:
    """Puts a job into the queue."""
    default = state.queue.generator.sampling
    named = body.model_dump(include=set(default._fields), exclude_none=True)
    seed = any_seed() if body.seed is None else body.seed
    generation = GenerationRequest(body.text, body.num_images, seed, default._replace(**named))
    job = state.submit(generation, client_of(request))
    response.headers["Location"] = f"/v1/images/{job.id}"
    return state.job_response(job)


def find(job_id: Annotated[str, InPath(max_length=64)], state: InState) -> Job:
    """The job of an id. Raises HTTPException 404 if the queue has none, or has forgotten it."""
    if job := state.queue.find(job_id):
        return job
    raise HTTPException(404, NO_SUCH_JOB)


FoundJob = Annotated[Job, Depends(find)]


@routes.get("/v1/images/{job_id}", responses=MISSING)
async def get_job(job: FoundJob, state: InState) -> JobResponse:
    """Returns the current state of a job."""
    return state.job_response(job)


@routes.delete("/v1/images/{job_id}", responses=MISSING)
async def cancel(job: FoundJob, state: InState) -> JobResponse:
    """Stops a job; its finished images are kept. A finished job is not changed."""
    state.queue.cancel(job)
    return state.job_response(job)


@routes.get("/v1/images/{job_id}/events", response_class=EventSourceResponse, responses=MISSING)
async def events(job: FoundJob, state: InState) -> AsyncIterable[ServerSentEvent]:
    """Streams `progress` events, and a last one named after the final status; each holds the job. A `preview` event
    holds an image's number and a data: URL of the rows drawn so far."""
    job.watchers += 1
    try:
        seen, previews = -1, [b""] * len(job.images)
        while not job.is_finished:
            if job.version != seen:
                seen = job.version
                yield ServerSentEvent(event="progress", data=state.job_response(job))
                for i, image in enumerate(job.images):
                    if image.preview and image.preview is not previews[i]:
                        previews[i] = image.preview
                        url = f"data:image/jpeg;base64,{base64.b64encode(image.preview).decode()}"
                        yield ServerSentEvent(event="preview", data={"image": i, "url": url})
            await asyncio.sleep(POLL_S)
        yield ServerSentEvent(event=job.status, data=state.job_response(job))
    finally:
        job.watchers -= 1


@routes.get(
    "/v1/images/{job_id}/{number}.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 404: {"description": "no such job, or not drawn yet"}},
)
async def image(job: FoundJob, number: Annotated[int, InPath(ge=0, le=1 << 16)]) -> Response:
    """Returns the PNG, with prompt, seed and fingerprints in its text chunks."""
    if number >= len(job.images) or not job.images[number].png:
        raise HTTPException(404, "no such image" if job.is_finished else "not drawn yet")
    return Response(
        job.images[number].png,
        media_type="image/png",
        headers={"Content-Disposition": f'inline; filename="{job.request.seed}-{number}.png"'},
    )


@routes.get("/v1/model")
async def model(state: InState) -> ModelResponse:
    """Describes the model and the limits of requests."""
    generator = state.queue.generator
    return ModelResponse(
        parameters=block_parameters(generator.model),
        fingerprint=generator.fingerprint,
        max_text=MAX_TEXT,
        image_size=generator.image_tokenizer.info.image_size,
        max_images=state.max_images,
        guidance=generator.supports_guidance,
        sampling=SamplingResponse(**generator.sampling._asdict()),
        prompts=list(generator.prompts),
    )


@routes.get("/healthz", response_class=PlainTextResponse)
async def health() -> str:
    """Answers while the server runs."""
    return "Health"  # as DALLE-server answers


@routes.get("/metrics", response_class=PlainTextResponse)
async def prometheus(state: InState) -> Response:
    """Returns the metrics in the text format of Prometheus."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def client_of(request: Request) -> str:
    """The client's address; "" if the connection has none."""
    return request.client.host if request.client else ""


def any_seed() -> int:
    """A random seed, from 0 to below ANY_SEED."""
    return secrets.randbelow(ANY_SEED)
