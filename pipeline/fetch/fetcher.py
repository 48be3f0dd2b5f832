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
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO, Generic, Protocol, TypeVar

from models.errors import UserError
from pipeline.fetch.budget import BudgetLease, memory_lease
from pipeline.fetch.costs import costs
from pipeline.fetch.download import Body, Downloads, FetchConfig
from pipeline.fetch.general_brake import GeneralBrake, same_failures
from pipeline.fetch.machine_faults import unexpected_errors
from pipeline.fetch.per_process import per_process
from pipeline.fetch.retry import MAX_BACK_OFF_S, FetchFailed, back_off_s
from pipeline.fetch.slots import Activity
from pipeline.images.fetched import FetchedImage, Size
from pipeline.images.validate import ImageConfig, ImageRejected, checked_size, decode_scaled
from pipeline.records import TRANSIENT_REASONS, Pair, Reason, Rejected, Stage, reject
from pipeline.sources.hosts import current_url, is_placeholder_file
from pipeline.sources.stored_images import NotStored, read_stored
from pipeline.sources.url_hosts import host_of

DECODING_THREADS = 2
RELEASES_AT_ONCE = 8
DECODING_BYTES = 12  # of memory per pixel (measured: 8 for JPEG, PNG and TIFF, 10 for AVIF, 16 for WebP); RGB keeps 3


class InMemory(Protocol):
    """What an image is converted to."""

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""


T = TypeVar("T", bound=InMemory)
Decode = Callable[[BinaryIO, Pair], T]
"""A downloaded file and its pair to what `convert` makes of the image. Raises ImageRejected."""


def fetch_images(
    pairs: Iterable[Pair], config: FetchConfig, image_config: ImageConfig, activity: Activity | None = None
) -> Iterator[FetchedImage | Rejected]:
    """Yields one outcome for each pair, in the order in which they finish; `activity` as for `fetch_converted`."""
    return fetch_converted(pairs, config, image_config, _unchanged, activity=activity)


def _unchanged(image: FetchedImage) -> FetchedImage:
    return image


def fetch_converted(
    pairs: Iterable[Pair],
    config: FetchConfig,
    image_config: ImageConfig,
    convert: Callable[[FetchedImage], T],
    side: int | None = None,
    activity: Activity | None = None,
) -> Iterator[T | Rejected]:
    """Yields one outcome for each pair, in the order in which they finish: what `convert` makes of its image, in the
    thread that has just decoded it. With `side`, `convert` may get an image reduced, but with a shorter side of at
    least `side` px. Other threads read from `activity` how many rows are busy.

    The event loop runs in a thread of its own and waits while the caller is busy: at most `connections` outcomes, and
    `memory_bytes` of them, are in memory at once.
    """
    pairs = list(pairs)
    decode = partial(_decode, config=image_config, side=side, convert=convert)
    yield from _read_converted((pair for pair in pairs if pair.stored_at), config, image_config, decode)
    pairs = [pair for pair in pairs if not pair.stored_at]
    loop_thread = _LoopThread(interleave_hosts(pairs), config, image_config, decode, activity or Activity())
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
    pairs: Iterable[Pair], config: FetchConfig, image_config: ImageConfig
) -> Iterator[FetchedImage | Rejected]:
    """The images of pairs whose sources hold them."""
    decode = partial(_decode, config=image_config, side=None, convert=_unchanged)
    return _read_converted(pairs, config, image_config, decode)


def _read_converted(
    pairs: Iterable[Pair], config: FetchConfig, image_config: ImageConfig, decode: Decode[T]
) -> Iterator[T | Rejected]:
    for pair, found in read_stored(pairs):
        unexpected_errors.rows += 1
        try:
            outcome: T | Rejected = _stored(pair, found, config, image_config, decode)
        except Exception as error:  # of any kind, as for downloads
            outcome = unexpected_errors.reject(pair, error, config.shared_folder)
        yield outcome


def _stored(
    pair: Pair, found: bytes | NotStored, config: FetchConfig, image_config: ImageConfig, decode: Decode[T]
) -> T | Rejected:
    """Checks an image that was read from a source's file as if it had been downloaded."""
    try:
        if isinstance(found, NotStored):
            raise FetchFailed(Reason.NOT_STORED, found.detail)
        if len(found) > config.max_bytes:
            raise FetchFailed(Reason.TOO_LARGE, f"{len(found)} bytes")
        size = checked_size(io.BytesIO(found), image_config)
        return _decode_alone(partial(decode, io.BytesIO(found), pair), size)
    except (FetchFailed, ImageRejected) as failure:
        return reject(pair, Stage.FETCH, failure.reason, failure.detail[:200])


