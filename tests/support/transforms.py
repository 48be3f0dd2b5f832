"""Transforms applied at once to lists: their outputs as lists, without a job or files."""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import DoOutputsTuple
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

_KEPT: dict[str, dict[str, list]] = {}
"""What pipelines of this process have collected: run -> output -> elements. Workers import this module by its name."""


def apply(transform: beam.PTransform, *inputs: list) -> dict[str, list]:
    """The elements of each output of a transform, by its field, or tag, or `""` for the only one of another.

    Several inputs come to the transform as a tuple of PCollections, none as the pipeline. Elements have no order.
    """
    run = uuid.uuid4().hex
    _KEPT[run] = defaultdict(list)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:  # in this process, in one thread
        rows = tuple(pipeline | f"Input {i}" >> beam.Create(elements) for i, elements in enumerate(inputs))
        start = rows if len(rows) > 1 else rows[0] if rows else pipeline
        outputs = _by_name(start | "Transform" >> transform)
        for name, output in outputs.items():
            for number, part in enumerate(output if isinstance(output, tuple) else (output,)):
                _ = part | f"Keep {name} {number}" >> beam.Map(_keep, run, name)
    return {name: _KEPT[run][name] for name in outputs}


def _by_name(outputs: Any) -> dict[str, beam.PCollection | tuple[beam.PCollection, ...]]:
    if isinstance(outputs, beam.PCollection):
        return {"": outputs}
    if isinstance(outputs, DoOutputsTuple):
        return {tag or "": outputs[tag] for tag in (outputs._main_tag, *outputs._tags)}
    return outputs._asdict()


def _keep(element: Any, run: str, name: str) -> None:
    _KEPT[run][name].append(element)
