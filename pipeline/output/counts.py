"""What the processes of a job count, for its progress.

On the launcher's machine each process has a small file of a fixed size, in the work folder of a local output or in the
launcher's temporary folder: reading depends on the number of processes alone, never on the number of units. Workers
elsewhere count by Beam's metrics, which their engine adds up and shows. Both are for display only: a bundle that a
runner repeats counts twice.
"""

from __future__ import annotations

import abc
import array
import contextlib
import enum
import mmap
import os
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult
from apache_beam.runners.worker.statesampler import get_current_tracker

from models.errors import UserError, system_fault
from pipeline.output import files
from pipeline.output.names import PROGRESS_FOLDER, WORK_FOLDER
from pipeline.records import Reason

COUNTS_SUFFIX = ".counts"
FOLDER_VARIABLE = "PAIRMILL_COUNTS_FOLDER"  # of the environment of workers on the launcher's machine
METRICS_NAMESPACE = "pairmill"


class Step(enum.Enum):
    """The steps of all jobs, in the order in which they run: name and what is counted. A job has some of them."""

    COUNT_LINES = "count lines", "ranges"
    SELECT = "select", "rows"
    FILES = "one row a URL", "rows"
    READ = "read", "pairs"
    FETCH = "fetch", "pairs"
    FETCH_AND_ENCODE = "fetch and encode", "pairs"
    ENCODE_PREPARED = "encode fetched", "images"
    ENCODE = "encode", "images"
    SCORE = "score", "images"
    CLUSTER = "cluster", "images"
    GROUP = "group", "pairs"
    SHARDS = "shards", "pairs"


STEPS = tuple(Step)
# Their numbers of rows are unknown beforehand: the plan has bytes of input files, and image shards.
STEPS_BY_WORK = (Step.SELECT, Step.ENCODE, Step.SCORE)
# The others end with SHARDS.
LAST_STEPS = {
    "select": Step.FILES,
    "fetch": Step.FETCH,
    "score": Step.SCORE,
    "cluster": Step.CLUSTER,
}
FETCHED = "fetched"
BYTES = "downloaded_bytes"  # of bodies
DOWNLOAD_S, DECODE_S = "download_s", "decode_s"  # summed over requests, and over images
LEFT_OUT = "near_duplicates_left_out"  # entries of crowded groups that were not compared
BLURRED = "images_with_blurred_faces"
TIMES = ("pictures_s", "model_s", "write_s")  # seconds of encoding
PER_STEP = ("done", "before", "work", "work_before")
# Names of the numbers in a file of counts, each a float64.
SLOTS = (
    *(f"{step.name} {what}" for step in STEPS for what in PER_STEP),
    FETCHED,
    *(reason.value for reason in Reason),
    *TIMES,
    LEFT_OUT,
    BLURRED,
    BYTES,
    DOWNLOAD_S,
    DECODE_S,
    *(f"select {reason.value}" for reason in Reason),  # rejects of select; the others are of downloads
    *(f"{step.name} total" for step in STEPS),  # of a plan, where it is not a file
)
PLACE = {name: place for place, name in enumerate(SLOTS)}


class StepCounts(NamedTuple):
    """The counts of a step, over all processes. Work is in the unit of the plan, for steps whose rows are unknown."""

    done: int  # by this run
    before: int  # found done: by an interrupted run
    work: float
    work_before: float


# Name of a number -> its metric, and how many of the metric's units are one: metrics are integers.
METRICS = {
    name: (name.removesuffix("s") + "ms", 1000) if name.endswith("_s") else (name.lower().replace(" ", "_"), 1)
    for name in SLOTS
}


class Counts(abc.ABC):
    """The counts of one process. Threads may share it."""

    def step(self, step: Step, done: int = 0, before: int = 0, work: float = 0.0, work_before: float = 0.0) -> None:
        """Adds to the counts of a step."""
        numbers = (done, before, work, work_before)
        self.add({f"{step.name} {what}": number for what, number in zip(PER_STEP, numbers, strict=True) if number})

    def fetched(self, reason: str | None) -> None:
        """Counts the outcome of a download: the reason of a failure, or None for an image."""
        self.add({reason or FETCHED: 1})

    @abc.abstractmethod
    def add(self, amounts: Mapping[str, float]) -> None:
        """Adds to numbers by their names in SLOTS."""

    def close(self) -> None:  # noqa: B027 (only a file has to be closed)
        """Ends the counting."""


