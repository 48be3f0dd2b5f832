"""The state of an output: new, unfinished, finished, locked by another process, or not written by pairmill."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from models.errors import UserError
from models.files import missing_folders, remove_empty_folders, take_lock
from pipeline.output import files as output_files
from pipeline.output.files import to_json
from pipeline.output.finish import read_settings
from pipeline.output.lease import Lease
from pipeline.output.names import (
    LEASE_FILE,
    LEDGER_FILE,
    LOCK_FILE,
    MANIFEST_FILE,
    SETTINGS_FILE,
    SPILL_FOLDER,
    WORK_FOLDER,
)
from pipeline.output.run_record import begin_run, check_owners, end_run, join_run, own_runs, path_of, read_run

KNOWN_FILES = re.compile(
    r"(manifest|ledger|settings|attempts|scores|text_tokenizer|croissant)\.json|README\.md"
    r"|(train|val|index|rejects|pairs|scores|embeddings|_work)/.*|\d{5,}(\.tar|\.parquet|_stats\.json)|(.*/)?\.[^/]*\.tmp"
)

LOCK, LEASE, MARKER = (f"{WORK_FOLDER}/{name}" for name in (LOCK_FILE, LEASE_FILE, SETTINGS_FILE))
_locks: dict[str, IO[bytes]] = {}  # local output -> the file by whose lock this process holds it
_leases: dict[str, Lease] = {}  # remote output -> by which this process holds it
_made: dict[str, list[Path]] = {}  # local output -> the folders that this process made for it, the deepest first
_new: set[str] = set()  # outputs that this process has started


class Found(enum.Enum):
    """What a job has to do for its output."""

    READY = "run"
    RUNNING = "follow the job that an earlier launcher began, and that its engine still runs"
    FINISHED = "clean up: its launcher died before"


def prepare_output(
    output: str,
    job: str,
    settings: dict[str, Any],
    completion_file: str,
    overwrite: bool,
    inputs: Iterable[str] = (),
    is_running: Callable[[dict[str, str]], bool] | None = None,
) -> Found:
    """Leaves the output ready for this job: new, or unfinished by the same settings; it is this process's own until it
    ends. Or tells that the job runs or is finished, though its launcher died. `is_running` asks the engine for a job
    that was recorded; None is for a job that ends with its launcher.

    Raises UserError for one that is finished, made by other settings, in work, not ours at all, or among the folders
    that the job reads, or where no file can be looked for.
    """
    check_inputs(output, job, inputs)
    files = _known_files(output)
    if not overwrite and not is_started(output):
        _check_unstarted(output, job, settings, completion_file, files)
    lock_output(output)
    try:
        return _prepare_locked(output, job, settings, completion_file, overwrite, files, is_running)
    except UserError:
        if output_files.is_local(output) and not is_started(output):
            _withdraw(output)
        raise


def _prepare_locked(
    output: str,
    job: str,
    settings: dict[str, Any],
    completion_file: str,
    overwrite: bool,
    files: list[str],
    is_running: Callable[[dict[str, str]], bool] | None,
) -> Found:
    """Leaves an output that this process holds ready for this job, as `prepare_output`; `files` are those there."""
    # What is there is looked up again: another launcher may have ended in the meantime.
    if started := is_started(output) and not overwrite:
        check_started(output, job, settings)
        if is_finished(output, completion_file):
            return Found.FINISHED
    elif not overwrite and is_finished(output, completion_file):
        _check_unstarted(output, job, settings, completion_file, [completion_file])
    if _is_running(output, is_running):
        if overwrite:
            raise UserError(f"--output {output}: its job still runs; cancel it first")
        return Found.RUNNING
    if started:
        print(f"{job}: resuming {output}", flush=True)
        _new.discard(_location(output))
    else:
        _new.add(_location(output))
    _clear(output, files if overwrite else [name for name in files if _is_stale(name)])
    output_files.write_atomically(output_files.join(output, MARKER), started_settings(job, settings))
    if is_running or not output_files.is_local(output):
        begin_run(output)
    return Found.READY


def _clear(output: str, names: list[str]) -> None:
    """Deletes files; first what says that an output is finished, so that a run that is killed here leaves nothing that
    looks finished."""
    completion = [name for name in names if name in (MANIFEST_FILE, LEDGER_FILE)]
    if completion:
        output_files.delete(output, completion)
    output_files.delete(output, names)


def _known_files(output: str) -> list[str]:
    """The files of an output, without those by which a launcher holds it. Raises UserError if one is not ours."""
    files = [name for name in output_files.list_files(output) if name != LOCK and not name.startswith(LEASE)]
    if unknown := [name for name in files if not KNOWN_FILES.fullmatch(name)]:
        raise UserError(f"--output {output}: holds {unknown[0]}, which pairmill did not write; choose an empty folder")
    return files


def is_started(output: str) -> bool:
    """Whether an output is unfinished, or its clean-up is."""
    try:
        return output_files.exists(output_files.join(output, MARKER))
    except UserError as error:  # a package, credentials or the network are missing
        raise UserError(f"--output: {error}") from None


def _check_unstarted(output: str, job: str, settings: dict[str, Any], completion_file: str, files: list[str]) -> None:
    """Raises UserError for an output that is not unfinished, unless it is empty."""
    if completion_file in files:
        check_finished(output, job, settings)
        raise UserError(f"--output {output}: holds a finished {job} already; {_fixes(job)}")
    if files:
        raise UserError(f"--output {output}: is not empty; choose another folder, or --overwrite")


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
    marker = output_files.join(output, MARKER)
    expected = json.loads(started_settings(job, settings))
    if output_files.exists(marker) and (recorded := json.loads(output_files.read(marker))) != expected:
        raise UserError(
            f"--output {output}: was started with other settings ({_changes(recorded, expected)}); give the same "
            "to resume, or --overwrite"
        )


def _is_running(output: str, is_running: Callable[[dict[str, str]], bool] | None) -> bool:
    """Whether an earlier run of the output goes on. Follows it then."""
    if not (run := read_run(output)) or not run.engine:
        return False
    if is_running is None:
        raise UserError(
            f"--output {output}: an earlier run gave it to another engine ({', '.join(run.engine.values())}); give its "
            f"--runner; or, if that job is over, delete {path_of(output)}"
        )
    if not is_running(run.engine):
        return False
    join_run(output, run)
    return True


def _is_stale(name: str) -> bool:
    """Whether a killed run left a file that a resumed one does not read: it spills its rows anew."""
    return name.endswith(output_files.TEMPORARY_SUFFIX) or name.startswith(f"{WORK_FOLDER}/{SPILL_FOLDER}/")


def _location(folder: str) -> str:
    return os.path.realpath(folder) if output_files.is_local(folder) else folder.rstrip("/")


def lock_output(output: str) -> None:
    """Raises UserError if another process writes there. The kernel drops the lock with the process, however it ends; a
    lease ends some time after its process."""
    if (name := _location(output)) in _locks or name in _leases:
        return
    if not output_files.is_local(output):
        (lease := Lease(output)).take()
        _leases[name] = lease
        return
    work_folder = output_files.join(output, WORK_FOLDER)
    _made.setdefault(name, missing_folders(work_folder))
    try:
        output_files.make_folder(output)  # alone first: an error names it
        output_files.make_folder(work_folder)
        lock = take_lock(output_files.join(output, *LOCK.split("/")))
    except UserError as error:
        remove_empty_folders(_made.pop(name))
        raise UserError(f"--output: {error}") from None
    except (KeyboardInterrupt, OSError):
        remove_empty_folders(_made.pop(name))
        raise
    if lock is None:
        _made.pop(name)
        raise UserError(
            f"--output {output}: another pairmill is writing there; wait for its end, or choose another folder"
        )
    _locks[name] = lock


def watch_lease(output: str, on_loss: Callable[[str], object]) -> None:
    """Calls a function with a line that says so if another launcher takes over this process's remote output."""
    if lease := _leases.get(_location(output)):
        lease.watch(on_loss)


