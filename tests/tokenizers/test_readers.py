"""Readers of LlamaGen, Open-MAGVIT2 and TiTok without their own code: laws of their codes, and files that are wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.errors import UserError
from models.tokenizers import titok
from models.tokenizers.image import load_image_tokenizer
from models.tokenizers.info import CodeShape
from models.tokenizers.llamagen import config_from, renamed
from models.tokenizers.open_magvit2 import OpenMAGVIT2
from models.tokenizers.titok import TiTok
from models.tokenizers.vqgan import VQGAN, VQGANConfig
from tests.support.lookup_free import settings, write_files
from tests.support.narrowing import instance


def view(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)


def test_bits_of_a_lookup_free_code_are_signs(tmp_path):
    tokenizer = load_image_tokenizer(write_files(tmp_path))
    codes_N = tokenizer.encode(view(32))
    assert codes_N.dtype == np.uint32 and codes_N.shape == (64,) and codes_N.max() > 1 << 16
    assert tokenizer.decode(codes_N).shape == (32, 32, 3)
    assert load_image_tokenizer(f"{tokenizer.info.spec}@64").info.shape == CodeShape(grid=(16, 16))
    model = instance(tokenizer._model, OpenMAGVIT2)
    with torch.inference_mode():
        z_1Lhw = model.encoder(2 * torch.rand(1, 3, 32, 32, generator=torch.manual_seed(1)) - 1)
        codes_1hw = model.encode(torch.rand(1, 3, 32, 32, generator=torch.manual_seed(1)))
    by_hand = [sum(1 << i for i, z in enumerate(latent) if z > 0) for latent in z_1Lhw[0].flatten(1).t().tolist()]
    assert codes_1hw.flatten().tolist() == by_hand


@pytest.mark.parametrize(
    ("described", "told"),
    [
        (settings(n_embed=1 << 17), "n_embed is not 2 to the power of embed_dim"),
        (settings(embed_dim="x"), "does not describe|invalid literal"),
        (settings() | {"model": {"class_path": "src.IBQ.models.ibqgan.IBQ"}}, "only VQModel of lfqgan"),
        ({"data": {}}, "does not describe a supported model: 'model'"),
        (settings(use_ema=True), "has no weight encoder.conv_in.weight"),
    ],
)
def test_lookup_free_files_that_are_wrong(tmp_path, described, told):
    with pytest.raises(UserError, match=told):
        load_image_tokenizer(write_files(tmp_path, described))


TITOK = {
    "codebook_size": 64,
    "token_size": 12,
    "use_l2_norm": True,
    "vit_enc_model_size": "small",
    "vit_dec_model_size": "small",
    "vit_enc_patch_size": 16,
    "vit_dec_patch_size": 16,
    "num_latent_tokens": 8,
    "finetune_decoder": False,
    "is_legacy": False,
}


def described(**changes) -> dict:
    return {"model": {"vq_model": TITOK | changes}, "dataset": {"preprocessing": {"crop_size": 32}}}


def test_titok(tmp_path, monkeypatch):
    monkeypatch.setitem(titok.SIZES, "small", (32, 1, 2))
    torch.manual_seed(0)
    model = TiTok(titok.from_json(described()))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(described()))
    tokenizer = load_image_tokenizer(f"titok:{tmp_path}")
    assert (tokenizer.info.shape, tokenizer.info.vocabulary) == (CodeShape(sequence=8), 64)
    codes_N = tokenizer.encode(view(32))
    assert codes_N.shape == (8,) and len(set(codes_N.tolist())) > 1
    assert tokenizer.decode(codes_N).shape == (32, 32, 3)
    with pytest.raises(UserError, match="images of 32 px alone"):
        load_image_tokenizer(f"titok:{tmp_path}@64")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"quantize_mode": "vae"}, "only vq has codes"),
        ({"is_legacy": True}, "only models that decode to pixels"),
        ({"vit_enc_model_size": "giant"}, "does not describe a supported model: 'giant'"),
        ({"num_latent_tokens": 0}, "give one of grid, sequence and scales"),
    ],
)
def test_titok_folders_that_are_wrong(tmp_path, changes, told):
    (tmp_path / "config.json").write_text(json.dumps(described(**changes)))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=told):
        load_image_tokenizer(f"titok:{tmp_path}")


def test_llamagen_sizes_follow_from_the_weights(tmp_path):
    """Weights named as LlamaGen names them; what each name means, the peer's own code shows in test_peer_code."""
    config = VQGANConfig(
        vocabulary=16,
        code_width=4,
        latent=8,
        input_width=32,
        widths=(32, 64),
        blocks=2,
        encoder_attention=(False, True),
        decoder_attention=(False, True),
        normalised=True,
    )
    weights = VQGAN(config).state_dict()
    theirs = {llamagen_name(name): value for name, value in weights.items()}
    assert config_from(theirs) == config and renamed(theirs, 2).keys() == weights.keys()
    torch.save({"model": theirs}, tmp_path / "vq.pt")
    tokenizer = load_image_tokenizer(f"llamagen:{tmp_path / 'vq.pt'}@64")
    assert tokenizer.info.shape == CodeShape(grid=(32, 32)) and tokenizer.encode(view(64)).shape == (1024,)
    scaled = theirs | {"quantize.embedding.weight": 3 * theirs["quantize.embedding.weight"]}
    torch.save({"ema": scaled, "model": {}}, tmp_path / "scaled.pt")
    codes = load_image_tokenizer(f"llamagen:{tmp_path / 'scaled.pt'}@64").encode(view(64))
    assert np.array_equal(codes, tokenizer.encode(view(64)))  # only directions count


def llamagen_name(name: str) -> str:
    for new, old in (("block_1", "0"), ("attn_1", "1"), ("block_2", "2")):
        name = name.replace(f"mid.{new}.", f"mid.{old}.")
    for number in (0, 1):
        name = name.replace(f"encoder.down.{number}.block.", f"encoder.conv_blocks.{number}.res.")
        name = name.replace(f"encoder.down.{number}.", f"encoder.conv_blocks.{number}.")
        name = name.replace(f"decoder.up.{number}.block.", f"decoder.conv_blocks.{1 - number}.res.")
        name = name.replace(f"decoder.up.{number}.", f"decoder.conv_blocks.{1 - number}.")
    return name


def test_another_checkpoint_is_not_llamagens(tmp_path):
    torch.save({"model": {"encoder.conv_in.weight": torch.zeros(4, 3, 3, 3)}}, tmp_path / "vq.pt")
    with pytest.raises(UserError, match="not a checkpoint of LlamaGen's image tokenizer: no 'quantize"):
        load_image_tokenizer(f"llamagen:{tmp_path / 'vq.pt'}")
