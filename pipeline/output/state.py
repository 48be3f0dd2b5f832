"""The state of an output: new, unfinished, finished, locked by another process, or not written by pairmill."""

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
from pipeline.output.names import LOCK_FILE, SETTINGS_FILE, WORK_FOLDER

KNOWN_FILES = re.compile(
    r"(manifest|ledger|settings|attempts|text_tokenizer|croissant)\.json|README\.md"
    r"|(train|val|index|rejects|pairs|_work)/.*|\d{5,}(\.tar|\.parquet|_stats\.json)|(.*/)?\.[^/]*\.tmp"
)

LOCK = f"{WORK_FOLDER}/{LOCK_FILE}"
_locks: dict[str, IO[bytes]] = {}  # output -> the file by whose lock this process holds it


def prepare_output(
    output: str, job: str, settings: dict[str, Any], completion_file: str, overwrite: bool, inputs: Iterable[str] = ()
) -> None:
    """Leaves the output ready for this job: new, or unfinished by the same settings; a local one is this process's own
    until it ends. Raises UserError for one that is finished, made by other settings, in work, not ours at all, or among
    the folders that the job reads, or where no file can be looked for.
    """
    for read in inputs:
        if _location(read) == _location(output):
            raise UserError(f"--output {output}: is read by this {job}, too; choose another folder")
    expected = {"job": job, "settings": json.loads(json.dumps(settings))}
    marker = output_files.join(output, WORK_FOLDER, SETTINGS_FILE)
    files = [name for name in output_files.list_files(output) if name != LOCK]
    unknown = [name for name in files if not KNOWN_FILES.fullmatch(name)]
    if unknown:
        raise UserError(f"--output {output}: holds {unknown[0]}, which pairmill did not write; choose an empty folder")
    try:
        started = output_files.exists(marker)
    except UserError as error:  # a package, credentials or the network are missing
        raise UserError(f"--output {output}: {error}") from None
    if not overwrite and not started:
        if completion_file in files:
            more = "; to add to it, name it as --add-to and choose another --output" if job == "encode" else ""
            raise UserError(f"--output {output}: holds a finished {job} already; --overwrite replaces it{more}")
        if files:
            raise UserError(f"--output {output}: is not empty; choose another folder, or --overwrite")
    _lock_output(output)
    if overwrite:
        output_files.delete(output, files)
    elif output_files.exists(marker):
        if (recorded := json.loads(output_files.read(marker))) != expected:
            changes = ", ".join(_differences(recorded, expected))
            raise UserError(
                f"--output {output}: was started with other settings ({changes}); give the same to resume, or "
                "--overwrite"
            )
        print(f"{job}: resuming {output}", flush=True)
        # An output with its completion file as well was interrupted during the clean-up.
        output_files.delete(
            output, [name for name in files if name.endswith(output_files.TEMPORARY_SUFFIX) or name == completion_file]
        )
    output_files.write_atomically(marker, to_json(expected))


def _location(folder: str) -> str:
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


def is_finished(output: str, completion_file: str) -> bool:
    return output_files.exists(output_files.join(output, completion_file))


def check_same_settings(output: str, settings: dict[str, Any]) -> None:
    """Raises UserError if a finished output was made with other settings."""
    recorded = read_settings(output)
    if recorded != json.loads(json.dumps(settings)):
        changes = ", ".join(_differences(recorded, settings))
        raise UserError(
            f"--output {output}: is finished, with other settings ({changes}); --overwrite replaces it, or choose "
            "another folder"
        )


def reopen_output(output: str, job: str, settings: dict[str, Any], completion_file: str) -> None:
    """Makes a finished output unfinished again, so that transient failures are tried again."""
    marker = output_files.join(output, WORK_FOLDER, SETTINGS_FILE)
    output_files.write_atomically(marker, to_json({"job": job, "settings": settings}))
    output_files.delete(output, [completion_file])


def _differences(recorded: dict, expected: dict, path: str = "") -> Iterator[str]:
    for name in sorted({*recorded, *expected}):
        left, right = recorded.get(name), expected.get(name)
        if isinstance(right, tuple):
            right = list(right)  # as JSON has it
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _differences(left, right, f"{path}{name}.")
        elif left != right:
            yield f"{path}{name}: {left} -> {right}"


def finish_output(output: str) -> None:
    """Deletes the work folder, its settings last: the last step of a job."""
    marker = f"{WORK_FOLDER}/{SETTINGS_FILE}"
    work = [name for name in output_files.list_files(output) if name.startswith(WORK_FOLDER + "/")]
    output_files.delete(output, [name for name in work if name not in (marker, LOCK)])
    output_files.delete(output, [name for name in (LOCK, marker) if name in work])
    if lock := _locks.pop(os.path.realpath(output), None):
        lock.close()
