"""Datasets that are not what their manifest says, and states of other streams."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import pytest

from models.data.format import pack_sample, read_manifest, tar_bytes
from models.errors import UserError
from tests.support.datasets import write_dataset, write_manifest
from tests.support.streams import first_keys, make_stream


def replace_shard(dataset: Path, number: int, data: bytes, **changes) -> None:
    """Writes other bytes for a shard and says so in the manifest."""
    manifest = read_manifest(dataset)
    (dataset / manifest.shards[number].path).write_bytes(data)
    changes = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **changes}
    shards = list(manifest.shards)
    shards[number] = dataclasses.replace(shards[number], **changes)
    write_manifest(dataset, dataclasses.replace(manifest, shards=tuple(shards)))


def test_a_split_without_pairs(tmp_path):
    write_dataset(tmp_path / "dataset", train=(0,), val=())
    for split in ("train", "val"):
        with pytest.raises(UserError, match=f"no pairs in split '{split}'"):
            make_stream(tmp_path / "dataset", split=split)


def test_wrong_arguments(stream_dataset):
    with pytest.raises(UserError, match="split 'test'"):
        make_stream(stream_dataset, split="test")
    with pytest.raises(UserError, match="batch size 0"):
        make_stream(stream_dataset, batch_size=0)
    with pytest.raises(UserError, match="not a finished dataset"):
        make_stream(stream_dataset / "train")


def test_a_missing_shard_is_named_before_training_starts(own_dataset):
    (own_dataset / "train/00001-of-00002.tar").unlink()
    with pytest.raises(UserError, match=r"train/00001-of-00002\.tar is missing"):
        make_stream(own_dataset)


def test_a_shard_that_goes_missing_later(own_dataset):
    stream = make_stream(own_dataset)
    (own_dataset / "train/00001-of-00002.tar").unlink()
    with pytest.raises(UserError, match=r"train/00001-of-00002\.tar cannot be read"):
        next(iter(stream))


def test_a_shard_that_changes_while_it_is_read(own_dataset):
    stream = make_stream(own_dataset, batch_size=1)
    batches = iter(stream)
    next(batches)
    for path in own_dataset.glob("train/*.tar"):
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"train/0000.-of-00002\.tar (is damaged|has changed|is not the file)"):
        list(itertools.islice(batches, 5))


@pytest.mark.parametrize(
    "change", [lambda data: data[:700] + b"?" + data[701:], lambda data: data[:-1024], lambda data: b""]
)
def test_a_changed_shard_is_named(own_dataset, change):
    path = own_dataset / "train/00000-of-00002.tar"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"train/00000-of-00002\.tar is not the file that the manifest names"):
        first_keys(make_stream(own_dataset), 10)


def test_another_number_of_pairs_than_the_manifest_says(own_dataset):
    data = (own_dataset / "train/00000-of-00002.tar").read_bytes()
    replace_shard(own_dataset, 0, data, pairs=4)
    with pytest.raises(UserError, match=r"train/00000-of-00002\.tar holds 3 pairs, but the manifest lists 4"):
        first_keys(make_stream(own_dataset), 10)


GOOD = pack_sample("a", b"\1\0", bytes(32), 1)


@pytest.mark.parametrize(
    "data, message",
    [
        (
            tar_bytes([("0" * 32, b"no msgpack"), ("1" * 32, GOOD), ("2" * 32, GOOD)]),
            "damaged: 0{32}.mp is not a sample",
        ),
        (tar_bytes([("0" * 32, GOOD), ("1" * 32, GOOD)]).replace(b".mp", b".xx"), "unexpected member 0{32}.xx"),
        (b"x" * 10240, "unexpected member x"),
        (tar_bytes([("0" * 32, pack_sample("a", b"", bytes(30), 1))] * 3), "pair 0{32} has 15 codes, not 1 x 16"),
        (
            tar_bytes([("0" * 32, pack_sample("a", b"", b"\xff\0" * 16, 1))] * 3),
            "has code 255, but the vocabulary has 32",
        ),
        (
            tar_bytes([("0" * 32, pack_sample("a", b"\xff\xff", bytes(32), 1))] * 3),
            "has token 65535, but the vocabulary",
        ),
    ],
)
def test_a_damaged_member_is_named(own_dataset, data, message):
    """The bytes are those that the manifest names: whoever wrote them is at fault."""
    replace_shard(own_dataset, 0, data)
    with pytest.raises(UserError, match=message):
        first_keys(make_stream(own_dataset), 10)


def test_a_state_of_another_order_is_refused(stream_dataset, own_dataset):
    state = make_stream(stream_dataset, seed=1).state_dict()
    for stream, message in (
        (make_stream(stream_dataset, seed=2), "seed was 1, now is 2"),
        (make_stream(own_dataset, seed=1), "its shards differ"),
        (make_stream(stream_dataset, seed=1, split="val"), "split was train, now is val"),
    ):
        with pytest.raises(UserError, match=message):
            stream.load_state_dict(state)
    with pytest.raises(UserError, match="version was 0, now is 2"):
        make_stream(stream_dataset, seed=1).load_state_dict(state | {"version": 0})
