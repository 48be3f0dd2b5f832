"""Datasets that somebody else has made: each fault is named, and nothing outside the folder is read or removed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from models.data import format
from models.data.format import File, index_path, read_manifest
from models.data.shard_cache import ShardCache
from models.data.stream import Stream
from models.errors import JOINERS, UserError, printable, report_errors
from models.tokenizers.info import UINT16
from models.tokenizers.text import TextTokenizer
from pipeline.dataset import existing
from pipeline.inspection import diff, stats
from pipeline.inspection import repair as repair_module
from pipeline.inspection.faults import verify
from pipeline.inspection.verify import main
from pipeline.output.ledger import parse_ledger
from pipeline.output.parquet import Malformed, rows_of, table_of
from pipeline.output.schemas import INDEX
from pipeline.records import Rejected
from tests.support.paths import files_of
from tests.support.records import write_records
from tests.support.repetition import examples

FEW = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("hostile") / "dataset"
    write_records(output, pairs=30, shards=3, draws=2)
    return output


@pytest.fixture
def own(dataset, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(dataset, tmp_path / "own"))


def rewrite_manifest(folder: Path, change) -> None:
    """A manifest whose own hash is right, whatever it says."""
    body = json.loads((folder / "manifest.json").read_bytes())
    change(body)
    body.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(body | {"sha256": digest}, indent=1, sort_keys=True) + "\n")


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Another file, with the manifest's blessing."""
    (folder / name).write_bytes(data)

    def change(body):
        for entry in (*body["files"], *body["shards"]):
            if entry["path"] == name:
                entry["bytes"], entry["sha256"] = len(data), hashlib.sha256(data).hexdigest()

    rewrite_manifest(folder, change)


# --- names -----------------------------------------------------------------------------------------------------------

OUTSIDE = ["../victim/precious.txt", "train/../../victim/precious.txt", "/etc/hostname", "", ".", "..", "train//x.tar"]
OUTSIDE += ["train/.x.tmp", "~/x", "train\\x.tar", "train/x\n.tar", "s3://bucket/x", "train/\x1b[31m.tar"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["files", "shards"])
def test_names_that_lead_outside_are_refused_and_nothing_is_removed(own, name, kind):
    victim = own.parent / "victim" / "precious.txt"
    victim.parent.mkdir()
    victim.write_text("precious")
    rewrite_manifest(own, lambda body: body[kind][0].update(path=name))
    before = files_of(own)
    with pytest.raises(UserError, match="is not as pairmill writes it"):
        read_manifest(own)
    with pytest.raises(UserError, match="cannot be made from other files"):
        main([str(own), "--workers=1", "--repair"])
    assert victim.read_text() == "precious" and files_of(own) == before


@pytest.mark.parametrize("sha256", ["../../victim", "/tmp/victim", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_shard_cache_takes_hex_alone(dataset, tmp_path, sha256):
    victim = tmp_path / "victim.lock"
    victim.write_text("precious")
    with pytest.raises(UserError, match="is not a sha256"):
        ShardCache(tmp_path / "a" / "b", 1 << 20).fetch("memory://x/y.tar", 10, sha256)
    assert victim.read_text() == "precious"


def test_a_lock_of_the_shard_cache_is_not_truncated(tmp_path):
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    (tmp_path / "cache" / f".{'0' * 64}.lock").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").write_text("precious")
    with pytest.raises(OSError):
        cache.fetch("memory://x/y.tar", 10, "0" * 64)
    assert (tmp_path / "victim").read_text() == "precious"


# --- JSON ------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@FEW
@given(st.data())
def test_a_manifest_of_any_types_is_read_or_refused(own, data):
    original = (own / "manifest.json").read_bytes()
    try:
        rewrite_manifest(own, lambda body: _change_somewhere(body, data))
        try:
            read_manifest(own)
        except UserError as error:
            assert "\n" not in str(error)
        assert isinstance(verify(str(own), 1), list)
    finally:
        (own / "manifest.json").write_bytes(original)


def _change_somewhere(body, data) -> None:
    """Replaces or removes a value at some depth."""
    while True:
        keys = sorted(body) if isinstance(body, dict) else range(len(body))
        key = data.draw(st.sampled_from(list(keys)))
        inner = body[key]
        if not (isinstance(inner, dict | list) and inner and data.draw(st.booleans())):
            break
        body = inner
    if isinstance(body, dict) and data.draw(st.booleans()):
        del body[key]
    else:
        body[key] = data.draw(VALUES)


@FEW
@given(VALUES)
def test_a_ledger_of_any_types_is_read_or_refused(value):
    try:
        parse_ledger(json.dumps(value).encode(), "ledger.json")
    except UserError as error:
        assert str(error).startswith("ledger.json is not readable: ")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"sources": []}', '{"sources": {"a": {"read": "1"}}}', "\xff", "[" * 9999]
)
def test_a_ledger_that_fits_its_hash_and_is_none_is_a_fault(own, text):
    replace_file(own, "ledger.json", text.encode("latin-1"))
    assert {fault.path for fault in verify(str(own), 1)} == {"ledger.json"}


