"""The order of pairs and resuming in it, weights by source, dropout of merges."""

from __future__ import annotations

import collections
import itertools
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.batch import NO_TOKEN
from models.data.format import read_manifest, read_token_shard
from models.data.shard_file import TAR_HEADER_BYTES, ShardFile
from models.data.stream import Stream
from models.errors import UserError
from models.tokenizers.bpe_dropout import BPEDropout
from models.tokenizers.info import UINT16
from tests.support.datasets import CAPTIONS, tiny_text_tokenizer
from tests.support.narrowing import required
from tests.support.streams import BUFFER, PAIRS, SHARDS, first_keys, global_keys, make_stream


def test_batches_hold_what_the_shards_hold(stream_dataset):
    samples = {
        sample.key: sample for path in stream_dataset.glob("train/*.tar") for sample in read_token_shard(path, UINT16)
    }
    batch = next(iter(make_stream(stream_dataset)))
    assert batch.text_BT.shape == (4, 16) and batch.text_BT.dtype == torch.int64
    assert batch.codes_BN.shape == (4, 16) and batch.codes_BN.dtype == torch.int64
    for key, text_T, codes_N in zip(*batch[:3], strict=True):
        tokens = samples[key].tokens.tolist()
        assert text_T.tolist() == tokens + [NO_TOKEN] * (16 - len(tokens))
        assert tiny_text_tokenizer().decode(tokens).strip() == samples[key].caption.lower()
        assert codes_N.tolist() == samples[key].codes[0].tolist()


def test_long_captions_are_cut(stream_dataset):
    full, cut = (next(iter(Stream(stream_dataset, "train", 4, max_tokens=length))).text_BT for length in (None, 2))
    assert full.shape == (4, 16) and torch.equal(cut, full[:, :2])


def test_every_epoch_holds_every_pair_once_in_an_order_of_its_own(stream_dataset):
    keys = first_keys(make_stream(stream_dataset), 3 * PAIRS)
    epochs = [keys[:PAIRS], keys[PAIRS : 2 * PAIRS], keys[2 * PAIRS :]]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs) and len(set(epochs[0])) == PAIRS
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    written = [
        sample.key for path in sorted(stream_dataset.glob("train/*.tar")) for sample in read_token_shard(path, UINT16)
    ]
    assert sum(a == b for a, b in zip(epochs[0], written, strict=True)) < PAIRS / 2


def test_order_follows_from_the_seed_alone(stream_dataset):
    reference = first_keys(make_stream(stream_dataset, seed=5), 100)
    assert first_keys(make_stream(stream_dataset, seed=5), 100) == reference
    assert first_keys(make_stream(stream_dataset, seed=5, batch_size=7), 100) == reference
    assert first_keys(make_stream(stream_dataset, seed=6), 100) != reference


@settings(max_examples=30, deadline=None)
@given(before=st.integers(0, 30), batch_size=st.integers(1, 9), then=st.integers(1, 9))
def test_resumes_at_the_exact_pair(stream_dataset, before, batch_size, then):
    """Also with another batch size."""
    stopped = make_stream(stream_dataset, batch_size)
    done = sum(len(batch.keys) for batch in itertools.islice(stopped, before))
    resumed = make_stream(stream_dataset, then)
    resumed.load_state_dict(stopped.state_dict())
    assert first_keys(resumed, 50) == first_keys(make_stream(stream_dataset), done + 50)[done:]


def test_draws_take_turns_by_epoch(stream_dataset):
    samples = {
        sample.key: sample for path in stream_dataset.glob("train/*.tar") for sample in read_token_shard(path, UINT16)
    }
    stream = make_stream(stream_dataset, batch_size=PAIRS)
    for epoch, batch in enumerate(itertools.islice(stream, 3)):
        for key, codes_N in zip(batch.keys, batch.codes_BN, strict=True):
            assert codes_N.tolist() == samples[key].codes[epoch % 2].tolist()


