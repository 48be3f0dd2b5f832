"""SPECs to image tokenizers: parity with the peers' own classes, and files that are wrong, cut or hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from benchmarks import peers
from models import pixels
from models.errors import UserError
from models.tokenizers import image
from models.tokenizers.dalle_pytorch_vae import DiscreteVAE, DiscreteVAEConfig
from models.tokenizers.dvae import DVAE, DVAEConfig, save_dvae
from models.tokenizers.image import BUNDLED_DVAE, ComputeOptions, load_image_tokenizer
from models.tokenizers.info import square
from models.tokenizers.untrusted_weights import extract_tensors, read_checkpoint
from tests.support.image_peers import agree, installed, spread, views
from tests.support.narrowing import instance

# --- parity ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openai_files(tmp_path_factory) -> tuple[Path, nn.Module, nn.Module]:
    """Encoder and decoder as OpenAI published them: whole modules, pickled by torch.save."""
    Encoder, Decoder = installed(peers.openai)
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("openai")
    encoder = Encoder(n_hid=16, vocab_size=128, requires_grad=False, use_mixed_precision=False)
    decoder = Decoder(n_hid=16, n_init=16, vocab_size=128, requires_grad=False, use_mixed_precision=False)
    torch.save(encoder, folder / "encoder.pkl")
    torch.save(decoder, folder / "decoder.pkl")
    return folder, encoder, decoder


def test_openai_dvae(openai_files):
    folder, encoder, decoder = openai_files

    def their_image(codes_Bhw):
        one_hot = nn.functional.one_hot(codes_Bhw, 128).permute(0, 3, 1, 2).float()
        return pixels.phi_inverse(torch.sigmoid(decoder(one_hot)[:, :3]))

    for spec in (f"openai-dvae:{folder}", f"openai-dvae:{folder / 'encoder.pkl'}"):
        agree(spec, lambda x: encoder(pixels.phi(x)), their_image)


def test_openai_dvae_in_the_format_before_zip(openai_files, tmp_path):
    folder, encoder, decoder = openai_files
    for name, module in (("encoder", encoder), ("decoder", decoder)):
        torch.save(module, tmp_path / f"{name}.pkl", _use_new_zipfile_serialization=False)
    zipped, legacy = (load_image_tokenizer(f"openai-dvae:{base}") for base in (folder, tmp_path))
    view = views(256)[0]
    assert (zipped.encode(view) == legacy.encode(view)).all()


TAMING = {
    "f16": ("VQModel", {"resolution": 128, "ch_mult": [1, 1, 2, 2, 4], "attn_resolutions": [8]}),
    "f8": ("VQModel", {"resolution": 64, "ch_mult": [1, 2, 2, 4], "attn_resolutions": [16, 8], "double_z": True}),
    "f8-gumbel": ("GumbelVQ", {"resolution": 64, "ch_mult": [1, 1, 2, 4], "attn_resolutions": [8]}),
}


def taming_files(folder: Path, name: str) -> tuple[Path, Path, Any]:
    """A yaml and a ckpt as taming-transformers writes them, with a callback's state pickled beside the weights."""
    vqgan = installed(peers.taming)
    kind, network = TAMING[name]
    network = {
        "double_z": False,
        "z_channels": 32,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "num_res_blocks": 1,
        "dropout": 0.0,
    } | network
    width = 64 if network["double_z"] else 32  # their quant_conv takes z_channels: with double_z it is never used so
    params = {"embed_dim": 16, "n_embed": 96, "ddconfig": network, "lossconfig": {"target": "torch.nn.Identity"}}
    if kind == "GumbelVQ":
        params |= {"embed_dim": 32, "kl_weight": 1e-8, "temperature_scheduler_config": {"target": "torch.nn.Identity"}}
    torch.manual_seed(2)
    model = getattr(vqgan, kind)(**params)
    if width == 64:
        model.quant_conv = nn.Conv2d(width, 16, 1)
    spread(model)
    config, checkpoint = folder / "model.yaml", folder / "last.ckpt"
    config.write_text(
        yaml.safe_dump(
            {"model": {"base_learning_rate": 4.5e-6, "target": f"taming.models.vqgan.{kind}", "params": params}}
        )
    )
    torch.save({"state_dict": model.state_dict(), "epoch": 3, "callbacks": {Callback: Callback()}}, checkpoint)
    return config, checkpoint, model


