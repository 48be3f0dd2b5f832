"""Polite, bounded, safe downloads: pairs in, checked pictures or reasons out.

Every picture ends: an attempt has a deadline from connecting to the last byte and a cap on bytes, attempts and
redirects are counted, and only a reason that may pass is tried again.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import itertools
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
DECODING_BYTES = 12  # memory a pixel (measured: 8 for JPEG, PNG and TIFF, 10 for AVIF, 16 for WebP); RGB's 3 remain


@dataclasses.dataclass
class DownloadStats:
    """What some downloads came to, for those who watch."""

    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # reason, or "success"
    bytes: int = 0  # of image_config
    host_s: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # waited for answers

    def count(self, outcome: FetchedImage | Rejected) -> None:
        self.outcomes["success" if isinstance(outcome, FetchedImage) else outcome.reason] += 1
        self.bytes += len(outcome.data) if isinstance(outcome, FetchedImage) else 0


def fetch_images(
    pairs: Iterable[Pair],
    config: FetchConfig,
    image_config: ImageConfig,
    side: int | None = None,
    tally: DownloadStats | None = None,
) -> Iterator[FetchedImage | Rejected]:
    """One outcome for each pair, in the order in which they are done. A caller that makes the shorter sides `side` px
    long may get reduced pictures, never below that.

    The event loop runs in a thread of its own and waits while the caller is busy: at most `connections` pictures, and
    `memory_bytes` of them, are held at once.
    """
    tally, pairs = tally or DownloadStats(), list(pairs)
    for pair, found in read_stored(pair for pair in pairs if pair.stored_at):
        outcome = _stored(pair, found, config, image_config, side)
        tally.count(outcome)
        yield outcome
    pairs = [pair for pair in pairs if not pair.stored_at]
    engine = _LoopThread(interleave_hosts(pairs), config, image_config, side, tally.host_s)
    engine.start()
    try:
        while (outcome := engine.outcomes.get()) is not None:
            if isinstance(outcome, BaseException):
                raise outcome
            tally.count(outcome)
            yield outcome
            engine.taken(outcome)
            del outcome  # else it would be held until the next one has come
    finally:
        engine.stop()


def _stored(
    pair: Pair, found: bytes | NotStored, config: FetchConfig, image_config: ImageConfig, side: int | None
) -> FetchedImage | Rejected:
    """The outcome of a picture that is held already: the same checks as if it had just arrived."""
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
    """One of each host in turn, so that a slow host does not hold up those behind it."""
    by_host: dict[str, collections.deque[Pair]] = {}
    for pair in pairs:
        by_host.setdefault(_host_of(pair.url), collections.deque()).append(pair)
    turn, ordered = collections.deque(by_host.values()), []
    while turn:
        waiting = turn.popleft()
        ordered.append(waiting.popleft())
        if waiting:
            turn.append(waiting)
    return ordered


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such a URL is rejected when its turn comes
        return ""


class _LoopThread(threading.Thread):
    """The thread of the event loop, as the caller's thread sees it."""

    def __init__(
        self,
        pairs: list[Pair],
        config: FetchConfig,
        image_config: ImageConfig,
        side: int | None,
        host_s: collections.Counter[str],
    ):
        super().__init__(name="fetch", daemon=True)
        self._pairs, self._config, self._image_config, self._side = pairs, config, image_config, side
        self._host_s = host_s
        self._memory = memory_lease(config.memory_bytes)
        self._begun = threading.Event()
        self._cancel: Callable[[], object] | None = None
        self.outcomes: queue.SimpleQueue[FetchedImage | Rejected | BaseException | None] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            asyncio.run(self._fetch_all())
            self.outcomes.put(None)
        except BaseException as error:
            self.outcomes.put(error)
        finally:
            self._begun.set()

    async def _fetch_all(self) -> None:
        self._loop, self._cancel = asyncio.get_running_loop(), asyncio.current_task().cancel
        self._begun.set()
        with concurrent.futures.ThreadPoolExecutor(DECODING_THREADS, "decode") as decoders:
            async with Downloads(self._config, self._image_config, self._host_s) as downloads:
                self._fetcher = _Fetcher(
                    downloads, decoders, self._memory, self._config, self._image_config, self._side
                )

                async def fetch(pair: Pair) -> None:
                    self.outcomes.put(await self._fetcher.fetch(pair))

                # Waiting costs little: all pairs of a unit wait for their hosts at once, and then for room.
                await asyncio.gather(*map(fetch, self._pairs))
                await self._fetcher.all_released()

    def taken(self, outcome: FetchedImage | Rejected) -> None:
        """The caller has done with an outcome, which makes room for another."""
        if isinstance(outcome, FetchedImage):
            self._loop.call_soon_threadsafe(self._fetcher.release, outcome)

    def stop(self) -> None:
        """Ends the downloads, if any are left, and waits for the thread."""
        self._begun.wait()
        if self._cancel:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._cancel)
        self.join()
        self._memory.give(self._memory.held)  # for outcomes that nobody has taken


