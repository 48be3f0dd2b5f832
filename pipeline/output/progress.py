"""How far a job is: what its steps have to do, and how much of it is counted as done (`counts.py`)."""

from __future__ import annotations

import array
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apache_beam.runners.runner import PipelineResult

from models.progress import TERMINAL_INTERVAL_S, Progress, ProgressLine
from pipeline.output import files
from pipeline.output.counts import (
    BLURRED,
    BYTES,
    COUNTS_SUFFIX,
    DECODE_S,
    DOWNLOAD_S,
    FETCHED,
    LAST_STEPS,
    LEFT_OUT,
    PER_STEP,
    PLACE,
    STEPS,
    STEPS_BY_WORK,
    TIMES,
    Step,
    StepCounts,
    counts_folder,
    counts_of,
    end_counts_here,
    file_names,
    forget_counts,
    sum_of_files,
    sum_of_metrics,
)
from pipeline.output.names import UNIT_STATS_SUFFIX, UNITS_FOLDER, WORK_FOLDER
from pipeline.records import Reason

PLAN_SUFFIX = ".plan.json"
LOG_REFRESH_INTERVAL_S = 5.0  # shorter than that of a log's lines: a stage is dated by the refresh before it
METRICS_INTERVAL_S = 15.0  # an engine's service is asked


# --- plans -----------------------------------------------------------------------------------------------------------


def write_plan(output: str, step: Step, total: int, finished: int = 0) -> None:
    """Records how much a step has to do, in rows or in work (see STEPS_BY_WORK), and how much of it an interrupted run
    finished."""
    if path := plan_path(output, step):
        files.write_atomically(path, json.dumps({"total": total, "finished": finished}).encode())
    else:
        counts_of(output).add({f"{step.name} total": total})


def count_finished(output: str, units: int, attempt: int = 1) -> int:
    """The number of finished units of a local output, from one listing of its folders."""
    if not files.is_local(output):
        return 0
    encoded = file_names(files.join(output, WORK_FOLDER, UNITS_FOLDER), f"-of-{units:05d}.msgpack")
    # Shards of earlier attempts have smaller numbers, and do not count for this one.
    fetched = (int(name.partition("_")[0]) for name in file_names(output, UNIT_STATS_SUFFIX))
    return len(encoded) + sum(number >= (attempt - 1) * units for number in fetched)


def plan_path(output: str, step: Step) -> str | None:
    """The file of a plan; None where workers are not on the launcher's machine."""
    folder = counts_folder(output)
    return None if folder is None else files.join(folder, f"{step.name.lower()}{PLAN_SUFFIX}")


class ProgressReporter:
    """Context manager. Shows the progress of a job while its pipeline runs, with that of the other processes if it
    shares the output: at once where workers are on this machine, elsewhere once it follows the engine's result."""

    def __init__(self, output: str, job: str, shares_output: bool = False):
        self._output, self._job, self._shares_output = output, job, shares_output
        self._interval_s = TERMINAL_INTERVAL_S if sys.stderr.isatty() else LOG_REFRESH_INTERVAL_S
        self._result: PipelineResult | None = None
        self._values = array.array("d", bytes(8 * len(PLACE)))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> ProgressReporter:
        if counts_folder(self._output) is not None:
            if not self._shares_output:
                remove_counts(self._output)
            self._start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self._line.__exit__(*exception)
        forget_counts(self._output)
        end_counts_here()

    def follow(self, result: PipelineResult) -> None:
        """Asks the engine for the counts of workers that are not on this machine."""
        if counts_folder(self._output) is None and not self._thread.is_alive():
            self._result, self._interval_s = result, METRICS_INTERVAL_S
            self._start()

    def _start(self) -> None:
        self._line = ProgressLine(self._job)
        self._thread.start()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(self._interval_s)
            try:
                self._values = self._read_values()
            except Exception:  # an engine that can't be asked ends the job by itself; here it costs a line of progress
                continue
            self._line.show(read_progress(self._output, self._job, self._values))

    def _read_values(self) -> array.array:
        return sum_of_metrics(self._output, self._result) if self._result else _sum_here(self._output)

    def summary(self) -> list[str]:
        """What this run has cost and left undone, as last counted: a line each, for its end."""
        return list(filter(None, (_spent(self._values), _blurred(self._values), _left_out(self._values))))


def remove_counts(output: str) -> None:
    """Removes the counts of an interrupted run from this machine."""
    forget_counts(output)
    if folder := counts_folder(output):
        files.delete(folder, file_names(folder, COUNTS_SUFFIX))


def read_progress(output: str, job: str, values: array.array | None = None) -> Progress:
    """How far a job is, by these counts, or by those on this machine: one file for each process, and one for the
    plan."""
    if values is None:
        values = _sum_here(output)
    counts = {step: _step_counts(values, step) for step in STEPS}
    started = [step for step in STEPS if any(counts[step])]
    if not started:
        return Progress(0, "", stage="start")
    step = started[-1]
    progress = _progress_of(step, counts, _read_plan(output, step, values))
    if step == LAST_STEPS.get(job, STEPS[-1]) and progress.total and progress.done >= progress.total:
        return Progress(0, "", stage="finish")
    return progress._replace(detail="; ".join(filter(None, _details(step, counts[step].done, values))))