def interleave_hosts(pairs: Iterable[Pair]) -> list[Pair]:
    """Orders pairs so that hosts alternate: a slow host then does not delay those after it."""
    by_host: dict[str, collections.deque[Pair]] = {}
    for pair in pairs:
        by_host.setdefault(host_of(pair.url), collections.deque()).append(pair)
    queues, ordered = collections.deque(by_host.values()), []
    while queues:
        waiting = queues.popleft()
        ordered.append(waiting.popleft())
        if waiting:
            queues.append(waiting)
    return ordered


class _LoopThread(threading.Thread, Generic[T]):
    """The thread of the event loop, as the caller's thread sees it."""

    def __init__(
        self,
        pairs: list[Pair],
        config: FetchConfig,
        image_config: ImageConfig,
        decode: Decode[T],
        activity: Activity,
    ):
        super().__init__(name="fetch", daemon=True)
        self._activity = activity
        self._pairs, self._config, self._image_config, self._decode = pairs, config, image_config, decode
        self._memory = memory_lease(config.memory_bytes)
        self._loop_started = threading.Event()
        self._cancel: Callable[[], object] | None = None
        self.outcomes: queue.SimpleQueue[T | Rejected | BaseException | None] = queue.SimpleQueue()
        self._released: collections.deque[T] = collections.deque()
        self._is_woken = False

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
        async with Downloads(self._config, self._image_config, len(self._pairs)) as downloads:
            self._fetcher = _Fetcher(
                downloads, self._memory, self._config, self._image_config, self._decode, self.outcomes.put
            )

            async def fetch(pair: Pair) -> None:
                try:
                    await self._fetcher.fetch(pair)
                finally:
                    downloads.rows.done()

            self._activity.begin(downloads.busy_rows)
            # Waiting is cheap: all pairs of a unit wait for their hosts at once, and then for connection slots.
            await asyncio.gather(*map(fetch, self._pairs))
            await self._fetcher.all_released()

    def release(self, outcome: T | Rejected) -> None:
        """Frees the slot and the memory of an outcome, now or with a later one. Called for each outcome, from the
        caller's thread."""
        if not isinstance(outcome, Rejected):
            self._released.append(outcome)
        # Waking the loop costs a system call, and often the interpreter. It takes all that wait, and none is in a hurry
        # while the caller has other outcomes to go on with.
        is_due = self.outcomes.empty() or len(self._released) >= RELEASES_AT_ONCE
        if self._released and is_due and not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: the next outcome is the cause
                self._loop.call_soon_threadsafe(self._release_all)

    def _release_all(self) -> None:
        self._is_woken = False
        self._fetcher.note_delivered()
        while self._released:
            self._fetcher.release(self._released.popleft())

    def stop(self) -> None:
        """Cancels downloads that still run, and waits for the thread."""
        self._loop_started.wait()
        if self._cancel:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._cancel)
        self.join()
        self._memory.close()  # of outcomes that the caller has not released


# No fallback URL is tried after these: a mirror must not circumvent an opt-out, and it holds the same image.
NO_FALLBACK_REASONS = frozenset({Reason.OPTED_OUT, Reason.ASPECT_RATIO, Reason.TOO_SMALL, Reason.TOO_MANY_PIXELS})


