"""What `pairmill train-bpe` refuses in one line."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import UserError
from models.training.train_bpe import main, read_captions


def train(tmp_path, name: str) -> int:
    return main(
        ["--captions", str(tmp_path / name), "--vocabulary", "300", "--output", str(tmp_path / "tokenizer.json")]
    )


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.txt", "a cat\ncaf\xe9\n".encode("latin-1"), r"a\.txt:2 is not UTF-8 .*; convert"),
        ("a.jsonl", b'{"caption": "caf\xe9"}\n', r"a\.jsonl:1 is not UTF-8"),
        ("a.jsonl", b'{"caption": "a"}\n{"caption": 7}\n', r"a\.jsonl:2: the caption is '7', not a text"),
        ("a.jsonl", b'{"caption": ["a"]}\n', "not a text"),
        ("a.jsonl", b'{"caption": "\\ud83d"}\n', r"a\.jsonl:1: the caption has half a surrogate pair"),
        ("a.jsonl", b"[" * 100_000, "is not a JSON object with `caption`"),
        ("a.txt.gz", gzip.compress(b"a cat\n" * 1000, mtime=0)[:-9], r"a\.txt\.gz cannot be read after line \d+"),
        ("a.txt.gz", b"no gzip", "cannot be read after line 0"),
        ("a.parquet", b"PAR1 no table", r"a\.parquet cannot be read"),
    ],
)
def test_captions_that_are_no_text(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        train(tmp_path, name)
    assert "\n" not in str(error.value) and not (tmp_path / "tokenizer.json").exists()


def test_numbers_in_parquet(tmp_path):
    pq.write_table(pa.table({"caption": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet:1: the caption is '1', not a text"):
        train(tmp_path, "a.parquet")


def test_null_is_no_caption(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"caption": "a"}\n{"caption": null}\n{"caption": "b"}\n')
    assert [caption for caption, _ in read_captions([str(tmp_path / "a.jsonl")])] == ["a", "b"]
    assert train(tmp_path, "a.jsonl") == 0