class Callback:
    """Lightning keys the states of callbacks by their classes."""

    best = 0.5


@pytest.mark.parametrize("name", TAMING)
def test_taming(name, tmp_path):
    config, checkpoint, theirs = taming_files(tmp_path, name)
    quantizer = theirs.quantize

    def their_logits(x_BCHW):
        z_BDhw = theirs.quant_conv(theirs.encoder(2 * x_BCHW - 1))
        if hasattr(quantizer, "proj"):
            return quantizer.proj(z_BDhw)
        nearest = theirs.encode(2 * x_BCHW - 1)[2][2].view(len(x_BCHW), *z_BDhw.shape[2:])
        distances = torch.cdist(z_BDhw.permute(0, 2, 3, 1).double(), quantizer.embedding.weight.double()) ** 2
        assert (distances.argmin(-1) == nearest).all()
        return -distances.permute(0, 3, 1, 2).float()

    def their_image(codes_Bhw):
        table = quantizer.embed if hasattr(quantizer, "embed") else quantizer.embedding
        return (theirs.decode(table(codes_Bhw).permute(0, 3, 1, 2)) + 1) / 2

    agree(f"taming:{config},{checkpoint}", their_logits, their_image)


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_diffusers(attention, suffix, tmp_path):
    torch.manual_seed(3)
    down, up = (("Attn" if attention else "") + name for name in ("DownEncoderBlock2D", "UpDecoderBlock2D"))
    theirs = installed(peers.diffusers_vq_model)(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3 + (down,),
        up_block_types=(up,) + ("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=16,
        sample_size=256,
        num_vq_embeddings=96,
        vq_embed_dim=8,
        mid_block_add_attention=attention,
    )
    spread(theirs)
    theirs.quant_conv.weight.data.div_(10)  # latents as wide as the vectors: distances of published size
    theirs.save_pretrained(tmp_path, safe_serialization=suffix == "safetensors")
    assert (tmp_path / f"diffusion_pytorch_model.{suffix}").is_file()

    def their_logits(x_BCHW):
        z_BDhw = theirs.encode(2 * x_BCHW - 1).latents
        nearest = theirs.quantize(z_BDhw)[2][2].view(len(x_BCHW), *z_BDhw.shape[2:])
        distances = torch.cdist(z_BDhw.permute(0, 2, 3, 1).double(), theirs.quantize.embedding.weight.double()) ** 2
        assert (distances.argmin(-1) == nearest).all()
        return -distances.permute(0, 3, 1, 2).float()

    def their_image(codes_Bhw):
        vectors = theirs.quantize.embedding(codes_Bhw).permute(0, 3, 1, 2)
        return (theirs.decode(vectors, force_not_quantize=True).sample + 1) / 2

    agree(f"diffusers:{tmp_path}", their_logits, their_image)


@pytest.mark.parametrize("blocks", [0, 2])
def test_dalle_pytorch(blocks, tmp_path):
    torch.manual_seed(4)
    hparams = {
        "image_size": 64,
        "num_layers": 3,
        "num_tokens": 96,
        "codebook_dim": 24,
        "hidden_dim": 16,
        "num_resnet_blocks": blocks,
    }
    theirs = spread(installed(peers.discrete_vae)(**hparams))
    torch.save({"hparams": hparams, "weights": theirs.state_dict()}, tmp_path / "vae.pt")
    agree(
        f"dalle-pytorch:{tmp_path / 'vae.pt'}",
        lambda x: theirs(x, return_logits=True),
        lambda codes: (theirs.decode(codes.flatten(1)) + 1) / 2,
    )


# --- without peers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def discrete_vae_file(tmp_path) -> Path:
    torch.manual_seed(0)
    hparams = {"image_size": 64, "num_tokens": 32, "codebook_dim": 8, "num_layers": 3, "hidden_dim": 8}
    model = DiscreteVAE(DiscreteVAEConfig(**hparams))
    torch.save({"hparams": hparams, "weights": model.state_dict()}, tmp_path / "vae.pt")
    return tmp_path / "vae.pt"


def test_fingerprint_follows_every_file(discrete_vae_file):
    spec = f"dalle-pytorch:{discrete_vae_file}"
    before = load_image_tokenizer(spec).info
    assert (before.vocabulary, before.shape, before.image_size) == (32, square(8), 64)
    saved = torch.load(discrete_vae_file)
    saved["weights"]["codebook.weight"][0, 0] += 1
    torch.save(saved, discrete_vae_file)
    assert load_image_tokenizer(spec).info.fingerprint != before.fingerprint


def test_images_of_another_size(tiny_dvae):
    """`SPEC@PX`: the same weights on a smaller grid, and not to be taken for codes of the usual one."""
    usual, small = load_image_tokenizer("bundled").info, load_image_tokenizer("bundled@128")
    assert (small.info.shape, small.info.image_size, small.info.spec) == (square(16), 128, "bundled@128")
    assert small.info.vocabulary == usual.vocabulary and small.info.fingerprint != usual.fingerprint
    assert small.info == load_image_tokenizer(small.info.spec).info
    view_HWC = views(256)[0][::2, ::2]
    back_HWC = small.decode(small.encode(view_HWC))
    assert back_HWC.shape == (128, 128, 3)
    assert np.abs(back_HWC.astype(int) - view_HWC).mean() < 20
    for wrong in (100, 0, 4096):
        with pytest.raises(UserError, match="give a multiple of 8 px, up to 2048"):
            load_image_tokenizer(f"{tiny_dvae}@{wrong}")


def test_bfloat16_changes_few_codes(tiny_dvae):
    exact, quick = load_image_tokenizer("bundled"), load_image_tokenizer("bundled", ComputeOptions("bfloat16"))
    changed = np.mean([(exact.encode(view) != quick.encode(view)).mean() for view in views(256)])
    assert 0 < changed < 0.2
    assert exact.info == quick.info


class Hostile:
    """A pickle that makes a file when it is loaded plainly."""

    def __init__(self, path: Path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", ["whole", "beside", "inside"])
def test_code_in_a_pickle_does_not_run(discrete_vae_file, tmp_path, zipped, what):
    trap = tmp_path / "trap"
    saved = torch.load(discrete_vae_file)
    hostile = Hostile(trap)
    saved = {
        "whole": hostile,
        "beside": saved | {"callbacks": hostile},
        "inside": {"hparams": saved["hparams"], "weights": hostile},
    }[what]
    torch.save(saved, discrete_vae_file, _use_new_zipfile_serialization=zipped)
    if what == "beside":
        load_image_tokenizer(f"dalle-pytorch:{discrete_vae_file}")
    else:
        with pytest.raises(UserError):
            load_image_tokenizer(f"dalle-pytorch:{discrete_vae_file}")
    assert not trap.exists()
    torch.load(discrete_vae_file, weights_only=False)  # the trap works
    assert trap.exists()


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Hostile(Path("/nonexistent/trap"))),
        b"",
        b"\x80",
        b"PK\x03\x04",
        b"no weights at all",
        bytes(1000),
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        (1 << 62).to_bytes(8, "little") + b'{"a"',
    ],
)
@pytest.mark.parametrize("kind", ["dvae:{}", "dalle-pytorch:{}", "openai-dvae:{}"])
def test_a_file_of_nonsense_is_told_in_one_line(tmp_path, data, kind):
    path = tmp_path / "weights.pkl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=str(path)) as caught:
        load_image_tokenizer(kind.format(path))
    assert "\n" not in str(caught.value)


