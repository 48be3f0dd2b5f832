"""The folder in which the processes of one machine share what they know of hosts, and warnings that only one prints."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import shutil
import stat
import sys
import tempfile
import time
import zlib

from models.errors import UserError, printable


def open_shared(path: str, flags: int = 0) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)


@functools.cache
def own_folder(path: str) -> str:
    """Makes a folder that only this user may use. Workers of another user than the launcher, or without its temporary
    folder, have one of the same name in their own. Raises UserError if it is somebody else's, who could hold its locks
    or lead its files elsewhere."""
    if _is_of_others(path):
        path = os.path.join(tempfile.gettempdir(), f"{os.path.basename(path)}-{os.geteuid()}")
        os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UserError(f"{path} is not a folder of this user alone; remove it, or set TMPDIR to a place of your own")
    return path


def _is_of_others(path: str) -> bool:
    """Whether a folder is another user's, or can't be made here."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError:
        return True
    return os.lstat(path).st_uid != os.geteuid()


@functools.cache
def shared_folder() -> str:
    """A folder for this run, in which its processes on one machine share the limits of hosts. Removes those of runs
    that were killed."""
    remove_leftovers(tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
    lock = open_shared(os.path.join(folder, LAUNCHER_LOCK))
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends, however it does
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


FOLDER_PREFIX, LAUNCHER_LOCK = "pairmill-hosts-", "launcher"
LEFT_AFTER_S = 86_400.0


def remove_leftovers(parent: str) -> None:
    """Removes this user's folders of runs that were killed, once nothing in them has changed for a day."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(FOLDER_PREFIX) and entry.is_dir(follow_symlinks=False) and _is_left(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_left(folder: str) -> bool:
    """Whether no launcher and no worker uses a folder."""
    try:
        if os.lstat(folder).st_uid != os.geteuid():
            return False
        with os.scandir(folder) as entries:
            times = [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
        if max([*times, os.lstat(folder).st_mtime]) > time.time() - LEFT_AFTER_S:
            return False
        lock = open_shared(os.path.join(folder, LAUNCHER_LOCK))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(lock)
    except OSError:  # in use, or removed meanwhile
        return False


def warn_once(message: str, folder: str) -> None:
    """Prints a warning to standard error, from one of the processes that share a folder."""
    if folder:
        mark = os.path.join(own_folder(folder), f"warned-{zlib.crc32(message.encode()):08x}")
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    print(f"warning: {printable(message)}", file=sys.stderr, flush=True)
