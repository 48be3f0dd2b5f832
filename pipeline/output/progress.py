"""Progress of a job: each worker process counts what it does in a small file of its own, and the launcher adds them up.

The files are in the work folder of a local output, have a fixed size and are overwritten in place, so that counting is
one small write and reading depends on the number of processes alone, never on the number of units. They are for display
only: a bundle that a runner repeats counts twice, and the files of a killed run are removed before the next one. For a
remote output nothing is counted.
"""

from __future__ import annotations

import array
import contextlib
import enum
import json
import os
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from models.errors import UserError, system_fault
from models.progress import TERMINAL_INTERVAL_S, Progress, ProgressLine
from pipeline.output import files
from pipeline.output.names import (
    PROGRESS_FOLDER,
    UNIT_STATS_SUFFIX,
    UNITS_FOLDER,
    WORK_FOLDER,
)
from pipeline.records import Reason

COUNTS_SUFFIX, PLAN_SUFFIX = ".counts", ".plan.json"
LOG_LOOK_INTERVAL_S = 5.0  # shorter than that of a log's lines: a stage is dated by the look before it
ROWS_PER_COUNT = 100  # of select, whose rows are quick


class Step(enum.Enum):
    """The steps of all jobs, in the order in which they run: name and what is counted. A job has some of them."""

    COUNT_LINES = "count lines", "ranges"
    SELECT = "select", "rows"
    FILES = "one row a URL", "rows"
    READ = "read", "pairs"
    FETCH = "fetch", "pairs"
    FETCH_AND_ENCODE = "fetch and encode", "pairs"
    ENCODE = "encode", "images"
    GROUP = "group", "pairs"
    SHARDS = "shards", "pairs"


STEPS = tuple(Step)
# Their numbers of rows are unknown beforehand: the plan has bytes of input files, and image shards.
STEPS_BY_WORK = (Step.SELECT, Step.ENCODE)
LAST_STEPS = {"select": Step.FILES, "fetch": Step.FETCH}  # of the other jobs it is SHARDS
FETCHED = "fetched"
TIMES = ("pictures_s", "model_s", "write_s")  # seconds of encoding
_PER_STEP = ("done", "before", "work", "work_before")
# Names of the numbers in a file of counts, each a float64.
SLOTS = (
    *(f"{step.name} {what}" for step in STEPS for what in _PER_STEP),
    FETCHED,
    *(reason.value for reason in Reason),
    *TIMES,
)
_PLACE = {name: place for place, name in enumerate(SLOTS)}


class StepCounts(NamedTuple):
    """The counts of a step, over all processes. Work is in the unit of the plan, for steps whose rows are unknown."""

    done: int  # by this run
    before: int  # found done: by an interrupted run
    work: float
    work_before: float


# --- in the workers --------------------------------------------------------------------------------------------------