def test_truncated_weights(discrete_vae_file):
    data = discrete_vae_file.read_bytes()
    for length in (10, len(data) // 2, len(data) - 10):
        discrete_vae_file.write_bytes(data[:length])
        with pytest.raises(UserError, match="not a readable file of weights"):
            load_image_tokenizer(f"dalle-pytorch:{discrete_vae_file}")


def changed(path: Path, change: Callable[[dict], None]) -> str:
    saved = torch.load(path)
    change(saved)
    torch.save(saved, path)
    return f"dalle-pytorch:{path}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda saved: saved["weights"].pop("codebook.weight"), "no weight codebook.weight"),
        (lambda saved: saved["hparams"].update(num_tokens=33), r"is \[32, 8.*\], but its configuration says \[33, 8"),
        (lambda saved: saved["weights"]["codebook.weight"].fill_(float("nan")), "codebook.weight holds values"),
        (lambda saved: saved["hparams"].update(num_layers="many"), "does not describe a supported model"),
        (
            lambda saved: saved["hparams"].update(num_layers=-1, hidden_dim=-5),
            "does not describe a supported model",
        ),
        (lambda saved: saved.pop("hparams"), "not a checkpoint of DALLE-pytorch's train_vae.py"),
        (lambda saved: saved.update(weights=[1, 2]), "no weight "),
    ],
)
def test_a_checkpoint_that_is_wrong(discrete_vae_file, change, told):
    with pytest.raises(UserError, match=told):
        load_image_tokenizer(changed(discrete_vae_file, change))