# No other place is asked after these: a mirror is no way around an opt-out, and it holds the very same image.
NO_FALLBACK_REASONS = frozenset({Reason.OPTED_OUT, Reason.ASPECT_RATIO, Reason.TOO_SMALL, Reason.TOO_MANY_PIXELS})


class _Fetcher:
    """Pair -> picture, or the reason why not. A picture's place in the room is kept until it is released."""

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
        """Tries the URL, then the fallbacks. Told is the failure that may pass, since a later run tries all of them
        again; else that of the first URL."""
        failures: list[FetchFailed | ImageRejected] = []
        for url in (pair.url, *pair.fallback_urls):
            try:
                return await self._decoded(pair, await self._with_retries(current_url(url)))
            except (FetchFailed, ImageRejected) as failure:
                failures.append(failure)
                if failure.reason in NO_FALLBACK_REASONS:
                    break
        told = next((failure for failure in failures if failure.reason in TRANSIENT_REASONS), failures[0])
        detail = told.detail.encode("utf-8", "replace").decode()  # what servers send need not be text
        return reject(pair, Stage.FETCH, told.reason, detail[:200])

    async def _with_retries(self, url: str) -> Body:
        for attempt in itertools.count():
            try:
                return await self._downloads.get(url)
            except FetchFailed as failure:
                rest_s = failure.retry_after_s or 0.0
                last = failure.final or attempt == self._config.retries or rest_s > MAX_BACK_OFF_S
                if last or failure.reason not in TRANSIENT_REASONS:
                    raise
                await asyncio.sleep(max(back_off_s(attempt), rest_s))

    async def _decoded(self, pair: Pair, body: Body) -> FetchedImage:
        """Raises PictureRejected. Waits until there is memory for the picture."""
        loop = asyncio.get_running_loop()
        taken = kept = 0
        try:
            size = body.size or await loop.run_in_executor(self._decoders, checked_size, body.file, self._image_config)
            taken = await self._memory.take(body.length + size[0] * size[1] * DECODING_BYTES)
            data, image, sha256 = await loop.run_in_executor(
                self._decoders, _decode, body.file, pair, self._image_config, self._side
            )
            kept = self._memory.at_most(len(data) + image.rgb_HWC.nbytes)
            return FetchedImage(pair, data, image.rgb_HWC, sha256, (image.width, image.height))
        finally:
            body.file.close()
            self._memory.give(taken - kept)
            if not kept:
                self._downloads.room.release()

    def release(self, image: FetchedImage) -> None:
        self._memory.give(self._memory.at_most(len(image.data) + image.rgb_HWC.nbytes))
        self._downloads.room.release()

    async def all_released(self) -> None:
        for _ in range(self._config.connections):
            await self._downloads.room.acquire()


def _decode(file: BinaryIO, pair: Pair, image_config: ImageConfig, side: int | None) -> tuple[bytes, DecodedImage, str]:
    file.seek(0)
    data = file.read()
    if is_placeholder_file(data):
        raise ImageRejected(Reason.PLACEHOLDER, "known by its hash")
    sha256 = hashlib.sha256(data).hexdigest()
    if pair.expected_sha256 and sha256 != pair.expected_sha256.lower():
        raise ImageRejected(Reason.HASH_MISMATCH, f"sha256 {sha256}")
    return data, decode_scaled(data, image_config, side), sha256