def test_validation_is_read_once_in_the_order_on_disk(stream_dataset):
    batches = list(make_stream(stream_dataset, batch_size=2, split="val"))
    written = [
        sample.key for path in sorted(stream_dataset.glob("val/*.tar")) for sample in read_token_shard(path, UINT16)
    ]
    assert [len(batch.keys) for batch in batches] == [2, 2, 1]
    assert [key for batch in batches for key in batch.keys] == written


def test_members_are_found_as_tarfile_finds_them(stream_dataset):
    for shard in read_manifest(stream_dataset).shards:
        file = ShardFile(str(stream_dataset / shard.path), shard, with_sources=True)
        with tarfile.open(stream_dataset / shard.path) as tar:
            infos = tar.getmembers()
            assert [info.offset for info in infos] == file.members.offsets.tolist()
            assert [info.uname.encode() for info in infos] == required(file.members.sources).tolist()
            for info, offset, size in zip(infos, *file.members[:2], strict=True):
                assert file.read(offset, size)[TAR_HEADER_BYTES:] == required(tar.extractfile(info)).read()


# --- weights, dropout -------------------------------------------------------------------------------------------------


def sources_of(dataset: Path) -> dict[str, str]:
    sources: dict[str, str] = {}
    for path in dataset.glob("train/*.tar"):
        with tarfile.open(path) as tar:
            sources |= {info.name[:32]: info.uname for info in tar}
    return sources


def test_weights_by_source(stream_dataset):
    sources = sources_of(stream_dataset)
    weights = {"wit": 2.5, "cc3m": 0}
    stream = Stream(stream_dataset, "train", 16, 3, buffer=BUFFER, weights=weights)
    keys, _ = global_keys(stream_dataset, 2, 1, -(-3 * stream.pairs // 16), None, weights=weights)
    assert keys == global_keys(stream_dataset, 1, 0, -(-3 * stream.pairs // 16), None, weights=weights)[0]
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


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"wit": -1}, "weight -1.0 of source wit"),
        ({"laion": 1}, "no source 'laion'"),
        (dict.fromkeys(("cc3m", "cc12m", "wit"), 0), "an epoch has no pairs"),
    ],
)
def test_weights_that_make_no_sense(stream_dataset, weights, message):
    with pytest.raises(UserError, match=message):
        Stream(stream_dataset, "train", 4, weights=weights)


def test_dropout_of_none_is_the_tokenizers_answer_and_dropout_of_all_is_bytes():
    text = tiny_text_tokenizer()
    for caption in (*CAPTIONS, "Zoë's 3 cafés — ÉTÉ!", "", "  two  spaces "):
        assert BPEDropout(text.text, 0).encode(caption, "seed") == text.encode(caption)
        some, every = (BPEDropout(text.text, p).encode(caption, "seed") for p in (0.3, 1))
        assert text.decode(some) == text.decode(every) == text.decode(text.encode(caption))
        assert len(text.encode(caption)) <= len(some) <= len(every)
        assert BPEDropout(text.text, 0.3).encode(caption, "seed") == some


def test_dropout_follows_from_the_epoch_and_the_key(stream_dataset):
    plain, one, two = (
        list(itertools.islice(Stream(stream_dataset, "train", PAIRS, 1, bpe_dropout=dropout), 2))
        for dropout in (0, 0.2, 0.2)
    )
    text = tiny_text_tokenizer()
    assert all(torch.equal(a.text_BT, b.text_BT) for a, b in zip(one, two, strict=True))
    assert not torch.equal(plain[0].text_BT, one[0].text_BT)
    for batch, full in zip(one, plain, strict=True):
        for tokens, row in zip(batch.text_BT.tolist(), full.text_BT.tolist(), strict=True):
            words = [text.decode([t for t in each if t != NO_TOKEN]) for each in (tokens, row)]
            assert words[1].startswith(words[0]) and (len(words[0]) == len(words[1]) or NO_TOKEN not in tokens)
