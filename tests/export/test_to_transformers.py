"""`export`: a folder that transformers loads where there is no pairmill, with the same logits, codes and tokens."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from models.errors import UserError
from models.export import to_transformers
from models.sampling.checkpoint import find_checkpoint, load_model
from models.sampling.sampler import ImageRequest, SamplingConfig, sample_codes
from models.tokenizers.text import TextTokenizer
from models.transformer.model import Transformer, TransformerConfig, inference_weights
from tests.support.datasets import tiny_text_tokenizer

CAPTIONS = ["A red cat", "a green house in the snow, and nothing more to be seen there"]
NETWORKS: dict[str, dict[str, Any]] = {
    "paper": {"rows": None},
    "paper-rotary": {"rotary": True, "rows": 3},
    "modern": {"recipe": "modern", "rotary": True, "full_attention": True, "dropout": 0.1},
    "sequence": {"rows": 1, "grid": 12},
}
# Runs where no module of pairmill can be imported, as on the machine of one who has the folder alone.
READER = """
import sys
for name in ("models", "pipeline", "beam_jobs"):
    sys.modules[name] = None
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoTokenizer
texts = {captions!r}
codes = torch.from_numpy(np.load("codes.npy"))
found = {{}}
for name in sys.argv[1:]:
    model = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(name)
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    n = model.network.config.codes
    with torch.no_grad():
        whole = model(**inputs, codes=codes[:, :n], labels=codes[:, :n])
        found[name + " logits"], found[name + " loss"] = whole.logits, whole.loss
        found[name + " first"] = model(**inputs, codes=codes[:, :5]).logits
        found[name + " start"] = model(inputs["input_ids"]).logits
    found[name + " drawn"] = model.generate_codes(**inputs, seeds=[3, 4], temperature=0.7)
    for row, text in enumerate(texts):
        found[f"{{name}} tokens {{row}}"] = np.array(tokenizer(text)["input_ids"])
    model.save_pretrained(name + "-saved")
    again = AutoModel.from_pretrained(name + "-saved", trust_remote_code=True)
    found[name + " again"] = again(**inputs, codes=codes[:, :n]).logits.detach()
np.savez("found.npz", **{{name: np.asarray(value) for name, value in found.items()}})
"""


def write_checkpoint(folder: Path, **others) -> Path:
    text = tiny_text_tokenizer()
    sizes = {"text_length": 8, "grid": 4, **others}
    torch.manual_seed(0)
    network = Transformer(TransformerConfig(2, 2, 16, text.info.vocabulary, 30, **sizes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    folder.mkdir()
    save_file(inference_weights(network.state_dict()), folder / "model.safetensors")
    (folder / "text_tokenizer.json").write_text(text.text)
    config = {
        "format": "pairmill-transformer",
        "version": 2,
        "model": dataclasses.asdict(network.config),
        "training": {"blank_captions": 0.1},
        "text_tokenizer": {"fingerprint": text.info.fingerprint},
        "image_tokenizer": {"spec": "codes:mine", "fingerprint": "0" * 64},
        "sampling": {"top_k": 20},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_transformers_loads_it_with_the_same_results(tmp_path):
    if not importlib.util.find_spec("transformers"):
        pytest.skip("transformers is not installed; `make peers` installs it")
    codes = np.random.RandomState(0).randint(0, 30, (2, 16))
    np.save(tmp_path / "codes.npy", codes)
    for name, others in NETWORKS.items():
        checkpoint = write_checkpoint(tmp_path / f"{name}-checkpoint", **others)
        assert to_transformers.main([f"--checkpoint={checkpoint}", f"--output={tmp_path / name}"]) == 0
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = READER.format(captions=CAPTIONS)
    subprocess.run([sys.executable, "-c", script, *NETWORKS], cwd=tmp_path, env=environment, check=True)
    found = np.load(tmp_path / "found.npz")
    for name in NETWORKS:
        check_results(tmp_path / f"{name}-checkpoint", torch.from_numpy(codes), found, name)


def check_results(checkpoint: Path, codes: torch.Tensor, found: dict, name: str) -> None:
    network, _ = load_model(checkpoint)
    text = TextTokenizer.load(checkpoint / "text_tokenizer.json")
    tokens = [text.encode(caption)[: network.config.text_length] for caption in CAPTIONS]
    text_BT = torch.tensor([row + [-1] * (network.config.text_length - len(row)) for row in tokens])
    codes_BN = codes[:, : network.config.codes]
    with torch.no_grad():
        states = network.states(text_BT, codes_BN)[:, network.config.prefix - 1 : -1]
        logits = network.image_head(states)
        first = network.prefill(text_BT)[1]
    torch.testing.assert_close(torch.from_numpy(found[f"{name} logits"]), logits)
    torch.testing.assert_close(torch.from_numpy(found[f"{name} again"]), logits)
    torch.testing.assert_close(torch.from_numpy(found[f"{name} first"]), logits[:, :6])
    torch.testing.assert_close(torch.from_numpy(found[f"{name} start"])[:, 0], first)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes_BN.flatten())
    torch.testing.assert_close(torch.from_numpy(found[f"{name} loss"]), loss)
    sampling = SamplingConfig(temperature=0.7, top_k=20)
    drawn = sample_codes(network, [ImageRequest(row, seed, sampling) for row, seed in zip(tokens, (3, 4), strict=True)])
    assert np.array_equal(found[f"{name} drawn"], drawn)
    for row, caption in enumerate(CAPTIONS):
        assert found[f"{name} tokens {row}"].tolist() == text.encode(caption)


def test_the_folder_is_whole_or_not_there(tmp_path, monkeypatch):
    checkpoint, output = write_checkpoint(tmp_path / "checkpoint"), tmp_path / "new" / "exported"
    with monkeypatch.context() as patch:
        patch.setattr(to_transformers, "tokenizer_config", lambda network: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            to_transformers.export(checkpoint, output)
    assert not output.parent.exists()
    to_transformers.export(checkpoint, output)
    names = {path.name for path in output.iterdir()}
    code = {
        "configuration_pairmill.py",
        "modeling_pairmill.py",
        "model.py",
        "attention.py",
        "batch.py",
        "hashing.py",
        "sampler.py",
    }
    assert names == code | {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    for name in code:
        assert "from models" not in (output / name).read_text() and "import models" not in (output / name).read_text()
    with pytest.raises(UserError, match="exported: exists; name a new folder"):
        to_transformers.export(checkpoint, output)


def test_a_disk_that_fills_while_weights_are_written(tmp_path, monkeypatch):
    """safetensors has an error of its own for it."""

    def fail(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(to_transformers, "save_file", fail)
    with pytest.raises(UserError, match=r"can't write .*out: .*No space left.*make room"):
        to_transformers.export(find_checkpoint("bundled"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="does not exist: give a folder made by `pairmill train`"):
        to_transformers.export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