def test_a_vocabulary_of_more_than_16_bits(tmp_path, monkeypatch):
    hparams = {"image_size": 64, "num_tokens": 65_537, "codebook_dim": 1, "num_layers": 1, "hidden_dim": 1}
    model = DiscreteVAE(DiscreteVAEConfig(**hparams))
    torch.save({"hparams": hparams, "weights": model.state_dict()}, tmp_path / "vae.pt")
    spec = f"dalle-pytorch:{tmp_path / 'vae.pt'}"
    assert load_image_tokenizer(spec).encode(views(64)[0]).dtype == np.uint32
    monkeypatch.setattr(image, "MAX_VOCABULARY", 65_536)
    with pytest.raises(UserError, match="65,537 codes; shards hold at most 65,536"):
        load_image_tokenizer(spec)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: [", "is not YAML"),
        ("", "does not describe"),
        ("model: {target: taming.models.cond.Net2Net}", "Net2Net"),
        ("model: {target: x.VQModel}", "no 'params'"),
        ("model: {target: x.VQModel, params: {remap: a.npy, n_embed: 1, embed_dim: 1, ddconfig: {}}}", "remap is not"),
    ],
)
def test_a_taming_configuration_that_is_wrong(tmp_path, text, told):
    (tmp_path / "model.yaml").write_text(text)
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=told):
        load_image_tokenizer(f"taming:{tmp_path / 'model.yaml'},{tmp_path / 'last.ckpt'}")


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
        ({"_class_name": "VQModel", "norm_type": "spatial"}, "norm_type"),
        ({"_class_name": "VQModel"}, "no 'in_channels'"),
        ([], "does not describe"),
    ],
)
def test_a_diffusers_configuration_that_is_wrong(tmp_path, described, told):
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=told):
        load_image_tokenizer(f"diffusers:{tmp_path}")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "bundle",
        "taming",
        "taming:",
        "dvae:",
        "vq:x",
        "dvae:/no/such/file",
        "taming:/no/a.yaml,/no/b.ckpt",
        "taming:/no/a.yaml",
        "diffusers:/no",
        "openai-dvae:/no",
    ],
)
def test_a_wrong_spec(spec):
    with pytest.raises(UserError, match="image tokenizer"):
        load_image_tokenizer(spec)


def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program/constants.pkl", b"")
    with pytest.raises(ValueError, match="TorchScript"):
        read_checkpoint(path)


def test_a_module_that_holds_itself_ends(tmp_path):
    module = nn.Linear(2, 2)
    module._modules["self"] = module
    torch.save(module, tmp_path / "module.pt")
    assert extract_tensors(read_checkpoint(tmp_path / "module.pt"))["weight"].shape == (2, 2)


def test_a_dvae_with_nan(tmp_path):
    model = DVAE(DVAEConfig(hidden=8, vocabulary=64, decoder_input=16))
    input_layer = instance(model.decoder.blocks.get_submodule("input"), nn.Conv2d)
    nn.init.constant_(input_layer.weight, float("inf"))
    save_dvae(model, tmp_path / "dvae.safetensors")
    with pytest.raises(UserError, match="not finite"):
        load_image_tokenizer(f"dvae:{tmp_path / 'dvae.safetensors'}")


def test_a_cut_dvae(tmp_path):
    path = tmp_path / "dvae.safetensors"
    path.write_bytes(BUNDLED_DVAE.read_bytes()[:-100])
    with pytest.raises(UserError, match=str(path)):
        load_image_tokenizer(f"dvae:{path}")


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_codes_are_the_same(discrete_vae_file):
    spec = f"dalle-pytorch:{discrete_vae_file}"
    plain, compiled = (load_image_tokenizer(spec, ComputeOptions(compiled=compiled)) for compiled in (False, True))
    different = np.mean([(plain.encode(view) != compiled.encode(view)).mean() for view in views(64)])
    assert different <= 1e-2


def test_compiling_without_a_compiler_is_told(tiny_dvae, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        load_image_tokenizer(tiny_dvae, ComputeOptions(compiled=True))
