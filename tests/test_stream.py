"""The order of pairs, resuming in it, and datasets that are not what their manifest says."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dataset import pack_sample, read_manifest, read_shard, tar_bytes
from models.errors import UserError
from models.stream import Stream, read_pairs
from models.transformer import NO_TOKEN
from tests.helpers_dataset import tiny_text_tokenizer, write_dataset, write_manifest

SHARDS = (9, 7, 1, 11, 8)
PAIRS = sum(SHARDS)
BUFFER = 16  # smaller than the split: several buffers an epoch, one of them a single shard


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("stream") / "dataset"
    write_dataset(directory, train=SHARDS, val=(3, 2), draws=2)
    return directory


@pytest.fixture
def own_dataset(tmp_path) -> Path:
    """One to damage."""
    write_dataset(tmp_path / "dataset", train=(3, 2))
    return tmp_path / "dataset"


def make_stream(dataset: Path, batch_size: int = 4, seed: int = 0, split: str = "train") -> Stream:
    return Stream(dataset, split, batch_size, seed, max_tokens=16, buffer=BUFFER)


def first_keys(stream: Stream, pairs: int) -> list[str]:
    keys: list[str] = []
    for batch in stream:
        keys += batch.keys
        if len(keys) >= pairs:
            return keys[:pairs]
    return keys


def replace_shard(dataset: Path, number: int, data: bytes, **changes) -> None:
    """Writes other bytes for a shard and says so in the manifest."""
    manifest = read_manifest(dataset)
    (dataset / manifest.shards[number].path).write_bytes(data)
    changes = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **changes}
    shards = list(manifest.shards)
    shards[number] = dataclasses.replace(shards[number], **changes)
    write_manifest(dataset, dataclasses.replace(manifest, shards=tuple(shards)))


def test_batches_hold_what_the_shards_hold(dataset):
    samples = {sample.key: sample for path in dataset.glob("train/*.tar") for sample in read_shard(path)}
    batch = next(iter(make_stream(dataset)))
    assert batch.text_BT.shape == (4, 16) and batch.text_BT.dtype == torch.int64
    assert batch.codes_BN.shape == (4, 16) and batch.codes_BN.dtype == torch.int64
    for key, text_T, codes_N in zip(*batch, strict=True):
        tokens = samples[key].tokens.tolist()
        assert text_T.tolist() == tokens + [NO_TOKEN] * (16 - len(tokens))
        assert tiny_text_tokenizer().decode(tokens).strip() == samples[key].caption.lower()
        assert codes_N.tolist() == samples[key].codes[0].tolist()


def test_long_captions_are_cut(dataset):
    whole, cut = (next(iter(Stream(dataset, "train", 4, max_tokens=length))).text_BT for length in (None, 2))
    assert whole.shape == (4, 16) and torch.equal(cut, whole[:, :2])


def test_every_epoch_holds_every_pair_once_in_an_order_of_its_own(dataset):
    keys = first_keys(make_stream(dataset), 3 * PAIRS)
    epochs = [keys[:PAIRS], keys[PAIRS : 2 * PAIRS], keys[2 * PAIRS :]]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs) and len(set(epochs[0])) == PAIRS
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    written = [sample.key for path in sorted(dataset.glob("train/*.tar")) for sample in read_shard(path)]
    assert sum(a == b for a, b in zip(epochs[0], written, strict=True)) < PAIRS / 2


def test_order_follows_from_the_seed_alone(dataset):
    reference = first_keys(make_stream(dataset, seed=5), 100)
    assert first_keys(make_stream(dataset, seed=5), 100) == reference
    assert first_keys(make_stream(dataset, seed=5, batch_size=7), 100) == reference
    assert first_keys(make_stream(dataset, seed=6), 100) != reference


@settings(max_examples=30, deadline=None)
@given(before=st.integers(0, 30), batch_size=st.integers(1, 9), then=st.integers(1, 9))
def test_resumes_at_the_exact_pair(dataset, before, batch_size, then):
    """Also with another batch size."""
    stopped = make_stream(dataset, batch_size)
    done = sum(len(batch.keys) for batch in itertools.islice(stopped, before))
    resumed = make_stream(dataset, then)
    resumed.load_state_dict(stopped.state_dict())
    assert first_keys(resumed, 50) == first_keys(make_stream(dataset), done + 50)[done:]


def test_draws_take_turns_by_epoch(dataset):
    samples = {sample.key: sample for path in dataset.glob("train/*.tar") for sample in read_shard(path)}
    stream = make_stream(dataset, batch_size=PAIRS)
    for epoch, batch in enumerate(itertools.islice(stream, 3)):
        for key, codes_N in zip(batch.keys, batch.codes_BN, strict=True):
            assert codes_N.tolist() == samples[key].codes[epoch % 2].tolist()


def test_validation_is_read_once_in_the_order_on_disk(dataset):
    batches = list(make_stream(dataset, batch_size=2, split="val"))
    written = [sample.key for path in sorted(dataset.glob("val/*.tar")) for sample in read_shard(path)]
    assert [len(batch.keys) for batch in batches] == [2, 2, 1]
    assert [key for batch in batches for key in batch.keys] == written


def test_shards_are_read_as_tarfile_reads_them(dataset):
    for shard in read_manifest(dataset).shards:
        ours, theirs = read_pairs(dataset, shard), list(read_shard(dataset / shard.path))
        assert [(s.key, s.caption, s.tokens.tolist(), s.codes.tolist()) for s in ours] == [
            (s.key, s.caption, s.tokens.tolist(), s.codes.tolist()) for s in theirs]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_split_without_pairs(tmp_path):
    write_dataset(tmp_path / "dataset", train=(0,), val=())
    for split in ("train", "val"):
        with pytest.raises(UserError, match=f"no pairs in split '{split}'"):
            make_stream(tmp_path / "dataset", split=split)


def test_wrong_arguments(dataset):
    with pytest.raises(UserError, match="split 'test'"):
        make_stream(dataset, split="test")
    with pytest.raises(UserError, match="batch size 0"):
        make_stream(dataset, batch_size=0)
    with pytest.raises(UserError, match="not a finished dataset"):
        make_stream(dataset / "train")


def test_a_missing_shard_is_named_before_training_starts(own_dataset):
    (own_dataset / "train/00001-of-00002.tar").unlink()
    with pytest.raises(UserError, match=r"train/00001-of-00002\.tar is missing"):
        make_stream(own_dataset)


def test_a_shard_that_goes_missing_later(own_dataset):
    stream = make_stream(own_dataset)
    (own_dataset / "train/00001-of-00002.tar").unlink()
    with pytest.raises(UserError, match=r"train/00001-of-00002\.tar cannot be read"):
        next(iter(stream))


@pytest.mark.parametrize("change", [lambda data: data[:700] + b"?" + data[701:], lambda data: data[:-1024],
                                    lambda data: b""])
def test_a_changed_shard_is_named(own_dataset, change):
    path = own_dataset / "train/00000-of-00002.tar"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"train/00000-of-00002\.tar is not the file that the manifest names"):
        first_keys(make_stream(own_dataset), 10)


def test_another_number_of_pairs_than_the_manifest_says(own_dataset):
    data = (own_dataset / "train/00000-of-00002.tar").read_bytes()
    replace_shard(own_dataset, 0, data, pairs=4)
    with pytest.raises(UserError, match=r"train/00000-of-00002\.tar holds 3 pairs, the manifest says 4"):
        first_keys(make_stream(own_dataset), 10)


GOOD = pack_sample("a", b"\1\0", bytes(32), 1)


@pytest.mark.parametrize("data, said", [
    (tar_bytes([("0" * 32, b"no msgpack"), ("1" * 32, GOOD), ("2" * 32, GOOD)]), "damaged: 0{32}.mp is not a sample"),
    (tar_bytes([("0" * 32, GOOD), ("1" * 32, GOOD)]).replace(b".mp", b".xx"), "unexpected member 0{32}.xx"),
    (b"x" * 10240, "unexpected member x"),
    (tar_bytes([("0" * 32, pack_sample("a", b"", bytes(30), 1))] * 3), "pair 0{32} has 15 codes, not 16"),
    (tar_bytes([("0" * 32, pack_sample("a", b"", b"\xff\0" * 16, 1))] * 3), "has code 255, but the vocabulary has 32"),
    (tar_bytes([("0" * 32, pack_sample("a", b"\xff\xff", bytes(32), 1))] * 3), "has token 65535, but the vocabulary"),
])
def test_a_damaged_member_is_named(own_dataset, data, said):
    """The bytes are those that the manifest names: whoever wrote them is at fault."""
    replace_shard(own_dataset, 0, data)
    with pytest.raises(UserError, match=said):
        first_keys(make_stream(own_dataset), 10)


def test_a_state_of_another_order_is_refused(dataset, own_dataset):
    state = make_stream(dataset, seed=1).state_dict()
    for stream, said in ((make_stream(dataset, seed=2), "seed 1 is now 2"),
                         (make_stream(own_dataset, seed=1), "its shards are others"),
                         (make_stream(dataset, seed=1, split="val"), "split train is now val")):
        with pytest.raises(UserError, match=said):
            stream.load_state_dict(state)
    with pytest.raises(UserError, match="version 0 is now 1"):
        make_stream(dataset, seed=1).load_state_dict(state | {"version": 0})
