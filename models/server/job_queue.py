"""Jobs for one artist: a bounded queue, and a thread that draws the pictures of several jobs together.

Pictures are drawn in the order of their jobs, GROUP at a time. A job that was cancelled, or whose client has gone, is
skipped from the next code on. Finished jobs are kept for a while, so that their pictures can be fetched.
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

import numpy as np
import torch

from models.image_files import jpeg, png
from models.sampling.checkpoint import ImageGenerator
from models.sampling.generate import GenerationRequest, image_requests, png_metadata
from models.sampling.sampler import BATCH_SIZE, ImageRequest, sample_steps

KEPT_JOBS = 256  # finished ones; each holds some images of about 100 kB
FIRST_GUESS_S = 10.0  # a group's time, before one has been drawn
PREVIEW_SHARE = 0.2  # of the time, at most, goes into previews
QUEUED, DRAWING, DONE, CANCELLED, FAILED = "queued", "drawing", "done", "cancelled", "failed"
FINISHED = (DONE, CANCELLED, FAILED)
log = logging.getLogger(__name__)


class QueueFull(Exception):
    """Nothing more fits; `retry_after_s` says when something should."""

    def __init__(self, retry_after_s: int):
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass
class JobImage:
    """One picture of a job, as far as it is."""

    order: ImageRequest
    codes: int = 0  # drawn so far
    preview: bytes = b""  # a JPEG of the rows drawn so far
    pixels_HWC: np.ndarray | None = None  # when it is done
    png: bytes = b""


@dataclass
class Job:
    """What one request wants. Written by the drawing thread alone, but for `cancelled`."""

    task: GenerationRequest
    images: list[JobImage]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))  # not to be guessed: it opens the images
    status: str = QUEUED
    cancelled: bool = False
    watchers: int = 0  # clients who look on; previews are made for them
    version: int = 0  # counts the changes
    created: float = field(default_factory=time.monotonic)
    drawing_since: float | None = None
    finished: float | None = None

    def changed(self) -> None:
        self.version += 1

    @property
    def over(self) -> bool:
        return self.status in FINISHED

    @property
    def seconds(self) -> float:
        """Of drawing so far, without the time in the queue."""
        if self.drawing_since is None:
            return 0.0
        return (self.finished or time.monotonic()) - self.drawing_since


class JobQueue:
    """Use as a context: the thread runs inside it, and what is still to do is cancelled at its end."""

    def __init__(
        self, artist: ImageGenerator, max_waiting: int, on_drawn: Callable[[int, float], None] = lambda *_: None
    ):
        """At most `max_waiting` pictures wait; `on_drawn(pictures, seconds)` is called after each group."""
        self.artist, self.max_waiting, self._on_drawn = artist, max_waiting, on_drawn
        self._waiting: list[tuple[Job, JobImage]] = []
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._group_s = FIRST_GUESS_S  # of the last one
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)

    def __enter__(self) -> JobQueue:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.cancelled = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Pictures that nobody has begun to draw."""
        return len(self._waiting)

    def submit(self, task: GenerationRequest) -> Job:
        """Raises QueueFull, and UserError for a prompt without text."""
        job = Job(task, [JobImage(order) for order in image_requests(self.artist, task)])
        with self._changed:
            if len(self._waiting) + task.count > self.max_waiting:
                groups = math.ceil((len(self._waiting) + task.count) / BATCH_SIZE)
                raise QueueFull(max(1, round(groups * self._group_s)))
            self._waiting += [(job, image) for image in job.images]
            self._jobs[job.id] = job
            self._forget_old()
            self._changed.notify_all()
        return job

    def find(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def cancel(self, job: Job) -> None:
        """Takes effect with the next code; a finished job stays as it is."""
        with self._changed:
            job.cancelled = True
            self._waiting = [(other, image) for other, image in self._waiting if other is not job]
            if job.status == QUEUED:
                _finish(job, CANCELLED)
            self._changed.notify_all()

    def _forget_old(self) -> None:
        old = [job.id for job in self._jobs.values() if job.over][:-KEPT_JOBS]
        for job_id in old:
            del self._jobs[job_id]

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while group := self._next_group():
            started = time.monotonic()
            try:
                finished = self._draw(group)
            except Exception:  # whatever it was, the next job may do better; the log has the place
                log.exception("drawing failed")
                for job, _ in group:
                    self.cancel(job)
                    _finish(job, FAILED)
                continue
            if finished:
                self._group_s = time.monotonic() - started
                self._on_drawn(len(group), self._group_s)
        for job in self._jobs.values():
            if not job.over:
                _finish(job, CANCELLED)

    def _next_group(self) -> list[tuple[Job, JobImage]]:
        """The first that wait, as many as go together; [] when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            guided = _guided(self._waiting[0][1])
            group = [entry for entry in self._waiting if _guided(entry[1]) == guided][:BATCH_SIZE]
            taken = {id(image) for _, image in group}
            self._waiting = [entry for entry in self._waiting if id(entry[1]) not in taken]
            for job, _ in group:
                if job.status == QUEUED:
                    job.status, job.drawing_since = DRAWING, time.monotonic()
                    job.changed()
            return group

    def _draw(self, group: list[tuple[Job, JobImage]]) -> bool:
        """Draws the group and finishes its jobs; False when nobody wanted it any more."""
        grid = self.artist.image_tokenizer.info.grid
        previewed, previews_s = time.monotonic(), 0.0
        codes_BN = None
        for codes_BN in sample_steps(self.artist.model, [image.order for _, image in group]):
            for job, _ in group:
                if job.cancelled and not job.over:
                    _finish(job, CANCELLED)
            if all(job.over for job, _ in group):
                return False
            drawn = codes_BN.shape[1]
            if drawn % grid or drawn == grid**2:
                continue
            began = time.monotonic()
            if began - previewed >= previews_s * (1 / PREVIEW_SHARE - 1):
                for (job, image), codes_N in zip(group, codes_BN, strict=True):
                    if job.watchers and not job.over:
                        image.preview = self._preview(codes_N)
                previewed = time.monotonic()
                previews_s = previewed - began
            for job, image in group:
                image.codes = drawn
                job.changed()
        for (job, image), codes_N in zip(group, codes_BN.cpu().numpy(), strict=True):
            if not job.over:
                self._complete(job, image, codes_N)
        return True

    def _preview(self, codes_N: torch.Tensor) -> bytes:
        """The rows that are there, as a JPEG; below them the tokenizer is given the last one again."""
        info = self.artist.image_tokenizer.info
        rows_RG = codes_N.cpu().view(-1, info.grid)
        whole = torch.cat([rows_RG, rows_RG[-1:].expand(info.grid - len(rows_RG), -1)]).flatten().numpy()
        height = len(rows_RG) * info.image_size // info.grid
        return jpeg(self.artist.image_tokenizer.decode(whole)[:height])

    def _complete(self, job: Job, image: JobImage, codes_N: np.ndarray) -> None:
        image.pixels_HWC = self.artist.image_tokenizer.decode(codes_N)
        index = next(i for i, other in enumerate(job.images) if other is image)
        image.png = png(image.pixels_HWC, {**png_metadata(self.artist, job.task), "index": str(index)})
        image.codes, image.preview = len(codes_N), b""
        if all(other.png for other in job.images):
            _finish(job, DONE)
        job.changed()


def _guided(image: JobImage) -> bool:
    return image.order.sampling.guidance != 1


def _finish(job: Job, status: str) -> None:
    job.status, job.finished = status, time.monotonic()
    for image in job.images:
        image.preview = b""
    job.changed()
