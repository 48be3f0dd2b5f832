"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat

import msgpack
import pytest

from models.errors import UserError
from pipeline.output import files
from pipeline.output.work_folder import CompletedUnits


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / "folder" / "file"
    with files.atomic_writer(str(path)) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b", whole")
    assert path.read_bytes() == b"half, whole" and list(path.parent.iterdir()) == [path]


def test_a_file_that_fails_leaves_the_earlier_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    with pytest.raises(ZeroDivisionError), files.atomic_writer(str(path)) as file:
        file.write(b"half")
        _ = 1 / 0
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="can't write"):
        files.write_atomically(str(tmp_path / "file" / "below"), b"")


def test_files_are_listed_and_deleted(tmp_path):
    for name in ("b/c/2", "b/1", "a"):
        files.write_file(str(tmp_path), name, b"x")
    assert files.list_files(str(tmp_path)) == ["a", "b/1", "b/c/2"]
    files.delete(str(tmp_path), ["b/c/2", "a"])
    assert files.list_files(str(tmp_path)) == ["b/1"] and not (tmp_path / "b" / "c").exists()
    assert files.list_files(str(tmp_path / "none")) == []


def test_json_is_the_same_for_any_order():
    expected = '{\n "a": "é",\n "b": 1\n}\n'.encode()
    assert files.to_json({"b": 1, "a": "é"}) == files.to_json({"a": "é", "b": 1}) == expected


def test_a_file_system_that_is_not_installed():
    with pytest.raises(UserError, match="nosuch://bucket/file: there is no file system nosuch:"):
        files.exists("nosuch://bucket/file")


def test_a_file_system_that_lacks_an_option_says_so(monkeypatch):
    class Hadoop:
        @classmethod
        def scheme(cls):
            return "hdfs"

    def refuse(path):
        raise ValueError("hdfs_host is not set")

    monkeypatch.setattr(files.FileSystems, "get_filesystem", refuse)
    monkeypatch.setattr(files.FileSystem, "get_all_subclasses", lambda: [Hadoop])
    with pytest.raises(UserError, match=r"^hdfs://host/out: hdfs_host is not set$"):
        files.check_installed("hdfs://host/out")


def test_folders_that_were_empty_before_stay(tmp_path):
    for name in ("ours/deep", "theirs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ours/deep/file").touch()
    files.delete(str(tmp_path), ["ours/deep/file"])
    assert [path.name for path in tmp_path.rglob("*")] == ["theirs"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut leaves the name with nothing in it."""
    events = []
    fsync, rename = os.fsync, files.FileSystems.rename

    def synced(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        fsync(descriptor)

    def renamed(*names):
        events.append("rename")
        return rename(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(files.FileSystems, "rename", renamed)
    files.write_atomically(str(tmp_path / "x"), b"12345")
    assert events == [5, "rename", "folder"]
    files.publish(str(tmp_path / "x"), str(tmp_path / "y"))
    assert events[3:] == ["rename", "folder"]


@pytest.mark.parametrize("data", [b"", b"\x82", b"\xc0", msgpack.packb({"records": [[1]], "rejects": []})])
def test_a_unit_that_cannot_be_read_is_done_again(tmp_path, data):
    units = CompletedUnits(str(tmp_path))
    units.save("unit", [], [])
    [path] = [path for path in tmp_path.rglob("*") if path.is_file()]
    path.write_bytes(data)
    assert units.load("unit") == ([], [])
