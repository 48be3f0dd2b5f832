"""Prints the progress of a job every few seconds, from the files that workers write to the output."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter

from pipeline.output import files
from pipeline.output.names import FETCHED_FOLDER, PLAN_FILE, TIMES_FOLDER, UNIT_STATS_SUFFIX, UNITS_FOLDER, WORK_FOLDER

REPORT_INTERVAL_S = 5.0


class ProgressReporter:
    """Context manager. Prints units done, pairs/s and time left of a local output while the pipeline runs.

    The plan (`_work/plan.json`) appears once the pairs are selected; before that the time passed is shown.
    """

    def __init__(self, output: str, job: str):
        self._output, self._job = output, job
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> ProgressReporter:
        if files.is_local(self._output):
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        started, first, max_done = time.monotonic(), None, 0
        while not self._stop.wait(REPORT_INTERVAL_S):
            now = time.monotonic()
            plan = _plan(self._output)
            if plan is None:
                line = f"selecting, {now - started:.0f} s"
            else:
                done = _units_done(self._output)
                first, max_done = first or (now, done), max(max_done, done)
                # The last step clears the finished units away.
                line = "finishing" if max_done == plan["units"] else _line(plan, done, now - first[0], done - first[1])
            line += _where_time_goes(self._output) + _downloads(self._output)
            print(f"{self._job}: {line}", file=sys.stderr, flush=True)


def _line(plan: dict, done: int, seconds: float, done_since: int) -> str:
    if "pairs" not in plan:  # the units are image shards, which nobody has counted
        line = f"{done}/{plan['units']} image shards"
        return line + (f", {(plan['units'] - done) * seconds / done_since:.0f} s left" if done_since else "")
    pairs_per_unit = plan["pairs"] / plan["units"]
    line = f"{done}/{plan['units']} units, about {done * pairs_per_unit:,.0f} of {plan['pairs']:,} pairs"
    if done_since and seconds:
        rate = done_since / seconds
        line += f", {rate * pairs_per_unit:.1f} pairs/s, {(plan['units'] - done) / rate:.0f} s left"
    return line


def _downloads(output: str) -> str:
    """Text on fetched units: share of successes, most frequent failures, MB/s per worker, slowest hosts."""
    folder = files.join(output, WORK_FOLDER, FETCHED_FOLDER)
    units = [
        json.loads(files.read(files.join(folder, name)))
        for name in files.list_files(folder)
        if not name.endswith(files.TEMPORARY_SUFFIX)
    ]
    outcomes: Counter[str] = Counter()
    host_s: Counter[str] = Counter()
    for unit in units:
        outcomes.update(unit["outcomes"])
        host_s.update(unit["host_s"])
    if not outcomes:
        return ""
    total = outcomes.total()
    share = outcomes.pop("success", 0) / total
    parts = [f"{share:.1%} fetched", *(f"{reason} {number:,}" for reason, number in outcomes.most_common(3))]
    seconds = sum(unit["seconds"] for unit in units)
    if seconds:
        parts.append(f"{sum(unit['bytes'] for unit in units) / seconds / 1e6:.1f} MB/s a worker")
    if host_s:
        parts.append("most time for " + ", ".join(f"{host} {spent:.0f} s" for host, spent in host_s.most_common(3)))
    return f" ({'; '.join(parts)})"


def _where_time_goes(output: str) -> str:
    """Text on encoded units: images/s per worker, and the shares of time for reading, the model and writing."""
    folder = files.join(output, WORK_FOLDER, TIMES_FOLDER)
    units = [
        json.loads(files.read(files.join(folder, name)))
        for name in files.list_files(folder)
        if not name.endswith(files.TEMPORARY_SUFFIX)
    ]
    spent = {name: sum(unit[name] for unit in units) for name in ("pictures_s", "model_s", "write_s")}
    total_s = sum(spent.values())
    if not total_s:
        return ""
    shares = ", ".join(f"{name.removesuffix('_s')} {seconds / total_s:.0%}" for name, seconds in spent.items())
    return f" ({sum(unit['pictures'] for unit in units) / total_s:.1f} images/s a worker: {shares})"


def _plan(output: str) -> dict | None:
    path = files.join(output, WORK_FOLDER, PLAN_FILE)
    return json.loads(files.read(path)) if files.exists(path) else None


def _units_done(output: str) -> int:
    names = files.list_files(output)
    return sum(
        name.startswith(f"{WORK_FOLDER}/{UNITS_FOLDER}/") or name.endswith(UNIT_STATS_SUFFIX)
        for name in names
        if not name.endswith(files.TEMPORARY_SUFFIX)
    )
