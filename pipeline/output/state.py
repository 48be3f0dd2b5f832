"""The state of an output: new, unfinished, finished, in work, or not ours."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from models.errors import UserError
from pipeline.output import files as output_files
from pipeline.output.files import to_json
from pipeline.output.finish import read_settings
from pipeline.output.work_folder import WORK_FOLDER

KNOWN_FILES = re.compile(
    r"(manifest|ledger|settings|attempts|text_tokenizer|croissant)\.json|README\.md"
    r"|(train|val|index|rejects|pairs|_work)/.*|\d{5,}(\.tar|\.parquet|_stats\.json)|(.*/)?\.[^/]*\.tmp"
)

LOCK = f"{WORK_FOLDER}/lock"
_locks: dict[str, IO[bytes]] = {}  # output -> the file by whose lock this process holds it


def prepare_output(
    output: str, job: str, settings: dict[str, Any], finished_by: str, overwrite: bool, inputs: Iterable[str] = ()
) -> None:
    """Leaves the output ready for this job: new, or unfinished by the same settings; a local one is this process's own
    until it ends. Raises UserError for one that is finished, made by other settings, in work, not ours at all, or among
    the folders that the job reads, or where no file can be looked for.
    """
    for read in inputs:
        if _place(read) == _place(output):
            raise UserError(f"--output {output}: is read by this {job}, too; choose another folder")
    mine = {"job": job, "settings": json.loads(json.dumps(settings))}
    marker = output_files.join(output, WORK_FOLDER, "settings.json")
    files = [name for name in output_files.list_files(output) if name != LOCK]
    foreign = [name for name in files if not KNOWN_FILES.fullmatch(name)]
    if foreign:
        raise UserError(f"--output {output}: holds {foreign[0]}, which pairmill did not write; choose an empty folder")
    try:
        begun = output_files.exists(marker)
    except UserError as error:  # a package, credentials or the network are missing
        raise UserError(f"--output {output}: {error}") from None
    if not overwrite and not begun:
        if finished_by in files:
            more = "; to add to it, name it as --add-to and choose another --output" if job == "encode" else ""
            raise UserError(f"--output {output}: holds a finished {job} already; --overwrite replaces it{more}")
        if files:
            raise UserError(f"--output {output}: is not empty; choose another folder, or --overwrite")
    _lock_output(output)
    if overwrite:
        output_files.delete(output, files)
    elif output_files.exists(marker):
        if (made := json.loads(output_files.read(marker))) != mine:
            changes = ", ".join(_differences(made, mine))
            raise UserError(
                f"--output {output}: was begun with other settings ({changes}); give the same to resume, or --overwrite"
            )
        print(f"{job}: resuming {output}", flush=True)
        # One that is finished, too, was interrupted while it cleaned up.
        output_files.delete(
            output, [name for name in files if name.endswith(output_files.TEMPORARY_SUFFIX) or name == finished_by]
        )
    output_files.write_atomically(marker, to_json(mine))


def _place(folder: str) -> str:
    return os.path.realpath(folder) if output_files.is_local(folder) else folder.rstrip("/")


def _lock_output(output: str) -> None:
    """Raises UserError if another process writes there. The kernel drops the lock with the process, however it ends."""
    if not output_files.is_local(output) or (name := os.path.realpath(output)) in _locks:
        return
    try:
        output_files.make_folder(output_files.join(output, WORK_FOLDER))
    except UserError as error:
        raise UserError(f"--output: {error}") from None
    file = open(output_files.join(output, *LOCK.split("/")), "ab")  # noqa: SIM115 (kept open until the job's end)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(
            f"--output {output}: another pairmill is writing there; wait for its end, or choose another folder"
        ) from None
    _locks[name] = file


def is_finished(output: str, finished_by: str) -> bool:
    return output_files.exists(output_files.join(output, finished_by))


def reopen_output(output: str, job: str, settings: dict[str, Any], finished_by: str) -> None:
    """Makes a finished output an unfinished one of the same settings, so that what can be mended in it is done."""
    made = read_settings(output)
    if made != json.loads(json.dumps(settings)):
        changes = ", ".join(_differences(made, settings))
        raise UserError(f"--output {output}: was made with other settings ({changes}); --overwrite replaces it")
    marker = output_files.join(output, WORK_FOLDER, "settings.json")
    output_files.write_atomically(marker, to_json({"job": job, "settings": settings}))
    output_files.delete(output, [finished_by])


def _differences(made: dict, mine: dict, path: str = "") -> Iterator[str]:
    for name in sorted({*made, *mine}):
        one, other = made.get(name), mine.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{path}{name}.")
        elif one != other:
            yield f"{path}{name}: {one} -> {other}"


def finish_output(output: str) -> None:
    """Drops the marks of unfinished work, last of all the one that says so; the last act of a job."""
    marker = f"{WORK_FOLDER}/settings.json"
    work = [name for name in output_files.list_files(output) if name.startswith(WORK_FOLDER + "/")]
    output_files.delete(output, [name for name in work if name not in (marker, LOCK)])
    output_files.delete(output, [name for name in (LOCK, marker) if name in work])
    if lock := _locks.pop(os.path.realpath(output), None):
        lock.close()
