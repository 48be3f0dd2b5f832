"""Readers of image tokenizers whose code no package holds: codes and images equal to those of their own classes."""

from __future__ import annotations

import functools
import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from benchmarks import peers
from models.tokenizers.image import load_image_tokenizer
from models.tokenizers.info import UINT32, CodeShape, square
from tests.support.image_peers import agree_on_codes, installed, spread

COMMAND = "make peer-code"


@pytest.mark.parametrize(("name", "section"), [("VQ-8", "model"), ("VQ-16", "ema")])
def test_llamagen(tmp_path, monkeypatch, name, section):
    vq_model = installed(peers.llamagen, COMMAND)
    for part in ("Encoder", "Decoder"):  # a quarter of the width, which no argument of the model sets
        monkeypatch.setattr(vq_model, part, functools.partial(getattr(vq_model, part), ch=32))
    torch.manual_seed(0)
    model = spread(vq_model.VQ_models[name](codebook_size=512, codebook_embed_dim=8))
    torch.save({section: model.state_dict(), "steps": 7}, tmp_path / "vq.pt")
    spec = f"llamagen:{tmp_path / 'vq.pt'}@64"
    pixels_per_code = int(name.partition("-")[2])
    assert load_image_tokenizer(spec).info.shape == square(64 // pixels_per_code)

    def their_codes(x_BCHW):
        return model.encode(2 * x_BCHW - 1)[2][2].view(len(x_BCHW), -1)

    def their_image(codes_Bhw):
        shape = (len(codes_Bhw), 8, *codes_Bhw.shape[1:])
        return (model.decode_code(codes_Bhw.flatten(), shape) + 1) / 2

    agree_on_codes(spec, their_codes, their_image)


@pytest.mark.parametrize("averaged", [False, True])
def test_open_magvit2(tmp_path, averaged):
    VQModel = installed(peers.open_magvit2, COMMAND)
    network = {
        "double_z": False,
        "z_channels": 18,
        "resolution": 16,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2],
        "num_res_blocks": 2,
    }
    arguments = {
        "ddconfig": network,
        "lossconfig": None,
        "n_embed": 1 << 18,
        "embed_dim": 18,
        "sample_minimization_weight": 1.0,
        "batch_maximization_weight": 1.0,
        "use_ema": averaged,
    }
    torch.manual_seed(0)
    model = spread(VQModel(**arguments))
    weights = model.state_dict()
    if averaged:  # the weights of the last step are others, which the peer does not evaluate either
        weights = {name: value + 1 for name, value in weights.items() if not name.startswith("model_ema.")}
        weights |= {f"model_ema.{name.replace('.', '')}": value for name, value in model.named_parameters()}
    torch.save({"state_dict": weights, "global_step": 3}, tmp_path / "last.ckpt")
    settings = {
        "model": {"class_path": "src.Open_MAGVIT2.models.lfqgan.VQModel", "init_args": arguments},
        "data": {"init_args": {"validation": {"params": {"config": {"size": 32}}}}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    spec = f"open-magvit2:{tmp_path / 'config.yaml'},{tmp_path / 'last.ckpt'}"
    info = load_image_tokenizer(spec).info
    assert (info.vocabulary, info.shape, info.code_type) == (1 << 18, square(8), UINT32)

    def their_codes(x_BCHW):
        return model.encode(2 * x_BCHW - 1)[2].view(len(x_BCHW), -1)

    def their_image(codes_Bhw):
        size = (len(codes_Bhw), *codes_Bhw.shape[1:], 18)
        return (model.decode(model.quantize.get_codebook_entry(codes_Bhw.flatten(1), size, order="")) + 1) / 2

    agree_on_codes(spec, their_codes, their_image)


@pytest.mark.parametrize("is_legacy", [True, False])
def test_titok(tmp_path, monkeypatch, is_legacy):
    TiTok = installed(peers.titok, COMMAND)
    network = {
        "codebook_size": 512,
        "token_size": 12,
        "use_l2_norm": is_legacy,
        "commitment_cost": 0.25,
        "vit_enc_model_size": "small",
        "vit_dec_model_size": "small",
        "vit_enc_patch_size": 16,
        "vit_dec_patch_size": 16,
        "num_latent_tokens": 32,
        "finetune_decoder": is_legacy,
        "is_legacy": is_legacy,
    }
    config = {"model": {"vq_model": network}, "dataset": {"preprocessing": {"crop_size": 32}}}
    torch.manual_seed(0)
    model = spread(TiTok(config))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = f"titok:{tmp_path}"
    info = load_image_tokenizer(spec).info
    assert (info.vocabulary, info.shape, info.image_size) == (512, CodeShape(sequence=32), 32)

    def their_codes(x_BCHW):
        return model.encode(x_BCHW)[1]["min_encoding_indices"]

    agree_on_codes(spec, their_codes, model.decode_tokens)
