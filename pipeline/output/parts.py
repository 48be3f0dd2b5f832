"""Parts of a job: processes anywhere that share its units, each told which part is its own, as array jobs count.

A part does its units and leaves them in the output's work folder, with a mark. It holds a lock of its own beside the
others; the output's lock it only shares, so that no whole job writes there meanwhile. The process that ends last takes
that lock and gathers: it runs the job as without parts, which finds every unit done.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

from models.errors import UserError
from models.files import take_lock
from pipeline.output import files, state
from pipeline.output.names import LOCK_FILE, PARTS_FOLDER, SETTINGS_FILE, WORK_FOLDER

_MARK = re.compile(r"(\d+)-of-(\d+)\.json")
_held: dict[str, list[IO[bytes]]] = {}  # output -> the files by whose locks this process works on its part


class Part(NamedTuple):
    """Part `number`, from 1, of `total`."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def share(self, count: int) -> range:
        """The part's share of things that are numbered from 0; shares differ by one at most."""
        return range((self.number - 1) * count // self.total, self.number * count // self.total)


def prepare_part(
    output: str, job: str, settings: dict[str, Any], completion_file: str, part: Part, inputs: Iterable[str]
) -> bool:
    """Joins the processes that work on the parts of an output. Returns False if the output is finished already by the
    same settings. Raises UserError as `state.prepare_output`, for another number of parts than others were started
    with, and if another process does the same part."""
    state.check_inputs(output, job, inputs)
    names = [name for name in files.list_files(output) if not name.startswith(WORK_FOLDER + "/")]
    marker = files.join(output, WORK_FOLDER, SETTINGS_FILE)
    if not files.exists(marker):
        if completion_file in names:
            state.check_finished(output, job, settings)
            return False
        if names:
            raise UserError(f"--output {output}: is not empty; choose another folder")
    state.check_started(output, job, settings)
    _check_total(output, part)
    _lock(output, part)
    files.write_atomically(marker, state.started_settings(job, settings))
    _write_mark(output, part, done=False)
    return True


def _lock(output: str, part: Part) -> None:
    """Raises UserError if a whole job writes to a local output, or another process does this part."""
    if not files.is_local(output):
        return
    folder = files.join(output, WORK_FOLDER)
    files.make_folder(files.join(folder, PARTS_FOLDER))
    own = files.join(folder, PARTS_FOLDER, f"{part.number}-of-{part.total}.lock")
    held = _held[os.path.realpath(output)] = []
    for path, is_shared, what in (
        (files.join(folder, LOCK_FILE), True, "the whole output"),
        (own, False, "this part"),
    ):
        if (lock := take_lock(path, is_shared)) is None:
            release(output)
            raise UserError(f"--part {part}: another pairmill writes {what} in {output}; wait for its end")
        held.append(lock)


def release(output: str) -> None:
    """Gives up the locks of this process's part."""
    for file in _held.pop(os.path.realpath(output), []):
        file.close()


def _check_total(output: str, part: Part) -> None:
    for name in files.list_files(files.join(output, WORK_FOLDER, PARTS_FOLDER)):
        if (found := _MARK.fullmatch(name)) and int(found[2]) != part.total:
            raise UserError(
                f"--part {part}: {output} was started in {found[2]} parts; give I/{found[2]}, or leave --part out to "
                "do all that is missing"
            )


def _mark_path(output: str, part: Part) -> str:
    return files.join(output, WORK_FOLDER, PARTS_FOLDER, f"{part.number}-of-{part.total}.json")


def _write_mark(output: str, part: Part, done: bool) -> None:
    files.write_atomically(_mark_path(output, part), files.to_json({"done": done}))


def mark_done(output: str, part: Part) -> None:
    _write_mark(output, part, done=True)


def claim_gathering(output: str, total: int) -> bool:
    """Whether all parts are done and this process is the one that gathers them; it then holds the output's lock. Prints
    who else has it."""
    if not _all_done(output, total):
        return False
    release(output)
    try:
        state.lock_output(output)
    except UserError as in_use:
        print(f"all parts are done; {in_use}", flush=True)
        return False
    if _all_done(output, total):
        return True
    state.unlock_output(output)  # another process has gathered in between
    return False


def _all_done(output: str, total: int) -> bool:
    paths = [_mark_path(output, Part(number, total)) for number in range(1, total + 1)]
    return all(files.exists(path) and json.loads(files.read(path))["done"] for path in paths)
