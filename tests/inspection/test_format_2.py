"""Datasets of version 2 are inspected and read again like those of version 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.data.format import read_manifest, read_token_shard
from models.tokenizers.info import CodeShape, ImageTokenizerInfo
from pipeline.dataset import existing
from pipeline.inspection import diff, stats, verify
from pipeline.inspection.stats import MAX_DENSE_VOCABULARY, Occurrences
from tests.support.records import write_records

IMAGE = ImageTokenizerInfo("none", "0" * 64, 1 << 18, CodeShape(sequence=7), image_size=32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("format_2") / "dataset"
    write_records(output, pairs=20, shards=2, draws=2, image=IMAGE)
    return output


def test_verify_and_stats(dataset, capsys):
    assert verify.main([str(dataset), "--workers=1"]) == 0
    assert stats.main([str(dataset), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert told["codes_per_picture"] == 7 and told["image_tokenizer"]["shape"] == {"sequence": 7}
    assert told["codes"]["vocabulary"] == 1 << 18 and 270 < told["codes"]["used"] <= 20 * 2 * 7


def test_verify_names_codes_of_another_number(dataset, tmp_path, capsys):
    wrong = tmp_path / "wrong"
    write_records(wrong, pairs=10, shards=1, image=IMAGE)
    text = (wrong / "manifest.json").read_text()
    assert '"sequence": 7' in text
    write_records(tmp_path / "other", pairs=10, shards=1)  # codes of 16 bits in a grid
    shard = "train/00000-of-00001.tar"
    (wrong / shard).write_bytes((tmp_path / "other" / shard).read_bytes())
    assert verify.main([str(wrong), "--workers=1"]) == 1
    assert "codes of shape (1, 8), expected (1, 7)" in capsys.readouterr().out


def test_records_are_read_again_with_their_codes(dataset):
    [opened] = existing.open_existing([str(dataset)])
    shard = opened.manifest.shards[0]
    records = list(
        existing.read_records(str(dataset), shard, existing.file_of(opened, existing.index_path(shard.path)))
    )
    samples = list(read_token_shard(dataset / shard.path, IMAGE.code_type))
    assert records and [np.frombuffer(r.codes, "<u4").tolist() for r in records] == [
        s.codes.ravel().tolist() for s in samples
    ]
    parts = existing.parts_of([opened], [existing.Subset()], {}, set())
    assert parts.image_tokenizer == read_manifest(dataset).image_tokenizer == IMAGE


def test_diff_sees_codes_beyond_16_bits(dataset, tmp_path, capsys):
    write_records(tmp_path / "same", pairs=20, shards=3, draws=2, image=IMAGE)
    assert diff.main([str(dataset), str(tmp_path / "same")]) == 0


def test_the_card_names_the_shape_and_how_to_read_codes(dataset):
    card = (dataset / "README.md").read_text()
    assert "a sequence of 7 image codes of a vocabulary of 262,144" in card
    assert 'np.frombuffer(pair["codes"], "<u4")' in card


def test_codes_of_a_vast_vocabulary_are_counted_without_an_array_of_it():
    batches = [np.array([5, 1 << 31, 5], np.uint32), np.array([7, 5], np.uint32)]
    few, vast = Occurrences(MAX_DENSE_VOCABULARY), Occurrences(1 << 32)
    for batch in batches:
        vast.add(batch)
        few.add(np.minimum(batch, 9))
    assert vast.counts.tolist() == few.counts.tolist() == [3, 1, 1]
    usage = stats.code_usage(vast.counts, 1 << 32)
    assert (usage["vocabulary"], usage["used"], usage["most_bits"]) == (1 << 32, 3, 32)
