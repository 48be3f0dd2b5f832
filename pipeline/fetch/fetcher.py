"""Polite, bounded, safe downloads: pairs in, checked images or reasons out.

Every download ends: an attempt has a deadline from connecting to the last byte and a limit of bytes, attempts and
redirects are counted, and only transient failures are tried again.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import hashlib
import io
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO
from urllib.parse import urlsplit

from pipeline.fetch.download import Body, Downloads, FetchConfig
from pipeline.fetch.memory_budget import MemoryLease, memory_lease
from pipeline.fetch.retry import MAX_BACK_OFF_S, FetchFailed, back_off_s
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import DecodedImage, ImageConfig, ImageRejected, checked_size, decode_scaled
from pipeline.records import TRANSIENT_REASONS, Pair, Reason, Rejected, Stage, reject
from pipeline.sources.hosts import current_url, is_placeholder_file
from pipeline.sources.stored_images import NotStored, read_stored

DECODING_THREADS = 2
DECODING_BYTES = 12  # of memory per pixel (measured: 8 for JPEG, PNG and TIFF, 10 for AVIF, 16 for WebP); RGB keeps 3


def fetch_images(
    pairs: Iterable[Pair],
    config: FetchConfig,
    image_config: ImageConfig,
    side: int | None = None,
) -> Iterator[FetchedImage | Rejected]:
    """Yields one outcome for each pair, in the order in which they finish. With `side`, an image may come reduced, but
    with a shorter side of at least `side` px.

    The event loop runs in a thread of its own and waits while the caller is busy: at most `connections` images, and
    `memory_bytes` of them, are in memory at once.
    """
    pairs = list(pairs)
    yield from read_checked((pair for pair in pairs if pair.stored_at), config, image_config, side)
    pairs = [pair for pair in pairs if not pair.stored_at]
    loop_thread = _LoopThread(interleave_hosts(pairs), config, image_config, side)
    loop_thread.start()
    try:
        while (outcome := loop_thread.outcomes.get()) is not None:
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
            loop_thread.release(outcome)
            del outcome  # else this name would hold it until the next outcome arrives
    finally:
        loop_thread.stop()


def read_checked(
    pairs: Iterable[Pair], config: FetchConfig, image_config: ImageConfig, side: int | None = None
) -> Iterator[FetchedImage | Rejected]:
    """The images of pairs whose sources hold them."""
    for pair, found in read_stored(pairs):
        yield _stored(pair, found, config, image_config, side)


def _stored(
    pair: Pair, found: bytes | NotStored, config: FetchConfig, image_config: ImageConfig, side: int | None
) -> FetchedImage | Rejected:
    """Checks an image that was read from a source's file as if it had been downloaded."""
    try:
        if isinstance(found, NotStored):
            raise FetchFailed(Reason.NOT_STORED, found.detail)
        if len(found) > config.max_bytes:
            raise FetchFailed(Reason.TOO_LARGE, f"{len(found)} bytes")
        checked_size(io.BytesIO(found), image_config)
        data, image, sha256 = _decode(io.BytesIO(found), pair, image_config, side)
    except (FetchFailed, ImageRejected) as failure:
        return reject(pair, Stage.FETCH, failure.reason, failure.detail[:200])
    return FetchedImage(pair, data, image.rgb_HWC, sha256, (image.width, image.height))


def interleave_hosts(pairs: Iterable[Pair]) -> list[Pair]:
    """Orders pairs so that hosts alternate: a slow host then does not delay those after it."""
    by_host: dict[str, collections.deque[Pair]] = {}
    for pair in pairs:
        by_host.setdefault(_host_of(pair.url), collections.deque()).append(pair)
    queues, ordered = collections.deque(by_host.values()), []
    while queues:
        waiting = queues.popleft()
        ordered.append(waiting.popleft())
        if waiting:
            queues.append(waiting)
    return ordered


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such a URL is rejected when it is fetched
        return ""