class FileCounts(Counts):
    """Counts in a file of its own, which is mapped into memory: a count is a few instructions, where a write would also
    hand the interpreter over to another thread."""

    def __init__(self, folder: str):
        """Raises UserError if the file cannot be written."""
        files.make_folder(folder)
        self._lock = threading.Lock()
        path = files.join(folder, f"{os.getpid()}-{uuid.uuid4().hex}{COUNTS_SUFFIX}")
        # Not through atomic_writer: a reader of a part of these numbers sees older ones for the others, no more.
        with _reported(path), open(path, "w+b") as file:
            file.write(bytes(8 * len(SLOTS)))  # all of it has its place on the disk from here on
            file.flush()
            self._mapped = mmap.mmap(file.fileno(), 8 * len(SLOTS))
        self._values = memoryview(self._mapped).cast("d")

    def add(self, amounts: Mapping[str, float]) -> None:
        with self._lock:
            for name, amount in amounts.items():
                self._values[PLACE[name]] += amount

    def close(self) -> None:
        with self._lock:
            self._values.release()
            self._mapped.close()


@contextlib.contextmanager
def _reported(path: str) -> Iterator[None]:
    """Raises UserError where the system can't write a file."""
    try:
        yield
    except OSError as error:
        if line := system_fault(error.errno or 0, error.strerror or "", path):
            raise UserError(f"can't write {line}") from None
        raise


class MetricCounts(Counts):
    """Counts by Beam's metrics, which only the thread of a bundle may change: what other threads count waits for its
    next call, and what the launcher counts stays here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    def add(self, amounts: Mapping[str, float]) -> None:
        with self._lock:
            for name, amount in amounts.items():
                self._waiting[name] += amount  # type: ignore[assignment]  # seconds are no integers
            if get_current_tracker() is None:
                return
            for name, amount in self._waiting.items():
                metric, scale = METRICS[name]
                whole = int(amount * scale)
                Metrics.counter(METRICS_NAMESPACE, metric).inc(whole)
                self._waiting[name] = amount - whole / scale  # type: ignore[assignment]

    def waiting(self) -> dict[str, float]:
        with self._lock:
            return dict(self._waiting)


_counts: dict[tuple[int, str], Counts] = {}  # of this process, or of the one that it was forked from
_counts_lock = threading.Lock()
_own_folder: tempfile.TemporaryDirectory[str] | None = None


def counts_of(output: str) -> Counts:
    """This process's counts for an output."""
    with _counts_lock:
        key = os.getpid(), output
        if key not in _counts:
            folder = counts_folder(output)
            _counts[key] = MetricCounts() if folder is None else FileCounts(folder)
        return _counts[key]


def forget_counts(output: str) -> None:
    """Closes this process's own counts, if it ran a part of the job itself."""
    with _counts_lock:
        for key in [key for key in _counts if key[1] == output]:
            _counts.pop(key).close()


def counts_folder(output: str) -> str | None:
    """Where the processes on the launcher's machine count; None for those elsewhere."""
    if files.is_local(output):
        return files.join(output, WORK_FOLDER, PROGRESS_FOLDER)
    return os.environ.get(FOLDER_VARIABLE)


def keep_counts_here(output: str) -> None:
    """Lets the processes that this one starts count in a temporary folder of its own, if the output is remote."""
    global _own_folder
    if not files.is_local(output):
        _own_folder = tempfile.TemporaryDirectory(prefix="pairmill-counts-", ignore_cleanup_errors=True)
        os.environ[FOLDER_VARIABLE] = _own_folder.name


def end_counts_here() -> None:
    """Removes the temporary folder, if there is one."""
    global _own_folder
    os.environ.pop(FOLDER_VARIABLE, None)
    if _own_folder:
        _own_folder.cleanup()
        _own_folder = None


def sum_of_files(folder: str) -> array.array:
    """The counts of all processes, in the order of SLOTS."""
    total = array.array("d", bytes(8 * len(SLOTS)))
    for name in file_names(folder, COUNTS_SUFFIX):
        with open(files.join(folder, name), "rb") as file:
            data = file.read(8 * len(SLOTS))
        if len(data) == 8 * len(SLOTS):  # shorter while it is created
            total = array.array("d", map(float.__add__, total, array.array("d", data)))
    return total


def sum_of_metrics(output: str, result: PipelineResult) -> array.array:
    """The counts of a job's workers, by its engine, and what this process has counted beside; in the order of SLOTS."""
    total = array.array("d", bytes(8 * len(SLOTS)))
    slots = {metric: (PLACE[name], scale) for name, (metric, scale) in METRICS.items()}
    for found in result.metrics().query(MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]:
        place, scale = slots[found.key.metric.name]
        total[place] += (found.result or 0) / scale
    counts = counts_of(output)
    if isinstance(counts, MetricCounts):
        for name, amount in counts.waiting().items():
            total[PLACE[name]] += amount
    return total


def file_names(folder: str, suffix: str) -> list[str]:
    """The files of one folder with an ending; [] if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.name.endswith(suffix)]
    except FileNotFoundError:
        return []
