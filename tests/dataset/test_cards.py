"""The data card and the Croissant file of a dataset, as their own tools read them."""

from __future__ import annotations

import json
import re

import mlcroissant
import pyarrow.parquet as pq
import pytest

from models.data.format import read_manifest
from pipeline.dataset import cards
from pipeline.dataset.cards import FIELDS
from pipeline.output.schemas import INDEX
from tests.support.paths import files_of
from tests.support.records import write_records


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    output = tmp_path_factory.mktemp("cards") / "dataset"
    write_records(output)
    return output


def test_croissant_is_valid_and_its_records_are_the_index(dataset):
    read = mlcroissant.Dataset(dataset / "croissant.json")
    assert not read.metadata.ctx.issues.errors
    assert [issue for issue in read.metadata.ctx.issues.warnings if "datePublished" not in issue] == []
    records = list(read.records("pairs"))
    index = pq.read_table(dataset / "index").to_pylist()
    assert len(records) == len(index) == 60
    by_key = {row["key"]: row for row in index}
    for record in records:
        row = by_key[record["pairs/key"].decode()]
        for name, _, _ in FIELDS:
            value = record[f"pairs/{name}"]
            assert (value.decode() if isinstance(value, bytes) else value) == row[name]


def test_every_column_but_lists_is_described():
    lists = ("other_captions", "crop_boxes")
    assert [name for name, _, _ in FIELDS] == [name for name in INDEX.names if name not in lists]


def test_the_card_tells_counts_licences_and_fingerprints(dataset):
    card, manifest = (dataset / "README.md").read_text(), read_manifest(dataset)
    assert "| CC0 | 20 |" in card and "| not stated | 20 |" in card
    assert "CC BY-SA 4.0 \\| &lt;b&gt; | 20 |" in card  # a licence from the web ends no cell and is no HTML
    assert manifest.image_tokenizer.fingerprint in card and manifest.text_tokenizer.fingerprint in card
    assert "| wit | 22 | 20 | 2 |" in card
    assert card.startswith("---\nlicense: other\n") and "path: train/*.tar" in card


def test_cards_do_not_depend_on_the_folder(dataset, tmp_path):
    write_records(tmp_path / "another folder")
    assert files_of(tmp_path / "another folder") == files_of(dataset)
    assert json.loads((dataset / "croissant.json").read_text())["name"].startswith("pairmill-")


@pytest.mark.parametrize(
    "text",
    [
        "[free](https://evil.example/)",
        "![x](//evil.example/x.png)",
        "https://evil.example",
        "HTTPS://evil.example",
        "www.evil.example",
        "<https://evil.example>",
        "me@evil.example",
        "[x][y]",
        "&#104;ttps://evil.example",
        "` | x",
    ],
)
def test_text_from_the_web_makes_no_link(text):
    cell = cards._cell(text)
    assert not re.search(r"(?<!\\)[\[\]`<>|]|://|www\.|@|&(?!#\d+;|amp;|lt;|gt;)", cell)
    assert "&#104" not in cell


def test_text_from_the_web_cannot_control_a_terminal():
    assert cards._cell("\x1b[31mred\x9b") == "\\\\u001b\\[31mred\\\\u009b"
