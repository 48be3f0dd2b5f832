"""Forms in which others store a network that is known: they give the codes of the plain form."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from models.device import available_processors
from models.errors import UserError
from models.tokenizers.image import load_image_tokenizer
from models.tokenizers.vqgan import VQGAN, from_diffusers, from_taming

NETWORK = {
    "double_z": False,
    "z_channels": 32,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
}
PARAMS = {"embed_dim": 8, "n_embed": 24, "ddconfig": NETWORK}
VIEW = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return VQGAN(from_taming({"target": "taming.models.vqgan.VQModel", "params": PARAMS})).state_dict()


def codes(folder: Path, target: str, params: dict, state: dict) -> list[int]:
    (folder / "model.yaml").write_text(yaml.safe_dump({"model": {"target": target, "params": params}}))
    torch.save(state, folder / "last.ckpt")
    return load_image_tokenizer(f"taming:{folder / 'model.yaml'},{folder / 'last.ckpt'}").encode(VIEW).tolist()


@pytest.fixture(scope="module")
def expected(weights, tmp_path_factory) -> list[int]:
    return codes(tmp_path_factory.mktemp("plain"), "taming.models.vqgan.VQModel", PARAMS, weights)


@pytest.mark.parametrize("target", ["taming.models.vqgan.VQNoDiscModel", "ldm.models.autoencoder.VQModelInterface"])
def test_classes_with_the_same_network(weights, expected, tmp_path, target):
    assert codes(tmp_path, target, PARAMS, {"state_dict": weights}) == expected


@pytest.mark.parametrize("target", ["taming.models.cond_transformer.Net2NetTransformer", "ldm.ddpm.LatentDiffusion"])
def test_a_first_stage(weights, expected, tmp_path, target):
    first = {"target": "taming.models.vqgan.VQModel", "params": PARAMS}
    state = {f"first_stage_model.{name}": value for name, value in weights.items()} | {"transformer.x": torch.ones(2)}
    assert codes(tmp_path, target, {"first_stage_config": first}, {"state_dict": state}) == expected


def test_names_after_module(weights, expected, tmp_path):
    state = {f"module.{name}": value for name, value in weights.items()}
    assert codes(tmp_path, "taming.models.vqgan.VQModel", PARAMS, {"state_dict": state}) == expected


@pytest.mark.parametrize("kind", [lambda value: value.clone(), torch.nn.Parameter], ids=["tensor", "parameter"])
def test_tensors_with_a_python_attribute(weights, expected, tmp_path, kind):
    state = {}
    for name, value in weights.items():
        state[name] = kind(value)
        state[name].sharding = ("replicated",)
    assert codes(tmp_path, "taming.models.vqgan.VQModel", PARAMS, state) == expected


def test_attention_of_another_kind_is_refused(weights, tmp_path):
    params = PARAMS | {"ddconfig": NETWORK | {"attn_type": "none"}}
    with pytest.raises(UserError, match=r"ddconfig\.attn_type 'none' is not supported"):
        codes(tmp_path, "ldm.models.autoencoder.VQModelInterface", params, weights)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_diffusers_folder_with_16_bit_weights_alone(tmp_path, suffix):
    described = {
        "_class_name": "VQModel",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [32],
        "layers_per_block": 1,
        "latent_channels": 8,
        "num_vq_embeddings": 24,
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    weights = {name: value.half() for name, value in VQGAN(from_diffusers(described)).state_dict().items()}
    path = tmp_path / f"diffusion_pytorch_model.fp16.{suffix}"
    if suffix == "bin":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    assert load_image_tokenizer(f"diffusers:{tmp_path}@32").encode(VIEW).shape == (32 * 32,)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_threads_are_those_of_the_process():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert available_processors() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert available_processors() == len(allowed)
