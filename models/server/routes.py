"""The paths of the server, and what they share."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterable
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.errors import UserError
from models.image_files import jpeg
from models.sampling.generate import GenerationRequest
from models.sampling.sampler import SamplingConfig
from models.server.job_queue import FAILED, Job, JobQueue, QueueFull
from models.server.middleware import Metrics
from models.server.schemas import (
    MAX_TEXT,
    ErrorResponse,
    GenerateBody,
    ImageResponse,
    ImagesBody,
    JobResponse,
    ModelResponse,
)
from models.transformer.model import block_parameters

ANY_SEED = 1 << 31  # those that are made up are short enough to be written down
POLL_S = 0.05


class ServerState(NamedTuple):
    """What every request shares."""

    queue: JobQueue
    metrics: Metrics
    max_images: int  # a request

    def submit(self, task: GenerationRequest) -> Job:
        """Raises HTTPException: 422 for what cannot be drawn, 429 when too much waits."""
        if task.count > self.max_images:
            raise HTTPException(422, f"num_images {task.count}: at most {self.max_images}")
        try:
            return self.queue.submit(task)
        except QueueFull as error:
            raise HTTPException(
                429, "Too Many Requests. Please try again later", {"Retry-After": str(error.retry_after_s)}
            ) from None
        except UserError:
            raise HTTPException(422, "text holds nothing that the model can read") from None

    def answer(self, job: Job) -> JobResponse:
        codes = self.queue.artist.model.config.codes
        images = [
            ImageResponse(progress=image.codes / codes, url=f"/v1/images/{job.id}/{i}.png" if image.png else None)
            for i, image in enumerate(job.images)
        ]
        return JobResponse(
            id=job.id,
            status=job.status,
            text=job.task.prompt,
            seed=job.task.seed,
            seconds=round(job.seconds, 2),
            images=images,
        )


routes = APIRouter()


def server_state(request: Request) -> ServerState:
    return request.app.state.studio


InState = Annotated[ServerState, Depends(server_state)]


@routes.post(
    "/generate", responses={422: {"model": ErrorResponse}, 429: {"model": ErrorResponse}, 503: {"model": ErrorResponse}}
)
async def generate(ask: GenerateBody, request: Request, studio: InState) -> list[str]:
    """Draws, then answers with the pictures: base64 of a JPEG each. Cancelled when the client goes."""
    job = studio.submit(GenerationRequest(ask.text, ask.num_images, any_seed()))
    try:
        while not job.over and not await request.is_disconnected():
            await asyncio.sleep(POLL_S)
    finally:
        studio.queue.cancel(job)  # nothing, if it is over
    if job.status == FAILED:
        raise HTTPException(500, "drawing failed; the server's log says why")
    if not all(image.png for image in job.images):
        raise HTTPException(499, "cancelled: the client has gone, or the server is closing")
    return [base64.b64encode(jpeg(image.pixels_HWC)).decode() for image in job.images]


@routes.post("/v1/images", status_code=202, responses={429: {"description": "the queue is full; see Retry-After"}})
async def submit(ask: ImagesBody, response: Response, studio: InState) -> JobResponse:
    """Puts a job into the queue."""
    sampling = SamplingConfig(ask.temperature, ask.top_k, ask.top_p, ask.guidance)
    job = studio.submit(
        GenerationRequest(ask.text, ask.num_images, any_seed() if ask.seed is None else ask.seed, sampling)
    )
    response.headers["Location"] = f"/v1/images/{job.id}"
    return studio.answer(job)


def find(job_id: Annotated[str, InPath(max_length=64)], studio: InState) -> Job:
    if job := studio.queue.find(job_id):
        return job
    raise HTTPException(404, "no such job: finished ones are forgotten after a while")


Found = Annotated[Job, Depends(find)]
MISSING = {404: {"description": "no such job: finished ones are forgotten after a while"}}


@routes.get("/v1/images/{job_id}", responses=MISSING)
async def look(job: Found, studio: InState) -> JobResponse:
    return studio.answer(job)


@routes.delete("/v1/images/{job_id}", responses=MISSING)
async def cancel(job: Found, studio: InState) -> JobResponse:
    """Stops drawing; pictures that are done stay. A finished job stays as it is."""
    studio.queue.cancel(job)
    return studio.answer(job)


@routes.get("/v1/images/{job_id}/events", response_class=EventSourceResponse, responses=MISSING)
async def events(job: Found, studio: InState) -> AsyncIterable[ServerSentEvent]:
    """Events `progress`, and one last of the name of the final status; each holds the job. A `preview` has the
    number of a picture and a data: URL with the rows drawn so far."""
    job.watchers += 1
    try:
        seen, previews = -1, [b""] * len(job.images)
        while not job.over:
            if job.version != seen:
                seen = job.version
                yield ServerSentEvent(event="progress", data=studio.answer(job))
                for i, image in enumerate(job.images):
                    if image.preview and image.preview is not previews[i]:
                        previews[i] = image.preview
                        url = f"data:image/jpeg;base64,{base64.b64encode(image.preview).decode()}"
                        yield ServerSentEvent(event="preview", data={"image": i, "url": url})
            await asyncio.sleep(POLL_S)
        yield ServerSentEvent(event=job.status, data=studio.answer(job))
    finally:
        job.watchers -= 1


@routes.get(
    "/v1/images/{job_id}/{number}.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 404: {"description": "no such job, or not drawn yet"}},
)
async def image(job: Found, number: Annotated[int, InPath(ge=0, le=1 << 16)]) -> Response:
    """The PNG with prompt, seed and fingerprints in its text chunks."""
    if number >= len(job.images) or not job.images[number].png:
        raise HTTPException(404, "no such picture" if job.over else "not drawn yet")
    return Response(
        job.images[number].png,
        media_type="image/png",
        headers={"Content-Disposition": f'inline; filename="{job.task.seed}-{number}.png"'},
    )


@routes.get("/v1/model")
async def model(studio: InState) -> ModelResponse:
    artist = studio.queue.artist
    return ModelResponse(
        parameters=block_parameters(artist.model),
        fingerprint=artist.fingerprint,
        max_text=MAX_TEXT,
        image_size=artist.image_tokenizer.info.image_size,
        max_images=studio.max_images,
        guidance=artist.knows_blank,
    )


@routes.get("/healthz", response_class=PlainTextResponse)
async def health() -> str:
    return "Health"  # DALLE-server's word


@routes.get("/metrics", response_class=PlainTextResponse)
async def prometheus(studio: InState) -> Response:
    return Response(generate_latest(studio.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def any_seed() -> int:
    return secrets.randbelow(ANY_SEED)