class _Fetcher(Generic[T]):
    """Fetches pairs. An outcome that is no reject keeps its connection slot and its memory until it is released.

    The thread that has decoded an image delivers it, without waking the event loop: the loop hears of it from the
    release, by `note_delivered`.
    """

    def __init__(
        self,
        downloads: Downloads,
        memory: BudgetLease,
        config: FetchConfig,
        image_config: ImageConfig,
        decode: Decode[T],
        deliver: Callable[[T | Rejected], None],
    ):
        self._downloads, self._config, self._image_config, self._decode = downloads, config, image_config, decode
        self._deliver = deliver  # from any thread
        self._delivered: collections.deque[asyncio.Future[None]] = collections.deque()
        self._decoders = _decoders()
        self._memory = memory
        self._brake = GeneralBrake(same_failures, config.shared_folder)

    async def fetch(self, pair: Pair) -> None:
        """Delivers a pair's outcome. Whatever happens to a row is its reject. Raises UserError if the fault is this
        machine's."""
        if rejected := await self._rejected(pair):
            self._deliver(rejected)

    async def _rejected(self, pair: Pair) -> Rejected | None:
        """None if an image was delivered."""
        unexpected_errors.rows += 1
        try:
            while True:
                started, rejected = time.monotonic(), await self._first_good(pair)
                if not rejected:
                    same_failures.fetched(pair.url)
                    return None
                if await self._brake.blames(rejected.reason, host_of(pair.url), started, self._ask):
                    return rejected
        except Exception as error:  # of any kind: servers and images find new ones
            return unexpected_errors.reject(pair, error, self._config.shared_folder)

    async def _ask(self, url: str) -> str:
        """Why a URL that has given an image gives none now; "" if it does."""
        try:
            body = await self._downloads.get(current_url(url))
        except (FetchFailed, ImageRejected) as failure:
            return failure.reason.value
        body.file.close()
        self._downloads.slots.release()
        return ""

    async def _first_good(self, pair: Pair) -> Rejected | None:
        """Tries the URL, then the fallbacks. Reports the first transient failure, since a later run then tries all URLs
        again, else that of the first URL; None if an image was delivered."""
        failures: list[FetchFailed | ImageRejected] = []
        for url in (pair.url, *pair.fallback_urls):
            try:
                await self._decode_body(pair, await self._with_retries(current_url(url)))
                return None
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

    async def _decode_body(self, pair: Pair, body: Body) -> None:
        """Decodes and converts a body once there is memory for the image, and delivers it. Returns once the event loop
        has heard of that. Raises ImageRejected."""
        is_delivered = False
        try:
            size = body.size
            if size is None:
                check = partial(checked_size, body.file, self._image_config)
                size = await asyncio.get_running_loop().run_in_executor(self._decoders, check)
            enough = body.length + size[0] * size[1] * DECODING_BYTES
            decode = partial(self._decode, body.file, pair)
            try:
                await self._delivery(body, decode, await self._memory.acquire(enough))
            except MemoryError:  # perhaps for want of what other images hold: again, with all of the budget
                decode_alone = partial(_decode_alone, decode, size)
                await self._delivery(body, decode_alone, await self._memory.acquire(sys.maxsize))
            is_delivered = True
        finally:
            body.file.close()
            if not is_delivered:
                self._downloads.slots.release()

    def _delivery(self, body: Body, decode: Callable[[], T], memory: int) -> asyncio.Future[None]:
        """Decodes in another thread, which delivers the outcome, and releases what it leaves of the `memory` acquired.
        The future is done by `note_delivered`, or with what `decode` raises."""
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            try:
                outcome = decode()
            except BaseException as error:
                self._memory.release(memory)
                with contextlib.suppress(RuntimeError):  # the loop was stopped meanwhile
                    loop.call_soon_threadsafe(_fail, delivered, error)
            else:
                body.file.close()
                self._memory.release(memory - self._memory.at_most(outcome.nbytes))
                self._delivered.append(delivered)
                self._deliver(outcome)

        self._decoders.submit(run)
        return delivered

    def note_delivered(self) -> None:
        """Ends the fetching of pairs whose images were delivered since the last call."""
        while self._delivered:
            delivered = self._delivered.popleft()
            if not delivered.done():  # cancelled
                delivered.set_result(None)

    def release(self, outcome: T) -> None:
        self._memory.release(self._memory.at_most(outcome.nbytes))
        self._downloads.slots.release()

    async def all_released(self) -> None:
        for _ in range(self._config.connections):
            await self._downloads.slots.acquire()


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():  # cancelled
        future.set_exception(error)


@per_process
def _decoders() -> concurrent.futures.ThreadPoolExecutor:
    """Threads for the images of all units of this process. glibc keeps what a thread has freed for that thread alone:
    two for each unit would keep the memory of sixteen images."""
    return concurrent.futures.ThreadPoolExecutor(DECODING_THREADS, "decode")


def _decode_alone(decode: Callable[[], T], size: Size) -> T:
    """Decodes an image while the budget holds no other. Raises UserError if this machine lacks the memory that an image
    of this size may take, and ImageRejected if the image takes more."""
    try:
        return decode()
    except MemoryError:
        try:
            bytearray(size[0] * size[1] * DECODING_BYTES)
        except MemoryError as error:
            raise UserError(
                f"there is not enough memory for an image of {size[0]} x {size[1]} px; give this process more, or "
                "lower --max-pixels"
            ) from error
    raise ImageRejected(Reason.CORRUPT_IMAGE, "takes more memory than its size explains")


def _decode(
    file: BinaryIO, pair: Pair, config: ImageConfig, side: int | None, convert: Callable[[FetchedImage], T]
) -> T:
    file.seek(0)
    data = file.read()
    if is_placeholder_file(data):
        raise ImageRejected(Reason.PLACEHOLDER, "known by its hash")
    sha256 = hashlib.sha256(data).hexdigest()
    if pair.expected_sha256 and sha256 != pair.expected_sha256.lower():
        raise ImageRejected(Reason.HASH_MISMATCH, f"sha256 {sha256}")
    with costs.decoding():
        image = decode_scaled(data, config, side)
    fetched = FetchedImage(
        pair=pair,
        data=data,
        rgb_HWC=image.rgb_HWC,
        sha256=sha256,
        full_size=(image.width, image.height),
        exif=image.exif,
    )
    return convert(fetched)