def _sum_here(output: str) -> array.array:
    return sum_of_files(counts_folder(output) or "")


def _step_counts(values: Sequence[float], step: Step) -> StepCounts:
    done, before, work, work_before = (values[PLACE[f"{step.name} {what}"]] for what in PER_STEP)
    return StepCounts(int(done), int(before), work, work_before)


def _read_plan(output: str, step: Step, values: Sequence[float]) -> dict[str, Any]:
    if (path := plan_path(output, step)) is None:
        return {"total": int(values[PLACE[f"{step.name} total"]])}
    return json.loads(files.read(path)) if files.exists(path) else {}


def _progress_of(step: Step, counts: Mapping[Step, StepCounts], plan: Mapping[str, int]) -> Progress:
    name, unit = step.value
    done, before, work, work_before = counts[step]
    planned = plan.get("total", 0)
    if step in STEPS_BY_WORK:
        if not planned:
            return Progress(done=done + before, unit=unit, stage=name, before=before)
        share = min(1.0, (work + work_before) / planned)
        return Progress(
            done=done + before,
            unit=unit,
            stage=name,
            before=before,
            share=share,
            share_before=max(0.0, share - work / planned),
        )
    total = _rows_before(step, counts) or planned
    # At first finished units are known from the plan alone; workers then find them, and rows to try again among them.
    reached = max(plan.get("finished", 0), done + before)
    reached = min(total, reached) if total else reached
    return Progress(done=reached, unit=unit, total=total or None, stage=name, before=max(0, reached - done))


def _rows_before(step: Step, counts: Mapping[Step, StepCounts]) -> int:
    """The rows of the step before, where these are the step's own; else 0."""
    source = {Step.FILES: Step.SELECT, Step.ENCODE_PREPARED: Step.FETCH, Step.SHARDS: Step.GROUP}.get(step)
    return counts[source].done + counts[source].before if source else 0


def _details(step: Step, images: int, values: Sequence[float]) -> Iterator[str]:
    if step is Step.SELECT:
        yield ", ".join(_most_common(values, "select "))
    if step in (Step.FETCH, Step.FETCH_AND_ENCODE):
        yield _outcomes(values)
    if step in (Step.ENCODE, Step.ENCODE_PREPARED, Step.FETCH_AND_ENCODE):
        yield _times(images, values)


def _outcomes(values: Sequence[float]) -> str:
    """The share of pairs that were fetched, the most frequent failures and the bytes."""
    fetched = int(values[PLACE[FETCHED]])
    if not (total := fetched + int(sum(values[PLACE[reason.value]] for reason in Reason))):
        return ""
    size = values[PLACE[BYTES]]
    return ", ".join([f"{fetched / total:.1%} fetched", *_most_common(values), *([_gigabytes(size)] if size else [])])


def _most_common(values: Sequence[float], prefix: str = "") -> list[str]:
    """The three most frequent reasons of rejects, with their numbers. `prefix` is that of their names in SLOTS."""
    rejected = Counter({reason.value: int(values[PLACE[prefix + reason.value]]) for reason in Reason})
    return [f"{reason} {number:,}" for reason, number in rejected.most_common(3) if number]


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _spent(values: Sequence[float]) -> str:
    """Bytes, and seconds of each kind of work; "" if nothing was downloaded or encoded."""
    spent = {
        "in requests": values[PLACE[DOWNLOAD_S]],
        "decoding": values[PLACE[DECODE_S]],
        "in the image tokenizer": values[PLACE[TIMES[1]]],
    }
    size = values[PLACE[BYTES]]
    parts = [f"{_gigabytes(size)} downloaded"] if size else []
    parts += [f"{seconds:,.1f} s {what}" for what, seconds in spent.items() if seconds]
    return f"this run, all workers together: {', '.join(parts)}" if parts else ""


def _blurred(values: Sequence[float]) -> str:
    """The number of images in which faces were blurred; "" if there were none."""
    number = int(values[PLACE[BLURRED]])
    return f"this run, images with blurred faces: {number:,}" if number else ""


def _left_out(values: Sequence[float]) -> str:
    """What the limit of near-duplicates left out; "" if nothing."""
    number = int(values[PLACE[LEFT_OUT]])
    return f"of crowded groups of near-duplicates {number:,} entries were left uncompared" if number else ""


def _times(images: int, values: Sequence[float]) -> str:
    """Images/s of one worker, and the shares of time for reading, the model and writing."""
    spent = {name: values[PLACE[name]] for name in TIMES}
    if not (total_s := sum(spent.values())):
        return ""
    shares = ", ".join(f"{name.removesuffix('_s')} {seconds / total_s:.0%}" for name, seconds in spent.items())
    return f"{images / total_s:.1f} images/s a worker: {shares}"