@pytest.mark.parametrize("text", ["", "{}", "null", '{"model": 1}', "\xff", '{"version":"1.0","model":{"type":"BPE"}}'])
def test_a_text_tokenizer_that_is_none_is_a_fault(own, text):
    replace_file(own, "text_tokenizer.json", text.encode("latin-1"))
    assert "text_tokenizer.json" in {fault.path for fault in verify(str(own), 1)}


def test_a_panic_of_the_tokenizer_library_is_an_error(monkeypatch):
    class PanicException(BaseException):
        """Not an Exception, as the library's."""

    class Panics:
        @staticmethod
        def from_str(text):
            raise PanicException("index out of bounds")

    monkeypatch.setattr("models.tokenizers.text.Tokenizer", Panics)
    with pytest.raises(ValueError, match=r"not a tokenizer\.json: index out of bounds"):
        TextTokenizer("{}")


# --- Parquet ---------------------------------------------------------------------------------------------------------


@FEW
@given(st.data())
def test_any_bytes_in_the_place_of_a_parquet_file(dataset, data):
    [path, *_] = sorted((dataset / "index").iterdir())
    original = path.read_bytes()
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        table = table_of(bytes(changed), INDEX.names)
    except Malformed:
        return
    assert table.schema.names == INDEX.names
    table.to_pylist()


COLUMNS = {
    "of other types": pa.table({"key": [1], "shard": ["x"], "position": ["0"], "source": [None], "split": ["train"]}),
    "without keys": pa.table({"shard": ["x"]}),
    "without values": pa.table({"key": pa.array([None], pa.string())}),
    "without rows": INDEX.empty_table(),
}


@pytest.mark.parametrize("table", COLUMNS.values(), ids=COLUMNS)
def test_an_index_that_fits_its_hash_and_is_none_is_a_fault(own, table):
    shard = read_manifest(own).shards[0]
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    replace_file(own, index_path(shard.path), buffer.getvalue())
    assert index_path(shard.path) in {fault.path for fault in verify(str(own), 1)}


def test_rejects_that_are_none(own):
    with pytest.raises(UserError, match=r"x\.parquet is not as pairmill writes it"):
        list(rows_of(b"PAR1", "x.parquet", Rejected))


# --- tar files -------------------------------------------------------------------------------------------------------