class _LoopThread(threading.Thread):
    """The thread of the event loop, as the caller's thread sees it."""

    def __init__(
        self,
        pairs: list[Pair],
        config: FetchConfig,
        image_config: ImageConfig,
        side: int | None,
    ):
        super().__init__(name="fetch", daemon=True)
        self._pairs, self._config, self._image_config, self._side = pairs, config, image_config, side
        self._memory = memory_lease(config.memory_bytes)
        self._loop_started = threading.Event()
        self._cancel: Callable[[], object] | None = None
        self.outcomes: queue.SimpleQueue[FetchedImage | Rejected | BaseException | None] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            asyncio.run(self._fetch_all())
            self.outcomes.put(None)
        except BaseException as error:
            self.outcomes.put(error)
        finally:
            self._loop_started.set()

    async def _fetch_all(self) -> None:
        task = asyncio.current_task()
        assert task, "a coroutine runs in a task"
        self._loop, self._cancel = asyncio.get_running_loop(), task.cancel
        self._loop_started.set()
        with concurrent.futures.ThreadPoolExecutor(DECODING_THREADS, "decode") as decoders:
            async with Downloads(self._config, self._image_config) as downloads:
                self._fetcher = _Fetcher(
                    downloads, decoders, self._memory, self._config, self._image_config, self._side
                )

                async def fetch(pair: Pair) -> None:
                    self.outcomes.put(await self._fetcher.fetch(pair))

                # Waiting is cheap: all pairs of a unit wait for their hosts at once, and then for connection slots.
                await asyncio.gather(*map(fetch, self._pairs))
                await self._fetcher.all_released()

    def release(self, outcome: FetchedImage | Rejected) -> None:
        """Frees the slot and the memory of an outcome. Called from the caller's thread."""
        if isinstance(outcome, FetchedImage):
            self._loop.call_soon_threadsafe(self._fetcher.release, outcome)

    def stop(self) -> None:
        """Cancels downloads that still run, and waits for the thread."""
        self._loop_started.wait()
        if self._cancel:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._cancel)
        self.join()
        self._memory.release(self._memory.held)  # of outcomes that the caller has not released


# No fallback URL is tried after these: a mirror must not circumvent an opt-out, and it holds the same image.
NO_FALLBACK_REASONS = frozenset({Reason.OPTED_OUT, Reason.ASPECT_RATIO, Reason.TOO_SMALL, Reason.TOO_MANY_PIXELS})


class _Fetcher:
    """Fetches pairs. An image keeps its connection slot and its memory until it is released."""

    def __init__(
        self,
        downloads: Downloads,
        decoders: concurrent.futures.Executor,
        memory: MemoryLease,
        config: FetchConfig,
        image_config: ImageConfig,
        side: int | None,
    ):
        self._downloads, self._decoders, self._config, self._image_config = downloads, decoders, config, image_config
        self._side = side
        self._memory = memory

    async def fetch(self, pair: Pair) -> FetchedImage | Rejected:
        """Tries the URL, then the fallbacks. Reports the first transient failure, since a later run then tries all URLs
        again, else that of the first URL."""
        failures: list[FetchFailed | ImageRejected] = []
        for url in (pair.url, *pair.fallback_urls):
            try:
                return await self._decoded(pair, await self._with_retries(current_url(url)))
            except (FetchFailed, ImageRejected) as failure:
                failures.append(failure)
                if failure.reason in NO_FALLBACK_REASONS:
                    break
        reported = next((failure for failure in failures if failure.reason in TRANSIENT_REASONS), failures[0])
        detail = reported.detail.encode("utf-8", "replace").decode()  # what servers send need not be text
        return reject(pair, Stage.FETCH, reported.reason, detail[:200])

    async def _with_retries(self, url: str) -> Body:
        attempt = 0
        while True:
            try:
                return await self._downloads.get(url)
            except FetchFailed as failure:
                wait_s = failure.retry_after_s or 0.0
                last = failure.final or attempt == self._config.retries or wait_s > MAX_BACK_OFF_S
                if last or failure.reason not in TRANSIENT_REASONS:
                    raise
                await asyncio.sleep(max(back_off_s(attempt), wait_s))
                attempt += 1

    async def _decoded(self, pair: Pair, body: Body) -> FetchedImage:
        """Decodes a body once there is memory for the image. Raises ImageRejected."""
        loop = asyncio.get_running_loop()
        acquired = kept = 0
        try:
            size = body.size
            if size is None:
                size = await loop.run_in_executor(self._decoders, checked_size, body.file, self._image_config)
            acquired = await self._memory.acquire(body.length + size[0] * size[1] * DECODING_BYTES)
            data, image, sha256 = await loop.run_in_executor(
                self._decoders, _decode, body.file, pair, self._image_config, self._side
            )
            kept = self._memory.at_most(len(data) + image.rgb_HWC.nbytes)
            return FetchedImage(pair, data, image.rgb_HWC, sha256, (image.width, image.height))
        finally:
            body.file.close()
            self._memory.release(acquired - kept)
            if not kept:
                self._downloads.slots.release()

    def release(self, image: FetchedImage) -> None:
        self._memory.release(self._memory.at_most(len(image.data) + image.rgb_HWC.nbytes))
        self._downloads.slots.release()

    async def all_released(self) -> None:
        for _ in range(self._config.connections):
            await self._downloads.slots.acquire()


def _decode(file: BinaryIO, pair: Pair, image_config: ImageConfig, side: int | None) -> tuple[bytes, DecodedImage, str]:
    file.seek(0)
    data = file.read()
    if is_placeholder_file(data):
        raise ImageRejected(Reason.PLACEHOLDER, "known by its hash")
    sha256 = hashlib.sha256(data).hexdigest()
    if pair.expected_sha256 and sha256 != pair.expected_sha256.lower():
        raise ImageRejected(Reason.HASH_MISMATCH, f"sha256 {sha256}")
    return data, decode_scaled(data, image_config, side), sha256
