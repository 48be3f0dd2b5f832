"""The order of pairs, resuming in it, and datasets that are not what their manifest says."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bpe_dropout import BPEDropout
from models.dataset import pack_sample, read_manifest, read_shard, tar_bytes
from models.errors import UserError
from models.order import Order
from models.shard_reader import HEADER, ShardFile
from models.stream import Stream
from models.transformer import NO_TOKEN
from tests.helpers_dataset import CAPTIONS, tiny_text_tokenizer, write_dataset, write_manifest

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
    for key, text_T, codes_N in zip(*batch[:3], strict=True):
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


def test_members_are_found_as_tarfile_finds_them(dataset):
    for shard in read_manifest(dataset).shards:
        file = ShardFile(str(dataset / shard.path), shard, with_sources=True)
        with tarfile.open(dataset / shard.path) as tar:
            infos = tar.getmembers()
            assert [info.offset for info in infos] == file.members.offsets.tolist()
            assert [info.uname.encode() for info in infos] == file.members.sources.tolist()
            for info, offset, size in zip(infos, *file.members[:2], strict=True):
                assert file.read(offset, size)[HEADER:] == tar.extractfile(info).read()


# --- ranks and workers -----------------------------------------------------------------------------------------------


def global_keys(dataset: Path, ranks: int, workers: int, steps: int, state: dict | None, **options) -> tuple:
    """(keys of that many steps in the order of the global batch, state after them): every rank with its loader."""
    batch_size = 16
    keys = [[""] * batch_size for _ in range(steps)]
    for rank in range(ranks):
        stream = Stream(dataset, "train", batch_size, 3, buffer=BUFFER, rank=rank, ranks=ranks, **options)
        if state:
            stream.load_state_dict(state)
        batches = iter(stream.loader(workers))
        for step in range(steps):
            batch = next(batches)
            assert len(batch.keys) == len(batch.text_BT) == len(batch.codes_BN) == batch_size // ranks
            keys[step][rank::ranks] = batch.keys
        del batches  # ends its workers
    return list(itertools.chain(*keys)), stream.state_dict(after=batch)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more of them than this machine has cores
def test_any_number_of_ranks_and_workers_sees_the_same_order(dataset, exhaustive):
    """Stopped after a random number of steps and resumed with other numbers, over three epochs and more."""
    kinds = list(itertools.product((1, 2, 4, 8), (0, 1, 2, 3)))
    chance = random.Random(7)
    chance.shuffle(kinds)
    kinds = kinds * 4 if exhaustive else [(1, 0), (8, 3), (2, 2), (4, 0), (1, 1), (2, 3)]
    steps = [chance.randint(1, 4) for _ in kinds]
    whole, _ = global_keys(dataset, 1, 0, sum(steps), None)
    found, state = [], None
    for (ranks, workers), some in zip(kinds, steps, strict=True):
        keys, state = global_keys(dataset, ranks, workers, some, state)
        found += keys
    assert found == whole
    for epoch in range(len(whole) // PAIRS):
        assert len(set(whole[epoch * PAIRS : (epoch + 1) * PAIRS])) == PAIRS
    assert len(whole) >= 3 * PAIRS
    assert len(json.dumps(state)) < 400 and state["version"] == 2


def test_fewer_shards_than_ranks_and_workers(tmp_path):
    write_dataset(tmp_path / "dataset", train=(5,))
    keys, _ = global_keys(tmp_path / "dataset", 8, 2, 2, None)
    assert keys == global_keys(tmp_path / "dataset", 1, 0, 2, None)[0] and len(set(keys)) == 5


def test_a_plain_data_loader_does_the_same(dataset):
    ours, plain = (make_stream(dataset) for _ in range(2))
    loader = torch.utils.data.DataLoader(plain, batch_size=None, num_workers=2)
    for one, other in zip(itertools.islice(ours, 12), loader, strict=False):
        assert one.keys == other.keys and torch.equal(one.codes_BN, other.codes_BN) and one.end == other.end


def test_validation_by_ranks_and_workers(dataset):
    """In the order on disk; every rank has as many batches, the last of them short or empty."""
    whole = [key for batch in make_stream(dataset, split="val") for key in batch.keys]
    for ranks, workers in ((2, 2), (4, 0)):
        parts = [list(Stream(dataset, "val", 4, rank=rank, ranks=ranks).loader(workers)) for rank in range(ranks)]
        assert {len(part) for part in parts} == {2}
        keys = [[""] * 4, [""] * 4]
        for rank, part in enumerate(parts):
            for row, batch in zip(keys, part, strict=True):
                row[rank : rank + ranks * len(batch.keys) : ranks] = batch.keys
        assert [key for row in keys for key in row if key] == whole


def test_a_fault_in_a_worker_ends_the_run(own_dataset):
    path = own_dataset / "train/00000-of-00002.tar"
    path.write_bytes(path.read_bytes()[:-1024])
    with pytest.raises(UserError, match=r"train/00000-of-00002\.tar is not the file"):
        list(itertools.islice(make_stream(own_dataset).loader(2), 4))


def test_a_rank_reads_its_own_lanes_only(dataset):
    order = Order([40] * 16, seed=0, lanes=4, buffer=8)
    whole = np.arange(order.total)
    shards = [{int(shard) for block, _, _ in order.blocks(whole[rank::4]) for shard in order.entries(block)[0]}
              for rank in range(4)]
    assert sorted(itertools.chain(*shards)) == list(range(16))


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any), lanes=st.integers(1, 9),
       buffer=st.integers(1, 40), seed=st.integers(0, 3), data=st.data())
def test_an_epoch_is_every_entry_once(pairs, lanes, buffer, seed, data):
    order = Order(pairs, seed, lanes, buffer)
    epoch = data.draw(st.integers(0, 5))
    places = np.arange(order.total) + epoch * order.total
    found = [None] * order.total
    for block, rows, at in order.blocks(places):
        shards, entries = order.entries(block)
        for row, shard, entry in zip(rows, shards[at], entries[at], strict=True):
            found[row] = (int(shard), int(entry))
    assert sorted(found) == [(shard, entry) for shard, n in enumerate(pairs) for entry in range(n)]


# --- weights, dropout ------------------------------------------------------------------------------------------------


def sources_of(dataset: Path) -> dict[str, str]:
    sources = {}
    for path in dataset.glob("train/*.tar"):
        with tarfile.open(path) as tar:
            sources |= {info.name[:32]: info.uname for info in tar}
    return sources


def test_weights_by_source(dataset):
    sources = sources_of(dataset)
    weights = {"wit": 2.5, "cc3m": 0}
    stream = Stream(dataset, "train", 16, 3, buffer=BUFFER, weights=weights)
    keys, _ = global_keys(dataset, 2, 1, -(-3 * stream.pairs // 16), None, weights=weights)
    assert keys == global_keys(dataset, 1, 0, -(-3 * stream.pairs // 16), None, weights=weights)[0]
    numbers = collections.Counter(sources.values())
    epochs = [keys[i * stream.pairs : (i + 1) * stream.pairs] for i in range(3)]
    thrice = []
    for epoch in epochs:
        times = collections.Counter(epoch)
        assert {times[key] for key, source in sources.items() if source == "cc12m"} == {1}
        assert {times[key] for key, source in sources.items() if source == "cc3m"} == {0}
        wit = [times[key] for key, source in sources.items() if source == "wit"]
        assert set(wit) == {2, 3} and abs(sum(wit) - 2.5 * numbers["wit"]) <= len(SHARDS)
        thrice.append({key for key, n in times.items() if n == 3})
    assert thrice[0] != thrice[1]  # others each epoch


@pytest.mark.parametrize("weights, said", [
    ({"wit": -1}, "weight -1.0 of source wit"), ({"laion": 1}, "no source 'laion'"),
    (dict.fromkeys(("cc3m", "cc12m", "wit"), 0), "no pair is left")])
def test_weights_that_make_no_sense(dataset, weights, said):
    with pytest.raises(UserError, match=said):
        Stream(dataset, "train", 4, weights=weights)


def test_dropout_of_none_is_the_tokenizers_answer_and_dropout_of_all_is_bytes():
    text = tiny_text_tokenizer()
    for caption in (*CAPTIONS, "Zoë's 3 cafés — ÉTÉ!", "", "  two  spaces "):
        assert BPEDropout(text.text, 0).encode(caption, "seed") == text.encode(caption)
        some, every = (BPEDropout(text.text, p).encode(caption, "seed") for p in (0.3, 1))
        assert text.decode(some) == text.decode(every) == text.decode(text.encode(caption))
        assert len(text.encode(caption)) <= len(some) <= len(every)
        assert BPEDropout(text.text, 0.3).encode(caption, "seed") == some


def test_dropout_follows_from_the_epoch_and_the_key(dataset):
    plain, one, two = (list(itertools.islice(Stream(dataset, "train", PAIRS, 1, bpe_dropout=dropout), 2))
                       for dropout in (0, 0.2, 0.2))
    text = tiny_text_tokenizer()
    assert all(torch.equal(a.text_BT, b.text_BT) for a, b in zip(one, two, strict=True))
    assert not torch.equal(plain[0].text_BT, one[0].text_BT)
    for batch, whole in zip(one, plain, strict=True):
        for tokens, row in zip(batch.text_BT.tolist(), whole.text_BT.tolist(), strict=True):
            words = [text.decode([t for t in each if t != NO_TOKEN]) for each in (tokens, row)]
            assert words[1].startswith(words[0]) and (len(words[0]) == len(words[1]) or NO_TOKEN not in tokens)


# --- remote ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def remote_dataset(dataset):
    """The dataset in fsspec's memory."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(str(dataset) + "/", "/lake/dataset", recursive=True)
    yield "memory://lake/dataset"
    files.rm("/lake", recursive=True)


