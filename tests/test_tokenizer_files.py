"""Files of a tokenizer by way of the work folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline import tokenizer_files


def test_files_arrive_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ["a/model.yaml", "b/model.ckpt", "c/again.ckpt"]
    for name, text in zip(names, ("config", "weights", "weights"), strict=True):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    staged = tokenizer_files.stage(str(tmp_path / "out"), [tmp_path / name for name in names])
    assert tokenizer_files.stage(str(tmp_path / "out"), [tmp_path / name for name in names]) == staged
    assert len(list((tmp_path / "out" / "_work" / "tokenizers").iterdir())) == 2
    copies = tokenizer_files.fetch(staged)
    assert [path.read_text() for path in copies] == ["config", "weights", "weights"]
    assert [path.suffix for path in copies] == [".yaml", ".ckpt", ".ckpt"]
    copies[1].write_text("damaged")
    for path in (tmp_path / "out" / "_work" / "tokenizers").glob("*.yaml"):
        path.unlink()  # a copy that is whole is not asked for again
    assert [path.read_text() for path in tokenizer_files.fetch(staged)] == ["config", "weights", "weights"]


def test_copies_belong_to_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "model.pt").write_text("weights")
    [copy] = tokenizer_files.fetch(tokenizer_files.stage(str(tmp_path / "out"), [Path(tmp_path / "model.pt")]))
    assert copy.parent.stat().st_mode & 0o77 == 0
