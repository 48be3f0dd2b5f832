"""An estimate as tables, and as JSON."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from models.text_table import table
from pipeline.estimate.quantity import Array, Range, exactly, range_of

BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Estimate(NamedTuple):
    """What a job will take."""

    job: str
    sample_rows: int
    sample_seconds: float
    rows: Array
    pairs: Array
    download_bytes: Array
    storage_bytes: Array
    hours: dict[int, dict[str, Array]]  # machines -> step -> hours; those of one machine first
    cores: int  # of this machine
    gpus: int  # of this machine, that the job uses
    gpu_steps: frozenset[str]
    slowest_host: str  # whose limits leave the least time; empty if there are no downloads
    host_hours: Array  # that they leave at the least


def as_json(estimate: Estimate) -> dict[str, Any]:
    """The estimate as a JSON object: every number with the ends of its 90 % range."""
    [first, *_] = estimate.hours.values()
    stages = [
        {
            "stage": name,
            "hours": _numbers(hours),
            "core_hours": _numbers(hours * estimate.cores),
            "gpu_hours": _numbers(hours * (estimate.gpus if name in estimate.gpu_steps else 0)),
        }
        for name, hours in first.items()
    ]
    return {
        "job": estimate.job,
        "sample": {"rows": estimate.sample_rows, "seconds": round(estimate.sample_seconds, 3)},
        "rows": _numbers(estimate.rows),
        "pairs": _numbers(estimate.pairs),
        "download_bytes": _numbers(estimate.download_bytes),
        "storage_bytes": _numbers(estimate.storage_bytes),
        "hours": {str(machines): _numbers(_total(steps)) for machines, steps in estimate.hours.items()},
        "core_hours": _numbers(_total(first) * estimate.cores),
        "gpu_hours": _numbers(_gpu_hours(estimate)),
        "stages": stages,
        "slowest_host": {"name": estimate.slowest_host, "hours": _numbers(estimate.host_hours)},
    }


def _total(steps: dict[str, Array]) -> Array:
    return np.sum(list(steps.values()), axis=0)


def _gpu_hours(estimate: Estimate) -> Array:
    [first, *_] = estimate.hours.values()
    busy = [hours for name, hours in first.items() if name in estimate.gpu_steps]
    return np.sum([exactly(0), *busy], axis=0) * estimate.gpus


def _numbers(quantity: Array) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in range_of(quantity)._asdict().items()}


def json_text(estimate: Estimate) -> str:
    return json.dumps(as_json(estimate), indent=1)


def as_tables(estimate: Estimate) -> str:
    [first, *_] = estimate.hours.values()
    lines = [
        ("rows", *_texts(estimate.rows, _whole)),
        ("pairs", *_texts(estimate.pairs, _whole)),
        ("to download", *_texts(estimate.download_bytes, _bytes)),
        ("storage", *_texts(estimate.storage_bytes, _bytes)),
        *((_hours_on(number), *_texts(_total(steps), _hours)) for number, steps in estimate.hours.items()),
        ("core-hours", *_texts(_total(first) * estimate.cores, _hours)),
        ("GPU-hours", *_texts(_gpu_hours(estimate), _hours)),
    ]
    steps = [(name, *_texts(hours, _hours), _hours(float(hours[0]) * estimate.cores)) for name, hours in first.items()]
    share = min(1.0, estimate.sample_rows / max(1.0, estimate.rows[0]))
    return "\n\n".join(
        [
            f"{estimate.job}: estimated from {estimate.sample_rows:,} rows ({share:.2%}) in "
            f"{estimate.sample_seconds:.0f} s; nothing was written to --output",
            table(["", "estimate", "90 % range"], lines),
            table(["step, on this machine", "hours", "90 % range", "core-hours"], steps),
            *_host_line(estimate),
        ]
    )


def _host_line(estimate: Estimate) -> list[str]:
    if not estimate.slowest_host:
        return []
    return [
        f"The limits of {estimate.slowest_host} leave {_hours(float(estimate.host_hours[0]))} hours at the least, "
        "however many machines there are."
    ]


def _hours_on(machines: int) -> str:
    return "hours on this machine" if machines == 1 else f"hours on {machines} machines"


def _texts(quantity: Array, text: Any) -> tuple[str, str]:
    numbers: Range = range_of(quantity)
    return text(numbers.value), f"{text(numbers.low)} to {text(numbers.high)}"


def _whole(number: float) -> str:
    return f"{number:,.0f}"


def _hours(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _bytes(number: float) -> str:
    for unit in BYTE_UNITS[:-1]:
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} {BYTE_UNITS[-1]}"
