"""Batches hand out captions beside tokens, the chosen one first."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models.data.format import Shard, pack_sample, tar_bytes
from models.data.stream import Stream
from models.errors import UserError
from tests.support.datasets import tiny_text_tokenizer, write_dataset, write_manifest
from tests.support.narrowing import required

CAPTIONS = {f"{i:032x}": [f"chosen {i}", *(f"text {i}.{j}" for j in range(i))] for i in range(4)}


def rewritten(folder: Path, captions: dict[str, list]) -> Path:
    """A dataset whose pairs have these captions; the tokens are of the first."""
    text, manifest = tiny_text_tokenizer(), write_dataset(folder, (len(captions),), ())
    tokens = {key: b"".join(i.to_bytes(2, "little") for i in text.encode(str(c[0]))) for key, c in captions.items()}
    samples = ((key, pack_sample(c[0], tokens[key], bytes(32), 1, c[1:])) for key, c in captions.items())
    data = tar_bytes(samples)
    path = manifest.shards[0].path
    (folder / path).write_bytes(data)
    shard = Shard(path, "train", len(captions), len(data), hashlib.sha256(data).hexdigest())
    manifest = type(manifest)(**{**vars(manifest), "shards": (shard,)})
    write_manifest(folder, manifest)
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_all_texts_of_an_image(tmp_path, workers):
    dataset, text = rewritten(tmp_path, CAPTIONS), tiny_text_tokenizer()
    batch = next(iter(Stream(dataset, "train", batch_size=4, captions=True).loader(workers=workers)))
    captions = required(batch.captions)
    assert dict(zip(batch.keys, captions, strict=True)) == CAPTIONS
    for (chosen, *_), text_T in zip(captions, batch.text_BT, strict=True):
        tokens = [token for token in text_T.tolist() if token >= 0]
        assert tokens == text.encode(chosen)[: len(tokens)] and tokens


def test_none_unless_asked_for(tmp_path):
    assert next(iter(Stream(rewritten(tmp_path, CAPTIONS), "train", batch_size=2))).captions is None


@pytest.mark.parametrize("texts", [[5], ["a", 5]])
def test_a_caption_that_is_no_text_is_damage(tmp_path, texts):
    dataset = rewritten(tmp_path, CAPTIONS | {f"{3:032x}": texts})
    with pytest.raises(UserError, match=r"is damaged: 0{31}3.mp is not a sample"):
        next(iter(Stream(dataset, "train", batch_size=4, captions=True)))