def test_a_remote_dataset_gives_the_same_batches_within_the_cache(dataset, remote_dataset, tmp_path):
    most = max(path.stat().st_size for path in dataset.glob("train/*.tar"))
    sizes = []
    stream = Stream(remote_dataset, "train", 4, lanes=2, buffer=4, cache=tmp_path / "cache", cache_bytes=3 * most)
    local = Stream(dataset, "train", 4, lanes=2, buffer=4)
    for here, there in itertools.islice(zip(local, stream, strict=False), 2 * PAIRS // 4):
        assert here.keys == there.keys and torch.equal(here.codes_BN, there.codes_BN)
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()))
    assert most < max(sizes) <= 3 * most


def test_what_is_wrong_with_a_remote_dataset(remote_dataset, tmp_path):
    import fsspec

    with pytest.raises(UserError, match="name a local folder"):
        Stream(remote_dataset, "train", 4)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache .*file.*give a folder that can be written"):
        Stream(remote_dataset, "train", 4, cache=tmp_path / "file")
    with pytest.raises(UserError, match="the cache may hold 100; give more"):
        next(iter(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache", cache_bytes=100)))
    with pytest.raises(UserError, match=r"memory://nowhere/manifest\.json does not exist"):
        Stream("memory://nowhere", "train", 4, cache=tmp_path / "cache")
    with pytest.raises(UserError, match="no-such-scheme"):
        Stream("no-such-scheme://x/y", "train", 4, cache=tmp_path / "cache")
    name = read_manifest(remote_dataset).shards[0].path
    fsspec.filesystem("memory").pipe(f"/lake/dataset/{name}", b"other")
    with pytest.raises(UserError, match=rf"memory://lake/dataset/{name} is not the file that the manifest names"):
        first_keys(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache"), PAIRS)
    fsspec.filesystem("memory").rm(f"/lake/dataset/{name}")
    with pytest.raises(UserError, match=rf"memory://lake/dataset/{name} is missing"):
        first_keys(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache"), PAIRS)


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


def test_a_shard_that_changes_while_it_is_read(own_dataset):
    stream = make_stream(own_dataset, batch_size=1)
    batches = iter(stream)
    next(batches)
    for path in own_dataset.glob("train/*.tar"):
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"train/0000.-of-00002\.tar (is damaged|has changed|is not the file)"):
        list(itertools.islice(batches, 5))


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
    (tar_bytes([("0" * 32, pack_sample("a", b"", bytes(30), 1))] * 3), "pair 0{32} has 15 codes, not 1 x 16"),
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
    with pytest.raises(UserError, match="version 0 is now 2"):
        make_stream(dataset, seed=1).load_state_dict(state | {"version": 0})