def release_output(output: str) -> None:
    """Lets other launchers have an output that is not finished."""
    _new.discard(_location(output))
    _made.pop(_location(output), None)
    if lock := _locks.pop(_location(output), None):
        lock.close()
    if lease := _leases.pop(_location(output), None):
        lease.release()


def unlock_output(output: str) -> None:
    """Gives up an output that holds no unfinished work, with the file of its lock."""
    output_files.delete(output, [name for name in output_files.list_files(output) if name == LOCK])
    release_output(output)


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
    """Makes a finished output of the same settings unfinished again, so that transient failures are tried again. A run
    that is killed between the two steps leaves a finished output whose clean-up is missing."""
    lock_output(output)
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
    """Deletes the work folder, its settings last: the last step of a job. Raises UserError if the output belongs to
    another run now."""
    check_owners([(name, run_id) for name, run_id in own_runs() if name == output])
    last = [SETTINGS_FILE, LOCK_FILE, LEASE_FILE]
    work = output_files.join(output, WORK_FOLDER)
    output_files.delete(work, [name for name in output_files.list_files(work) if name not in last])
    output_files.delete(output, [MARKER, LOCK])
    end_run(output)
    release_output(output)


@contextlib.contextmanager
def withdraws_on_error(output: str) -> Iterator[None]:
    """While the block runs, a UserError takes back what this process has begun in a new output: the corrected command
    may have other settings, and must not fail because they differ."""
    try:
        yield
    except UserError:
        if _location(output) in _new:
            _withdraw(output)
        raise


def _withdraw(output: str) -> None:
    """Removes what this process has begun in a new output, and the folders that it made for it."""
    made = _made.pop(_location(output), [])
    finish_output(output)
    remove_empty_folders(made)
