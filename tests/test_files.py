"""One vocabulary for local paths and URLs. fsspec's `memory://` stands for every store that it can list."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys

import fsspec
import pytest

from models import files
from models.errors import UserError
from tests.support.paths import ROOT


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """A folder with two files, as a path and as a URL."""
    (tmp_path / "a").mkdir()
    for name, data in (("a/b.txt", b"text"), ("c", b"")):
        (tmp_path / name).write_bytes(data)
    if request.param == "local":
        yield str(tmp_path)
        return
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/", "/bucket/folder/", recursive=True)
    yield "memory://bucket/folder"
    memory.rm("/bucket", recursive=True)


def test_the_same_words_for_paths_and_urls(folder):
    path = files.join(folder, "a/b.txt")
    assert files.exists(path) and files.read(path) == b"text" and files.size_of(path) == 4
    assert files.sha256_of(path) == hashlib.sha256(b"text").hexdigest()
    assert files.list_files(folder) == files.list_files(f"{folder}/") == ["a/b.txt", "c"]


def test_what_is_missing(folder):
    path = files.join(folder, "none")
    assert not files.exists(path) and files.list_files(path) == []
    for function in (files.read, files.size_of):
        with pytest.raises(FileNotFoundError):
            function(path)
    with pytest.raises(FileNotFoundError):
        files.size_of(files.join(folder, "a"))


def test_a_web_server_has_no_lists():
    with pytest.raises(UserError, match=r"a web server does not list its files; copy the folder"):
        files.list_files("https://example.org/dataset")


def test_a_scheme_that_nothing_reads_is_one_line():
    for function in (files.exists, files.size_of, files.list_files):
        with pytest.raises(UserError, match="Protocol not known: nothing; name a local path"):
            function("nothing://a/b")


def test_a_store_that_refuses_is_one_line(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no credentials\nat all")

    for name in ("exists", "isfile", "find"):
        monkeypatch.setattr(type(fsspec.filesystem("memory")), name, refuse)
    for function in (files.exists, files.size_of, files.list_files):
        with pytest.raises(UserError, match=r"^can't look up memory://a/b: no credentials at all; check address"):
            function("memory://a/b")


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    script = (
        "import os, sys\nfrom models import files\nfiles.os.fsync = lambda _: os._exit(9)\n"
        "files.write_atomically(sys.argv[1], b'x' * 1000)"
    )
    path = tmp_path / "checkpoint"
    assert subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT).returncode == 9
    [left] = tmp_path.iterdir()
    files.write_atomically(path, b"whole")
    assert left.exists()  # so young that its process may not have locked it yet
    os.utime(left, (1, 1))
    with open(left, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        files.write_atomically(path, b"whole")
        assert left.exists()
    files.write_atomically(path, b"whole")
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


def test_a_lock_holds_until_it_is_closed(tmp_path):
    path = tmp_path / "lock"
    first = files.take_lock(path)
    assert first and files.take_lock(path) is None and files.take_lock(path, shared=True) is None
    first.close()
    shared = files.take_lock(path, shared=True)
    assert shared and files.take_lock(path) is None and files.take_lock(path, shared=True)


def test_a_lock_whose_file_was_deleted_keeps_nobody_out(tmp_path):
    held = files.take_lock(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    assert held and files.take_lock(tmp_path / "lock")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert files.take_lock(tmp_path / "lock")
