"""From what a sample took to what all of it will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.estimate.hosts import SlowestHost
from pipeline.estimate.quantity import SEED, Array, bootstrap, exactly
from pipeline.estimate.timeline import StepTime

MACHINES = (1, 4, 16)


class Units(NamedTuple):
    """Units of work, of which a worker takes one at a time."""

    sample: int
    all: Array
    waits: bool  # a worker waits for the slowest download of each before it begins the next


class MeasuredStep(NamedTuple):
    """A step of the job: what was measured, and of what there is how much."""

    name: str
    time: StepTime
    number: Array  # rows, pairs or images of the whole job
    units: Units | None = None  # of work; None: many, of which workers do the same share everywhere
    extra_s: float = 0.0  # seconds a row on one core, where it was measured apart; 0: as `time` says


class Start(NamedTuple):
    """What comes once, however long the input is."""

    seconds: float
    workers: int  # processes on this machine


def step_seconds(step: MeasuredStep, workers: int, machines: int, host: SlowestHost) -> Array:
    """Seconds of a step on some machines like this one."""
    time, everyone = step.time, workers * machines
    if step.extra_s:
        more = np.maximum(0, step.number - time.rows)
        return time.seconds / machines + more * step.extra_s / everyone
    busy, waits = exactly(machines), exactly(1)
    if step.units:
        sample, units, each_waits = step.units
        busy = np.minimum(everyone, units) / min(workers, sample)
        waits = np.ceil(units / everyone) / np.ceil(sample / workers) if each_waits else waits
    is_more = step.number > 1.001 * time.rows
    noise = 1 + (_rate_noise(time) - 1) * is_more
    seconds = step.number * time.seconds_per_row * noise / busy + time.tail_s * waits
    if not time.downloads:
        return np.maximum(0, seconds)
    return np.maximum(seconds, step.number * host.share * host.seconds_per_pair * is_more)


def _rate_noise(time: StepTime) -> Array:
    """The measured time a row, over what other windows of the same length would have shown: about 1."""
    rates = time.rates[time.rates > 0]
    if len(rates) < 2:
        return exactly(1)
    means = bootstrap(len(rates), 0.0, lambda weights: np.array([weights @ rates / len(rates)]), SEED)[:, 0]
    return means[0] / means


def download_bytes(time: StepTime | None, pairs: Array) -> Array:
    """Bytes that will be downloaded for `pairs` pairs."""
    if time is None:
        return exactly(0)
    rows, size = time.downloaded.T
    share = min(1.0, time.rows / max(1.0, pairs[0]))
    per_pair = bootstrap(
        len(rows), share, lambda weights: np.array([weights @ size / max(1, weights @ rows)]), SEED + 1
    )[:, 0]
    return per_pair * pairs


def storage_bytes(sizes: Mapping[str, int], kept: tuple[int, Array], rejected: tuple[int, Array]) -> Array:
    """Bytes of the finished output: its files grow with the kept rows, and those of rejects with the rejected ones."""
    ratios = {
        name: total / sample if sample else exactly(1)
        for name, (sample, total) in (("kept", kept), ("rejected", rejected))
    }
    return sizes["fixed"] + np.sum([sizes[name] * ratio for name, ratio in ratios.items()], axis=0)


def hours(steps: Sequence[MeasuredStep], start: Start, host: SlowestHost, machines: int) -> dict[str, Array]:
    """Step -> hours on some machines; "start" first."""
    return {"start": exactly(start.seconds / 3600)} | {
        step.name: step_seconds(step, start.workers, machines, host) / 3600 for step in steps
    }