class ProcessCounts:
    """The counts of one process. Threads may share it."""

    def __init__(self, output: str):
        """Raises UserError if the file cannot be written."""
        folder = files.join(output, WORK_FOLDER, PROGRESS_FOLDER)
        files.make_folder(folder)
        self._values = array.array("d", bytes(8 * len(SLOTS)))
        self._lock = threading.Lock()
        self._path = files.join(folder, f"{os.getpid()}-{uuid.uuid4().hex}{COUNTS_SUFFIX}")
        with self._reported():
            # Not through atomic_writer: a reader of a part of these numbers sees older ones for the others, no more.
            self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115 (kept open until the process's end)
        self._write()

    def step(self, step: Step, done: int = 0, before: int = 0, work: float = 0.0, work_before: float = 0.0) -> None:
        """Adds to the counts of a step."""
        numbers = (done, before, work, work_before)
        self.add({f"{step.name} {what}": number for what, number in zip(_PER_STEP, numbers, strict=True) if number})

    def fetched(self, reason: str | None) -> None:
        """Counts the outcome of a download: the reason of a failure, or None."""
        self.add({reason or FETCHED: 1})

    def add(self, amounts: Mapping[str, float]) -> None:
        """Adds to numbers by their names in SLOTS."""
        with self._lock:
            for name, amount in amounts.items():
                self._values[_PLACE[name]] += amount
            self._write()

    def close(self) -> None:
        self._file.close()

    def _write(self) -> None:
        with self._reported():
            os.pwrite(self._file.fileno(), self._values.tobytes(), 0)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if line := system_fault(error.errno or 0, error.strerror or "", self._path):
                raise UserError(f"can't write {line}") from None
            raise


class _NoCounts(ProcessCounts):
    """Counts nothing: the output is remote."""

    def __init__(self) -> None:
        pass

    def add(self, amounts: Mapping[str, float]) -> None:
        pass


NO_COUNTS = _NoCounts()
_counts: dict[tuple[int, str], ProcessCounts] = {}  # of this process, or of the one that it was forked from
_counts_lock = threading.Lock()


def counts_of(output: str) -> ProcessCounts:
    """This process's counts for an output."""
    if not files.is_local(output):
        return NO_COUNTS
    with _counts_lock:
        key = os.getpid(), output
        if key not in _counts:
            _counts[key] = ProcessCounts(output)
        return _counts[key]


# --- plans -----------------------------------------------------------------------------------------------------------


def write_plan(output: str, step: Step, total: int, finished: int = 0) -> None:
    """Records, for a local output, how much a step has to do, in rows or in work (see STEPS_BY_WORK), and how much of
    it an interrupted run finished."""
    if files.is_local(output):
        plan = {"total": total, "finished": finished}
        files.write_atomically(plan_path(output, step), json.dumps(plan).encode())


def count_finished(output: str, units: int, attempt: int = 1) -> int:
    """The number of finished units of a local output, from one look at its folders."""
    if not files.is_local(output):
        return 0
    encoded = _names(files.join(output, WORK_FOLDER, UNITS_FOLDER), f"-of-{units:05d}.msgpack")
    # Shards of earlier attempts have smaller numbers, and say nothing of this one.
    fetched = (int(name.partition("_")[0]) for name in _names(output, UNIT_STATS_SUFFIX))
    return len(encoded) + sum(number >= (attempt - 1) * units for number in fetched)


def _names(folder: str, suffix: str) -> list[str]:
    """The files of one folder with an ending; [] if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.name.endswith(suffix)]
    except FileNotFoundError:
        return []


def plan_path(output: str, step: Step) -> str:
    return files.join(output, WORK_FOLDER, PROGRESS_FOLDER, f"{step.name.lower()}{PLAN_SUFFIX}")


# --- in the launcher -------------------------------------------------------------------------------------------------


class ProgressReporter:
    """Context manager. Shows the progress of a job on a local output while its pipeline runs, with that of the other
    processes if it shares the output."""

    def __init__(self, output: str, job: str, shares_output: bool = False):
        self._output, self._job, self._shares_output = output, job, shares_output
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> ProgressReporter:
        if files.is_local(self._output):
            if not self._shares_output:
                remove_counts(self._output)
            self._line = ProgressLine(self._job)
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self._line.__exit__(*exception)
            _forget(self._output)

    def _run(self) -> None:
        interval_s = TERMINAL_INTERVAL_S if sys.stderr.isatty() else LOG_LOOK_INTERVAL_S
        while not self._stop.wait(interval_s):
            self._line.show(read_progress(self._output, self._job))
        self._line.show(read_progress(self._output, self._job))


def remove_counts(output: str) -> None:
    """Removes the counts of an interrupted run."""
    _forget(output)
    folder = files.join(output, WORK_FOLDER, PROGRESS_FOLDER)
    files.delete(folder, _names(folder, COUNTS_SUFFIX))


def _forget(output: str) -> None:
    """Closes this process's own file of counts, if it ran a part of the job itself."""
    with _counts_lock:
        for key in [key for key in _counts if key[1] == output]:
            _counts.pop(key).close()


def read_progress(output: str, job: str) -> Progress:
    """How far a job is. Reads one file for each process, and one for the plan."""
    values = _sum_of_counts(output)
    counts = {step: StepCounts(*_step_values(values, step)) for step in STEPS}
    started = [step for step in STEPS if any(counts[step])]
    if not started:
        return Progress(0, "", stage="start")
    step = started[-1]
    progress = _progress_of(step, counts, _read_plan(output, step))
    if step == LAST_STEPS.get(job, STEPS[-1]) and progress.total and progress.done >= progress.total:
        return Progress(0, "", stage="finish")
    return progress._replace(detail="; ".join(filter(None, _details(step, counts[step].done, values))))


def _sum_of_counts(output: str) -> array.array:
    total = array.array("d", bytes(8 * len(SLOTS)))
    folder = files.join(output, WORK_FOLDER, PROGRESS_FOLDER)
    for name in _names(folder, COUNTS_SUFFIX):
        with open(files.join(folder, name), "rb") as file:
            data = file.read(8 * len(SLOTS))
        if len(data) == 8 * len(SLOTS):  # shorter while it is created
            total = array.array("d", map(float.__add__, total, array.array("d", data)))
    return total


def _step_values(values: Sequence[float], step: Step) -> list[Any]:
    done, before, work, work_before = (values[_PLACE[f"{step.name} {what}"]] for what in _PER_STEP)
    return [int(done), int(before), work, work_before]


def _read_plan(output: str, step: Step) -> dict[str, Any]:
    path = plan_path(output, step)
    return json.loads(files.read(path)) if files.exists(path) else {}


def _progress_of(step: Step, counts: Mapping[Step, StepCounts], plan: Mapping[str, int]) -> Progress:
    name, unit = step.value
    done, before, work, work_before = counts[step]
    planned = plan.get("total", 0)
    if step in STEPS_BY_WORK:
        if not planned:
            return Progress(done + before, unit, None, name, before)
        share = min(1.0, (work + work_before) / planned)
        return Progress(done + before, unit, None, name, before, share, max(0.0, share - work / planned))
    total = _rows_before(step, counts) or planned
    # At first finished units are known from the plan alone; workers then find them, and rows to try again among them.
    reached = max(plan.get("finished", 0), done + before)
    reached = min(total, reached) if total else reached
    return Progress(reached, unit, total or None, name, max(0, reached - done))


def _rows_before(step: Step, counts: Mapping[Step, StepCounts]) -> int:
    """The rows of the step before, where these are the step's own; else 0."""
    source = {Step.FILES: Step.SELECT, Step.SHARDS: Step.GROUP}.get(step)
    return counts[source].done + counts[source].before if source else 0


def _details(step: Step, images: int, values: Sequence[float]) -> Iterator[str]:
    if step in (Step.FETCH, Step.FETCH_AND_ENCODE):
        yield _outcomes(values)
    if step in (Step.ENCODE, Step.FETCH_AND_ENCODE):
        yield _times(images, values)


def _outcomes(values: Sequence[float]) -> str:
    """The share of pairs that were fetched, and the most frequent failures."""
    failed = Counter({reason.value: int(values[_PLACE[reason.value]]) for reason in Reason})
    fetched = int(values[_PLACE[FETCHED]])
    if not (total := fetched + failed.total()):
        return ""
    common = [f"{reason} {number:,}" for reason, number in failed.most_common(3) if number]
    return ", ".join([f"{fetched / total:.1%} fetched", *common])


def _times(images: int, values: Sequence[float]) -> str:
    """Images/s of one worker, and the shares of time for reading, the model and writing."""
    spent = {name: values[_PLACE[name]] for name in TIMES}
    if not (total_s := sum(spent.values())):
        return ""
    shares = ", ".join(f"{name.removesuffix('_s')} {seconds / total_s:.0%}" for name, seconds in spent.items())
    return f"{images / total_s:.1f} images/s a worker: {shares}"
