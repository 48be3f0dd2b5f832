"""`--init-from`: a run starts from another one's weights, and says what is new."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from models.data.format import read_manifest
from models.errors import UserError
from models.training.distributed import World
from models.training.initial_weights import read_initial_weights, start_from
from models.transformer.model import SIZES, Transformer, TransformerConfig
from tests.support.training import entries, run

pytestmark = pytest.mark.usefixtures("tiny_size")


def test_starts_where_the_other_run_ended(training_dataset, undisturbed, tmp_path, capsys):
    """With another batch, rate, schedule and longer texts; and a resumed run does not start again."""
    options = ("--init-from", undisturbed, "--learning-rate", 1e-5, "--schedule", "cosine", "--batch-size", 2)
    assert run(training_dataset, tmp_path, *options, steps=2) == 0
    assert f"starts from the weights of {undisturbed}; new: nothing" in capsys.readouterr().out
    assert entries(tmp_path)[0]["validation"] == pytest.approx(entries(undisturbed)[-1]["validation"], rel=1e-5)
    assert run(training_dataset, tmp_path, *options, "--resume", steps=3) == 0
    assert "starts from" not in capsys.readouterr().out


def test_from_the_files_to_sample_from(training_dataset, undisturbed, tmp_path, capsys):
    for name in ("model.safetensors", "config.json", "text_tokenizer.json"):
        (tmp_path / name).write_bytes((undisturbed / name).read_bytes())
    run(training_dataset, tmp_path / "run", "--init-from", tmp_path, "--text-length", 20, steps=1)
    new = capsys.readouterr().out
    assert "new: 4 of 20 rows of text_position.weight, 4 of 20 rows of text_padding.weight, text_head.weight" in new
    assert load_file(tmp_path / "run" / "model.safetensors")["text_position.weight"].shape[0] == 20


def test_a_grown_vocabulary_and_another_grid_keep_what_fits(training_dataset, undisturbed):
    manifest = read_manifest(training_dataset)
    described = json.loads((training_dataset / "text_tokenizer.json").read_text())
    vocabulary = described["model"]["vocab"]
    first, last = min(vocabulary, key=vocabulary.get), max(vocabulary, key=vocabulary.get)
    old = dict(vocabulary)
    vocabulary[first], vocabulary[last] = vocabulary[last], vocabulary[first]
    vocabulary["a new token"] = len(vocabulary)
    old_config = TransformerConfig(**json.loads((undisturbed / "config.json").read_text())["model"])
    config = dataclasses.replace(old_config, text_vocabulary=old_config.text_vocabulary + 1, grid=old_config.grid * 2)
    model = Transformer(config)
    new = start_from(model, read_initial_weights(undisturbed, config, manifest, json.dumps(described)), World())
    weights = torch.load(undisturbed / "checkpoint.pt", weights_only=True)["weights"]
    assert f"1 of {config.text_vocabulary:,} rows of text_token.weight" in new
    assert f"{old_config.grid} of {config.grid} rows of row.weight" in new
    assert torch.equal(model.text_token.weight[old[last]], weights["text_token.weight"][old[first]])
    assert torch.equal(model.row.weight[: old_config.grid], weights["row.weight"])
    assert torch.equal(model.code.weight, weights["code.weight"])
    other = dataclasses.replace(
        manifest, image_tokenizer=dataclasses.replace(manifest.image_tokenizer, spec="x", fingerprint="f" * 64)
    )
    new = start_from(model, read_initial_weights(undisturbed, config, other, json.dumps(described)), World())
    assert f"{config.image_vocabulary} of {config.image_vocabulary} rows of code.weight" in new


def test_a_model_that_does_not_fit(training_dataset, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", (3, 2, 64))
    with pytest.raises(UserError, match=r"its model has width 32, the new one 64; give the options"):
        run(training_dataset, tmp_path / "run", "--init-from", undisturbed)
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        run(training_dataset, tmp_path / "run", "--init-from", tmp_path)
