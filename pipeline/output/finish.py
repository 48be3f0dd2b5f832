"""The last step of each job: one call checks the counts of all that was written and marks the output finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import apache_beam as beam

from pipeline.output import files as output_files
from pipeline.output import run_record
from pipeline.output.names import SETTINGS_FILE


class Finish(beam.PTransform):
    """Calls function(list, list, ...) once, with all elements of the given PCollections, when they are complete.

    The function may be called again by a runner that repeats a bundle: it must end the same way.
    """

    def __init__(self, function: Callable[..., None], *collections: beam.PCollection):
        self._function, self._collections = function, collections

    def expand(self, start):
        return (
            start
            | "Once" >> beam.Create([partial(call_owner, run_record.own_runs(), self._function)])
            | "Call" >> beam.Map(call, *map(beam.pvalue.AsList, self._collections))
        )


def call_owner(owners: list[tuple[str, str]], function: Callable[..., None], *lists: list) -> None:
    """Calls the function only while the outputs belong to the runs that built the pipeline: a job whose launcher died
    may come here when another run has begun."""
    run_record.check_owners(owners)
    function(*lists)


def call(function: Callable[..., None], *lists: list) -> None:
    function(*lists)


def remove_stale_files(output: str, folders: tuple[str, ...], kept_files: set[str]) -> None:
    """Deletes the files of these folders that are not among `kept_files`: an interrupted run left them."""
    for folder in folders:
        base = output_files.join(output, *folder.split("/"))
        output_files.delete(
            base, [name for name in output_files.list_files(base) if f"{folder}/{name}" not in kept_files]
        )


def write_settings(output: str, settings: dict[str, Any]) -> None:
    output_files.write_atomically(output_files.join(output, SETTINGS_FILE), output_files.to_json(settings))


def read_settings(folder: str) -> dict[str, Any]:
    """The settings of a selection or of a set of images; {} if another tool wrote it."""
    path = output_files.join(folder, SETTINGS_FILE)
    return json.loads(output_files.read(path)) if output_files.exists(path) else {}
