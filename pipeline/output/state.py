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
from pipeline.output.names import LOCK_FILE, MANIFEST_FILE, SETTINGS_FILE, SPILL_FOLDER, WORK_FOLDER

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
    check_inputs(output, job, inputs)
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
            check_finished(output, job, settings)
            raise UserError(f"--output {output}: holds a finished {job} already; {_fixes(job)}")
        if files:
            raise UserError(f"--output {output}: is not empty; choose another folder, or --overwrite")
    lock_output(output)
    if overwrite:
        output_files.delete(output, files)
    elif output_files.exists(marker):
        check_started(output, job, settings)
        print(f"{job}: resuming {output}", flush=True)
        # An output with its completion file as well was interrupted during the clean-up.
        stale = [name for name in files if name.endswith(output_files.TEMPORARY_SUFFIX) or name == completion_file]
        if output_files.is_local(output):  # the lock says that nobody reads them; a resumed job spills its rows anew
            stale += [name for name in files if name.startswith(f"{WORK_FOLDER}/{SPILL_FOLDER}/") and name not in stale]
        output_files.delete(output, stale)
    output_files.write_atomically(marker, started_settings(job, settings))


def check_inputs(output: str, job: str, inputs: Iterable[str]) -> None:
    """Raises UserError for an output among the folders that the job reads."""
    for read in inputs:
        if _location(read) == _location(output):
            raise UserError(f"--output {output}: is read by this {job}, too; choose another folder")


def started_settings(job: str, settings: dict[str, Any]) -> bytes:
    """What an unfinished output records of the job that was started there."""
    return to_json({"job": job, "settings": settings})


def check_started(output: str, job: str, settings: dict[str, Any]) -> None:
    """Raises UserError for an unfinished output of another job or of other settings."""
    marker = output_files.join(output, WORK_FOLDER, SETTINGS_FILE)
    expected = json.loads(started_settings(job, settings))
    if output_files.exists(marker) and (recorded := json.loads(output_files.read(marker))) != expected:
        raise UserError(
            f"--output {output}: was started with other settings ({_changes(recorded, expected)}); give the same "
            "to resume, or --overwrite"
        )


def _location(folder: str) -> str:
    return os.path.realpath(folder) if output_files.is_local(folder) else folder.rstrip("/")


def lock_output(output: str) -> None:
    """Raises UserError if another process writes there. The kernel drops the lock with the process, however that
    ends."""
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


def unlock_output(output: str) -> None:
    """Gives up the lock of an output that holds no unfinished work, and removes its file."""
    output_files.delete(output, [name for name in output_files.list_files(output) if name == LOCK])
    if lock := _locks.pop(os.path.realpath(output), None):
        lock.close()


def is_finished(output: str, completion_file: str) -> bool:
    return output_files.exists(output_files.join(output, completion_file))


def check_finished(output: str, job: str, settings: dict[str, Any]) -> None:
    """Raises UserError for a finished output of another job, or of this one with other settings."""
    recorded, expected = _finished_settings(output), json.loads(json.dumps(settings))
    found = _job_of(output, recorded)
    wanted = job if job in ("select", "fetch") else DATASET
    if found and found != wanted:
        raise UserError(f"--output {output}: holds a finished {found}, not a {wanted}; choose another folder")
    if recorded != expected:
        raise UserError(
            f"--output {output}: holds a finished {job} with other settings ({_changes(recorded, expected)}); "
            f"{_fixes(job)}"
        )


def _fixes(job: str) -> str:
    """What to do about a finished output of a job."""
    more = "; to add to it, name it as --add-to and choose another --output" if job == "encode" else ""
    return f"choose another folder, or --overwrite to replace it{more}"


DATASET = "dataset"


def _job_of(output: str, recorded: dict[str, Any]) -> str:
    """`select`, `fetch` or `dataset`: what left a finished output; "" if its settings do not tell."""
    if is_finished(output, MANIFEST_FILE):
        return DATASET
    return next((job for job in ("fetch", "select") if job in recorded), "")


def _finished_settings(output: str) -> dict[str, Any]:
    """The settings that the job of a finished output was given; of a dataset with what its tokenizers and versions add
    to them, as in `pipeline.dataset.finish.identity`. Raises UserError for a manifest that is damaged.
    """
    if not is_finished(output, MANIFEST_FILE):
        return read_settings(output)
    try:
        manifest = json.loads(output_files.read(output_files.join(output, MANIFEST_FILE)))
        tokenizers = {name: manifest[name]["fingerprint"] for name in ("image_tokenizer", "text_tokenizer")}
        return manifest["settings"] | tokenizers | {"versions": manifest["versions"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--output {output}: its {MANIFEST_FILE} is damaged ({error}); --overwrite replaces it"
        ) from None


def reopen_output(output: str, job: str, settings: dict[str, Any], completion_file: str) -> None:
    """Makes a finished output of the same settings unfinished again, so that transient failures are tried again."""
    marker = output_files.join(output, WORK_FOLDER, SETTINGS_FILE)
    output_files.write_atomically(marker, to_json({"job": job, "settings": settings}))
    output_files.delete(output, [completion_file])


MAX_CHANGES, MAX_VALUE = 4, 60  # of a message: settings named, characters of a value


def _changes(recorded: dict[str, Any], expected: dict[str, Any]) -> str:
    """The settings that differ, with both values, as one line; those that only one side has come last."""
    found = sorted(_differences(recorded, expected), key=lambda change: ": none -> " in change)
    more = f", and {len(found) - MAX_CHANGES} more" if len(found) > MAX_CHANGES else ""
    return ", ".join(found[:MAX_CHANGES]) + more


def _differences(left: Any, right: Any, path: str = "") -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in sorted({*left, *right}):
            yield from _differences(left.get(name), right.get(name), f"{path}.{name}" if path else name)
    elif _are_rows(left) and _are_rows(right) and len(left) == len(right):
        for number, values in enumerate(zip(left, right, strict=True)):
            yield from _differences(*values, f"{path}[{number}]")
    elif left != right:
        yield f"{path}: {_shown(left)} -> {_shown(right)}"


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."


def finish_output(output: str) -> None:
    """Deletes the work folder, its settings last: the last step of a job."""
    marker = f"{WORK_FOLDER}/{SETTINGS_FILE}"
    work = [name for name in output_files.list_files(output) if name.startswith(WORK_FOLDER + "/")]
    output_files.delete(output, [name for name in work if name not in (marker, LOCK)])
    output_files.delete(output, [name for name in (LOCK, marker) if name in work])
    if lock := _locks.pop(os.path.realpath(output), None):
        lock.close()
