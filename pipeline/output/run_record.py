"""Which run an unfinished output belongs to, and the engine's job of that run: `_work/run.json`.

Written for an output that no lock of this machine protects: a remote one, or one that a remote engine writes. A job may
outlive its launcher there, and another run may have begun when it ends.
"""

from __future__ import annotations

import json
import uuid
from typing import NamedTuple

from models.errors import UserError
from pipeline.output import files
from pipeline.output.names import RUN_FILE, WORK_FOLDER


class Run(NamedTuple):
    id: str
    engine: dict[str, str]  # what identifies its job to the engine; empty before it is submitted, and for local ones


_own: dict[str, str] = {}  # output -> id of the run of this process


def read_run(output: str) -> Run | None:
    path = path_of(output)
    return Run(**json.loads(files.read(path))) if files.exists(path) else None


def begin_run(output: str) -> None:
    """Makes the output this process's, by a new run."""
    _own[output] = uuid.uuid4().hex
    record_engine(output, {})


def join_run(output: str, run: Run) -> None:
    """Makes this process follow a run that another launcher began."""
    _own[output] = run.id


def record_engine(output: str, engine: dict[str, str]) -> None:
    """Records the engine's job of this process's run."""
    files.write_atomically(path_of(output), files.to_json(Run(_own[output], engine)._asdict()))


def recorded_engine(output: str) -> dict[str, str]:
    """The engine's job of an output; {} if there is none."""
    run = read_run(output)
    return run.engine if run else {}


def end_run(output: str) -> None:
    _own.pop(output, None)


def own_runs() -> list[tuple[str, str]]:
    """Outputs of this process, with the ids of their runs."""
    return list(_own.items())


def check_owners(owners: list[tuple[str, str]]) -> None:
    """Raises UserError if an output does not belong to its run any more."""
    for output, run_id in owners:
        if not (found := read_run(output)) or found.id != run_id:
            raise UserError(f"{output}: another run has taken over since; this one ends without changing it")


def path_of(output: str) -> str:
    return files.join(output, WORK_FOLDER, RUN_FILE)