def member(name: str, data: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


ODD = {
    "hard link": member(f"{0:032x}.mp", type=tarfile.LNKTYPE, linkname=f"{1:032x}.mp"),
    "symbolic link": member(f"{0:032x}.mp", type=tarfile.SYMTYPE, linkname="/etc/hostname"),
    "folder": member(f"{0:032x}.mp", type=tarfile.DIRTYPE),
    "device": member(f"{0:032x}.mp", type=tarfile.CHRTYPE),
    "no sample": member(f"{0:032x}.mp", b"\xc1"),
    "another type": member(f"{0:032x}.mp", msgpack.packb({"caption": 1, "tokens": b"", "codes": b"", "draws": 1})),
    "odd bytes": member(f"{0:032x}.mp", msgpack.packb({"caption": "", "tokens": b"x", "codes": b"", "draws": 1})),
    "no crops": member(f"{0:032x}.mp", msgpack.packb({"caption": "", "tokens": b"", "codes": b"", "draws": 0})),
    "another name": member("\x1b[31mx"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_member_of_a_shard_is_a_fault(own, odd):
    name = read_manifest(own).shards[0].path
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(odd[0], io.BytesIO(odd[1]))
    replace_file(own, name, buffer.getvalue())
    assert name in {fault.path for fault in verify(str(own), 1)}


def test_a_sparse_member_takes_no_memory(tmp_path):
    """Of 64 GB, in a file of 2 kB."""
    header = tarfile.TarInfo(f"{0:032x}.mp").tobuf(tarfile.GNU_FORMAT)
    sparse = bytearray(header)
    sparse[156:157] = b"S"
    sparse[483:495] = b"%011o\0" % (1 << 32)
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    (tmp_path / "sparse.tar").write_bytes(bytes(sparse) + bytes(10240 - len(sparse)))
    with pytest.raises(ValueError, match="is not a regular file of at most"):
        list(format.read_token_shard(tmp_path / "sparse.tar", UINT16))


# --- who reads a dataset checks it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shard", "index", "rejects", "ledger"])
def test_damage_is_not_laundered(own, kind):
    [dataset] = existing.open_existing([str(own)])
    shard = dataset.manifest.shards[0]
    rejects = next(file for file in dataset.manifest.files if file.path.startswith("rejects/"))
    index = existing.file_of(dataset, index_path(shard.path))
    readers = {
        "shard": (shard.path, lambda: list(existing.read_records(str(own), shard, index))),
        "index": (index.path, lambda: list(existing.read_records(str(own), shard, index))),
        "rejects": (rejects.path, lambda: list(existing.read_rejects(str(own), rejects))),
        "ledger": ("ledger.json", lambda: existing.counts_read([dataset])),
    }
    name, read = readers[kind]
    read()
    data = bytearray((own / name).read_bytes())
    data[len(data) // 2] ^= 1
    (own / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is damaged: its sha256 is not the manifest's"):
        read()


def test_training_checks_as_well(own):
    name = read_manifest(own).shards[0].path
    data = bytearray((own / name).read_bytes())
    data[600] ^= 1
    (own / name).write_bytes(data)
    split = name.partition("/")[0]
    with pytest.raises(UserError, match="its sha256 differs"):
        for _ in zip(range(9), Stream(own, split, 4), strict=False):
            pass


# --- repair ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As by a signal, which nothing catches."""


@pytest.mark.parametrize("step", range(8))
def test_a_repair_may_be_killed_at_any_step(own, monkeypatch, step):
    """The next one ends as if it had been the first."""
    name = read_manifest(own).shards[0].path
    data = bytearray((own / name).read_bytes())
    data[600] ^= 1
    (own / name).write_bytes(data)
    whole = Path(shutil.copytree(own, own.parent / "whole"))
    assert main([str(whole), "--workers=1", "--repair"]) == 0

    steps = iter(range(99))
    with monkeypatch.context() as patch:
        for module, function in (
            (repair_module, "write_file"),
            (repair_module.output_files, "write_atomically"),
            (repair_module.output_files, "publish"),
            (repair_module.output_files, "delete"),
        ):
            patch.setattr(module, function, _killing(getattr(module, function), steps, step))
        with contextlib.suppress(Killed):
            main([str(own), "--workers=1", "--repair"])
    assert main([str(own), "--workers=1", "--repair"]) == 0
    assert files_of(own) == files_of(whole)


def _killing(function, steps, step):
    def killing(*arguments):
        if next(steps) == step:
            raise Killed
        return function(*arguments)

    return killing


def test_what_a_manifest_writes_it_reads(dataset):
    manifest = read_manifest(dataset)
    assert dataclasses.replace(manifest) == manifest
    assert all(isinstance(file, File) for file in manifest.files)


# --- the terminal ----------------------------------------------------------------------------------------------------

ESCAPE = "\x1b]0;owned\x07"


@pytest.mark.parametrize("command", ["stats", "stats --json", "diff", "verify"])
def test_text_from_lists_cannot_control_the_terminal(own, dataset, command, capsys):
    shard = read_manifest(own).shards[0]
    path = own / index_path(shard.path)
    table = pq.read_table(path, partitioning=None)
    for name in ("source", "licence"):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([ESCAPE] * len(table)))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    replace_file(own, index_path(shard.path), buffer.getvalue())
    rewrite_manifest(own, lambda body: body["settings"].update({ESCAPE: ESCAPE}))
    if command == "diff":
        diff.main([str(dataset), str(own)])
    elif command == "verify":
        main([str(own), "--workers=1"])
    else:
        stats.main([str(own), *command.split()[1:]])
    said = capsys.readouterr().out
    assert "owned" in said and not set(said) & set("\x1b\x07")


def test_errors_cannot_control_the_terminal(capsys):
    def command():
        raise UserError(ESCAPE)

    assert report_errors(command) == 2
    assert capsys.readouterr().err == "pairmill: \\u001b]0;owned\\u0007\n"


@given(st.text())
def test_printable_text_stays_and_any_other_can_be_read_back(text):
    assert all(each.isprintable() or each in JOINERS for each in printable(text))
    if "\\" not in text and '"' not in text:
        assert json.loads(f'"{printable(text)}"') == text
