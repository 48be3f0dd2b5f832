"""A bounded queue of jobs for one generator, and a thread that samples the images of several jobs together.

Clients take turns; images of one are sampled in the order of their jobs, BATCH_SIZE at a time. A job that is cancelled,
or whose client disconnects, stops at the next code. Finished jobs are kept for a while, so that clients can fetch their
images.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from models.image_files import jpeg, png
from models.sampling.checkpoint import ImageGenerator
from models.sampling.generate import GenerationRequest, image_requests, png_metadata
from models.sampling.sampler import BATCH_SIZE, ImageRequest, sample_steps

KEPT_JOBS = 256  # finished jobs; each holds some images of about 100 kB
FIRST_GUESS_S = 10.0  # assumed time of a batch before one has been measured
PREVIEW_SHARE = 0.2  # of the time, at most, is spent on previews
SEQUENCE_STEPS = 16  # of the progress of an image whose codes have no rows
Status = Literal["queued", "drawing", "done", "cancelled", "failed"]
QUEUED: Literal["queued"] = "queued"
DRAWING: Literal["drawing"] = "drawing"
DONE: Literal["done"] = "done"
CANCELLED: Literal["cancelled"] = "cancelled"
FAILED: Literal["failed"] = "failed"
FINISHED = (DONE, CANCELLED, FAILED)
log = logging.getLogger(__name__)


class QueueFull(Exception):
    """The queue has no capacity left; after `retry_after_s` seconds it should have."""

    def __init__(self, retry_after_s: int):
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass
class JobImage:
    """One image of a job and its progress."""

    request: ImageRequest
    turn: float = 0.0  # among the images that wait
    codes: int = 0  # number of codes sampled so far
    preview: bytes = b""  # JPEG of the rows sampled so far
    pixels_HWC: np.ndarray | None = None  # uint8 [H, W, 3], once it is finished
    png: bytes = b""  # once it is finished


@dataclass
class Job:
    """The images of one request. Only the sampling thread changes it, except for `cancelled` and `watchers`."""

    request: GenerationRequest
    images: list[JobImage]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))  # unguessable: it gives access to the images
    status: Status = QUEUED
    cancelled: bool = False
    watchers: int = 0  # clients that read the events; without any, no previews are made
    client: str = ""  # its address, if clients are to take turns
    version: int = 0  # number of changes
    created: float = field(default_factory=time.monotonic)  # this and the next two: seconds of time.monotonic
    started: float | None = None
    finished: float | None = None

    def changed(self) -> None:
        """Counts a change, so that readers of the events send it."""
        self.version += 1

    @property
    def is_finished(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.status in FINISHED

    @property
    def seconds(self) -> float:
        """Time spent sampling so far, without the time in the queue."""
        if self.started is None:
            return 0.0
        return (self.finished or time.monotonic()) - self.started


class JobQueue:
    """A context manager: its thread runs inside the context, and leaving it cancels all unfinished jobs."""

    def __init__(
        self, generator: ImageGenerator, max_waiting: int, on_sampled: Callable[[int, float], None] = lambda *_: None
    ):
        """At most `max_waiting` images wait; `on_sampled(images, seconds)` is called after each batch."""
        self.generator, self.max_waiting, self._on_sampled = generator, max_waiting, on_sampled
        self._waiting: list[tuple[Job, JobImage]] = []  # by turn
        self._turn = 0.0  # of the last image that was taken
        self._sampled: list[tuple[Job, JobImage]] = []  # the images that are being sampled
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._batch_s = FIRST_GUESS_S  # time of the last batch
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)

    def __enter__(self) -> JobQueue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.cancelled = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Number of images whose sampling has not started."""
        return len(self._waiting)

    def submit(self, request: GenerationRequest, client: str = "") -> Job:
        """Queues the images of a request. Clients take turns, and one has at most half of the places, unless it has
        none. Raises QueueFull, and UserError for a prompt without text."""
        job = Job(request, [JobImage(image_request) for image_request in image_requests(self.generator, request)])
        with self._changed:
            own = sum(job.client == client for job, _ in self._waiting) if client else 0
            is_greedy = own > 0 and own + request.count > self.max_waiting // 2
            if is_greedy or len(self._waiting) + request.count > self.max_waiting:
                batches = math.ceil((len(self._waiting) + request.count) / BATCH_SIZE)
                raise QueueFull(max(1, round(batches * self._batch_s)))
            job.client = client
            turn = max(self._turn, *(image.turn for other, image in self._waiting if other.client == client), 0.0)
            for number, image in enumerate(job.images, 1):
                image.turn = turn + number
            self._waiting = sorted([*self._waiting, *((job, image) for image in job.images)], key=_turn_of)
            self._jobs[job.id] = job
            self._forget_old()
            self._changed.notify_all()
        return job

    def find(self, job_id: str) -> Job | None:
        """The job with this id; None if it does not exist or has been forgotten."""
        return self._jobs.get(job_id)

    def cancel(self, job: Job) -> None:
        """Stops a job at its next code; a finished job is not changed."""
        with self._changed:
            job.cancelled = True
            self._waiting = [(other, image) for other, image in self._waiting if other is not job]
            if not any(other is job for other, _ in self._sampled):  # else the sampling thread finishes it
                _finish(job, CANCELLED)
            self._changed.notify_all()

    def _forget_old(self) -> None:
        old = [job.id for job in self._jobs.values() if job.is_finished][:-KEPT_JOBS]
        for job_id in old:
            del self._jobs[job_id]

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while group := self._next_group():
            started = time.monotonic()
            try:
                finished = self._sample(group)
            except Exception:  # of any kind: the next job may succeed, and the log has the traceback
                log.exception("sampling failed")
                finished = False
                for job, _ in group:
                    self.cancel(job)
                    _finish(job, FAILED)
            self._end_group()
            if finished:
                self._batch_s = time.monotonic() - started
                self._on_sampled(len(group), self._batch_s)
        for job in self._jobs.values():
            _finish(job, CANCELLED)

    def _end_group(self) -> None:
        """Finishes the jobs that were cancelled after the last code of the group: their other images never come."""
        with self._changed:
            for job, _ in self._sampled:
                if job.cancelled:
                    _finish(job, CANCELLED)
            self._sampled = []

    def _next_group(self) -> list[tuple[Job, JobImage]]:
        """Takes the next images that can be sampled together, at most BATCH_SIZE; [] when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
            if self._closed:
                return []
            guided = _guided(self._waiting[0][1])
            group = [entry for entry in self._waiting if _guided(entry[1]) == guided][:BATCH_SIZE]
            self._turn = group[0][1].turn
            taken = {id(image) for _, image in group}
            self._waiting = [entry for entry in self._waiting if id(entry[1]) not in taken]
            for job, _ in group:
                if job.status == QUEUED:
                    job.status, job.started = DRAWING, time.monotonic()
                    job.changed()
            self._sampled = group
            return group

    def _sample(self, group: list[tuple[Job, JobImage]]) -> bool:
        """Samples the images and finishes their jobs; False if all the jobs were cancelled before the end."""
        shape = self.generator.image_tokenizer.info.shape
        # A sequence has no rows: its codes mean something together.
        columns = shape.columns if shape.grid else max(1, shape.count // SEQUENCE_STEPS)
        previewed, previews_s = time.monotonic(), 0.0
        for codes_BN in sample_steps(self.generator.model, [image.request for _, image in group]):
            for job, _ in group:
                if job.cancelled:
                    _finish(job, CANCELLED)
            if all(job.is_finished for job, _ in group):
                return False
            sampled = codes_BN.shape[1]
            if sampled % columns or sampled == shape.count:
                continue
            started = time.monotonic()
            if shape.grid and started - previewed >= previews_s * (1 / PREVIEW_SHARE - 1):
                for (job, image), codes_N in zip(group, codes_BN, strict=True):
                    if job.watchers and not job.is_finished:
                        image.preview = self._preview(codes_N)
                previewed = time.monotonic()
                previews_s = previewed - started
            for job, image in group:
                image.codes = sampled
                job.changed()
        for (job, image), codes_N in zip(group, codes_BN.cpu().numpy(), strict=True):
            if not job.is_finished:
                self._complete(job, image, codes_N)
        return True

    def _preview(self, codes_N: torch.Tensor) -> bytes:
        """A JPEG of the finished rows. The tokenizer decodes full images, so the last row stands in for those below."""
        info = self.generator.image_tokenizer.info
        rows_RG = codes_N.cpu().view(-1, info.shape.columns)
        full = torch.cat([rows_RG, rows_RG[-1:].expand(info.shape.rows - len(rows_RG), -1)]).flatten().numpy()
        height = len(rows_RG) * info.image_size // info.shape.rows
        return jpeg(self.generator.image_tokenizer.decode(full)[:height])

    def _complete(self, job: Job, image: JobImage, codes_N: np.ndarray) -> None:
        image.pixels_HWC = self.generator.image_tokenizer.decode(codes_N)
        index = next(i for i, other in enumerate(job.images) if other is image)
        image.png = png(image.pixels_HWC, {**png_metadata(self.generator, job.request), "index": str(index)})
        image.codes, image.preview = len(codes_N), b""
        if all(other.png for other in job.images):
            _finish(job, DONE)
        job.changed()


def _turn_of(entry: tuple[Job, JobImage]) -> float:
    return entry[1].turn


def _guided(image: JobImage) -> bool:
    return image.request.sampling.guidance != 1


def _finish(job: Job, status: Status) -> None:
    """Gives a job its final status, unless it has one."""
    if job.is_finished:
        return
    job.status, job.finished = status, time.monotonic()
    for image in job.images:
        image.preview = b""
    job.changed()
