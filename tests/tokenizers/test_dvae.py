"""The dVAE against the paper's formulas, an independent calculation, and openai/DALL-E's own classes."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import tarfile
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from models import pixels
from models.errors import UserError
from models.tokenizers.dvae import DVAE, DVAEConfig, kl_to_uniform, load_dvae, logit_laplace_nll, save_dvae
from models.tokenizers.image import load_image_tokenizer
from models.training import train_dvae
from models.training.distributed import World
from models.training.dvae_images import batches, list_images
from models.training.dvae_options import DVAETrainingConfig
from models.training.dvae_reconstructions import reconstruction_grid
from models.training.schedule import cosine
from models.training.train_dvae import train
from models.training.vector_quantised import VectorQuantisedDVAE, k_means
from tests.support.narrowing import instance, required

SMALL = DVAEConfig(hidden=8, vocabulary=32, decoder_input=16, image_size=64)


@pytest.fixture
def model() -> DVAE:
    torch.manual_seed(0)
    return DVAE(SMALL).eval()


def test_published_sizes():
    """53.8 and 43.8 million parameters, as the published encoder and decoder have."""
    with torch.device("meta"):
        published = DVAE(DVAEConfig())
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (published.encoder, published.decoder)]
    assert sizes == pytest.approx([53.8, 43.8], abs=0.1)
    assert published.config.grid == 32


def test_shapes(model):
    x_BCHW = torch.rand(2, 3, 64, 64)
    assert model.logits(x_BCHW).shape == (2, 32, 8, 8)
    codes_Bhw = model.encode(x_BCHW)
    assert codes_Bhw.shape == (2, 8, 8) and codes_Bhw.dtype == torch.int64
    decoded = model.decode(codes_Bhw)
    assert decoded.shape == (2, 3, 64, 64) and 0 <= decoded.min() <= decoded.max() <= 1


def test_initialisation_is_the_papers():
    blocks = DVAE(DVAEConfig(hidden=64, vocabulary=64)).encoder.blocks
    conv = instance(blocks.get_submodule("group_4.block_2.res_path.conv_2"), torch.nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx(1 / math.sqrt(conv.in_channels * 9), rel=0.02)
    assert not required(conv.bias).any()


def test_blocks_add_a_sixty_fourth(model):
    block = model.encoder.blocks.group_1.block_2
    x = torch.rand(1, 8, 4, 4)
    torch.testing.assert_close(block(x) - x, block.res_path(x) / 64)


def test_decoding_codes_equals_decoding_one_hots(model):
    codes_Bhw = torch.randint(0, 32, (2, 8, 8))
    one_hot = torch.nn.functional.one_hot(codes_Bhw, 32).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(model.decoder.from_codes(codes_Bhw), model.decoder(one_hot))


@pytest.mark.parametrize(("n_hid", "vocabulary"), [(16, 64), (32, 128)])
def test_parity_with_openais_classes(n_hid, vocabulary):
    """Same weights, same images: the same logits, codes and decoded maps."""
    pytest.importorskip("dall_e", reason="needs openai/DALL-E: pip install --no-deps DALL-E==0.1 attrs blobfile")
    from dall_e.decoder import Decoder
    from dall_e.encoder import Encoder

    torch.manual_seed(1)
    ours = DVAE(DVAEConfig(hidden=n_hid, vocabulary=vocabulary, decoder_input=16)).eval()
    theirs = (
        Encoder(n_hid=n_hid, vocab_size=vocabulary, requires_grad=False, use_mixed_precision=False),
        Decoder(n_hid=n_hid, n_init=16, vocab_size=vocabulary, requires_grad=False, use_mixed_precision=False),
    )
    for mine, peer in zip((ours.encoder, ours.decoder), theirs, strict=True):
        state = {name.replace("weight", "w").replace("bias", "b"): value for name, value in mine.state_dict().items()}
        peer.load_state_dict(state)
    with torch.no_grad():
        x_BCHW = pixels.phi(torch.rand(2, 3, 64, 64))
        logits = ours.encoder(x_BCHW)
        torch.testing.assert_close(logits, theirs[0](x_BCHW), rtol=1e-4, atol=1e-4)
        assert (logits.argmax(1) == theirs[0](x_BCHW).argmax(1)).all()
        one_hot = torch.nn.functional.one_hot(logits.argmax(1), vocabulary).permute(0, 3, 1, 2).float()
        torch.testing.assert_close(ours.decoder(one_hot), theirs[1](one_hot), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "ln_b"), [(0.0, 0.0), (1.5, -1.0), (-2.0, 0.7)])
def test_logit_laplace_is_a_density(mean, ln_b):
    """exp(-nll) integrates to one over (0, 1)."""
    edges = 1 / (1 + np.exp(-np.linspace(-40, 40, 400_001)))  # dense where the density is steep
    x = torch.tensor((edges[1:] + edges[:-1]) / 2)
    maps = torch.tensor([mean] * 3 + [ln_b] * 3, dtype=torch.float64).view(1, 6, 1, 1).expand(1, 6, 1, len(x))
    nll = logit_laplace_nll(x.view(1, 1, 1, -1).expand(1, 3, 1, -1), maps)[0, 0, 0].double()
    inside = torch.isfinite(nll)
    assert (torch.exp(-nll) * torch.tensor(np.diff(edges)))[inside].sum().item() == pytest.approx(1, abs=2e-4)


def test_kl_by_hand():
    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.125])
    by_hand = sum(p * math.log(p / 0.25) for p in probabilities.tolist())
    assert kl_to_uniform(probabilities.log().view(1, 4, 1, 1)).item() == pytest.approx(by_hand, rel=1e-6)
    assert kl_to_uniform(torch.zeros(1, 4, 1, 1)).item() == pytest.approx(0, abs=1e-6)


def test_schedules_are_the_papers():
    config = DVAETrainingConfig(steps=3_000_000, learning_rate=1e-4)
    assert config.temperature(0) == 1 and config.temperature(150_000) == config.temperature(2_000_000) == 1 / 16
    assert config.temperature(75_000) == pytest.approx((1 + 1 / 16) / 2)
    assert config.kl_weight_at(0) == 0 and config.kl_weight_at(5_000) == 6.6
    assert config.learning_rate_at(1_200_000) == pytest.approx(1.25e-6)
    assert cosine(2, 1, 50, 100) == pytest.approx(1.5)


def test_saved_and_loaded(model, tmp_path):
    path = tmp_path / "dvae.safetensors"
    save_dvae(model, path)
    loaded = load_dvae(path)
    assert loaded.config == SMALL
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-4)  # stored in 16 bits
    assert [file.name for file in tmp_path.iterdir()] == ["dvae.safetensors"]


def test_tokenizer_goes_both_ways(tiny_dvae):
    tokenizer = load_image_tokenizer(tiny_dvae)
    view = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    codes = tokenizer.encode(view)
    assert codes.shape == (64,) and codes.dtype == np.uint16 and len(tokenizer.info.fingerprint) == 64
    assert tokenizer.decode(codes).shape == (64, 64, 3)
    with pytest.raises(ValueError, match="64 is not in a vocabulary of 64"):
        tokenizer.decode(np.full(64, 64, np.uint16))


# --- training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    """A tar file of coloured squares, one damaged image among them."""
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        for number in range(40):
            buffer = io.BytesIO()
            Image.fromarray(np.tile(rng.integers(0, 256, (1, 1, 3), np.uint8), (80, 100, 1))).save(buffer, "PNG")
            data = buffer.getvalue() if number else b"no picture"
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(tmp_path / "*.tar")


def fresh() -> DVAE:
    torch.manual_seed(0)
    return DVAE(SMALL)


@pytest.mark.parametrize("method, killed_at", [("relaxed", 3), ("quantised", 1), ("quantised", 3)])
def test_training_resumed_gives_the_same_weights(images, tmp_path, monkeypatch, method, killed_at):
    config = DVAETrainingConfig(steps=5, batch_size=4, window=32, method=method)
    assert config.codes_from in (0, 1)  # resumed as the codes begin, and after
    train(images, fresh(), config, tmp_path / "whole", resume=False, report_every=1)
    real, steps = train_dvae.average_gradients, iter(range(100))

    def killed(*arguments):
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(train_dvae, "average_gradients", killed)
    with pytest.raises(KeyboardInterrupt):
        train(images, fresh(), config, tmp_path / "halves", resume=False, report_every=1)
    monkeypatch.setattr(train_dvae, "average_gradients", real)
    train(images, fresh(), config, tmp_path / "halves", resume=True, report_every=1)
    whole, halves = ((tmp_path / name / "dvae.safetensors").read_bytes() for name in ("whole", "halves"))
    assert whole == halves


def test_a_run_killed_before_its_checkpoint_logs_each_step_once(images, tmp_path, monkeypatch):
    config = DVAETrainingConfig(steps=4, batch_size=4, window=32)
    train(images, fresh(), config, tmp_path / "whole", resume=False, report_every=1)
    save = train_dvae._save

    def killed(output, state, config, step):
        if step == 3:
            raise KeyboardInterrupt
        save(output, state, config, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_dvae, "_save", killed)
        train(images, fresh(), config, tmp_path / "halves", resume=False, report_every=1)
    with open(tmp_path / "halves" / "log.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    train(images, fresh(), config, tmp_path / "halves", resume=True, report_every=1)
    whole, halves = ((tmp_path / name / "log.jsonl").read_bytes() for name in ("whole", "halves"))
    assert halves == whole and [json.loads(line)["step"] for line in whole.splitlines()] == [1, 2, 3, 4]


class OnDevice(torch.Tensor):
    """As the tensors of an accelerator: NumPy reads them only after a copy to the CPU."""

    def cpu(self, memory_format: torch.memory_format = torch.preserve_format) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    def numpy(self, *, force: bool = False) -> NoReturn:
        raise TypeError("can't convert a tensor of a device to numpy")


def test_the_grid_of_reconstructions_is_made_on_any_device(model):
    x_BCHW = torch.rand(3, 3, 64, 64)
    expected = reconstruction_grid(model, x_BCHW)
    with Image.open(io.BytesIO(expected)) as image:
        assert image.size == (3 * 64, 2 * 64)
    assert reconstruction_grid(model, x_BCHW.as_subclass(OnDevice)) == expected


def test_training_refuses_to_mix_runs(images, tmp_path):
    config = DVAETrainingConfig(steps=2, batch_size=2, window=32)
    train(images, fresh(), config, tmp_path / "out", resume=False)
    with pytest.raises(UserError, match="continue it with --resume"):
        train(images, fresh(), config, tmp_path / "out", resume=False)
    with pytest.raises(UserError, match="batch_size 2 -> 3"):
        train(images, fresh(), DVAETrainingConfig(2, batch_size=3, window=32), tmp_path / "out", resume=True)


def test_held_out_images_stay_the_same(images):
    training, held_out = list_images(images)
    assert len(training) + len(held_out) == 40 and not {m.name for m in training} & {m.name for m in held_out}


@pytest.fixture
def quantised():
    torch.manual_seed(0)
    learner = VectorQuantisedDVAE(DVAE(SMALL))
    learner.init_codebook([torch.rand(4, 3, 64, 64) for _ in range(3)], seed=0)
    return learner


def test_codes_begin_at_the_centres_of_the_latents():
    learner = VectorQuantisedDVAE(fresh())
    assert not learner.has_codes
    kept = learner.init_codebook([torch.rand(4, 3, 64, 64) for _ in range(3)], seed=0)
    assert 0.2 < kept < 1 and learner.has_codes


def test_folded_is_the_model_that_was_trained(quantised):
    """Its codes are the nearest centres, its images those of the decoder at full gain."""
    x_BCHW = torch.rand(2, 3, 64, 64)
    model = quantised.to_dvae()
    with torch.no_grad():
        latents_BLhw = quantised.latents(x_BCHW)
        nearest = quantised.nearest(latents_BLhw.permute(0, 2, 3, 1).flatten(0, 2)).reshape(2, 8, 8)
        assert len(nearest.unique()) > 8
        assert (model.encode(x_BCHW) == nearest).float().mean() > 0.99
        centres_BLhw = quantised.centres_VL[nearest].permute(0, 3, 1, 2)
        trained = quantised.trunk.decoder.blocks[1:](quantised.from_latent(centres_BLhw))
        assert torch.allclose(model.decoder.from_codes(nearest), trained, atol=1e-4)


def test_codes_follow_their_latents_and_unused_ones_begin_again(quantised):
    latents_NL = torch.randn(64, quantised.centres_VL.shape[1])
    codes_N = torch.zeros(64, dtype=torch.int64)
    before_L = quantised.centres_VL[0].clone()
    counts_V = quantised.counts_V.clone()
    quantised.update_codebook(latents_NL, codes_N, None, World())
    sums_L = 0.97 * before_L * counts_V[0] + 0.03 * latents_NL.sum(0)
    assert torch.allclose(quantised.centres_VL[0], sums_L / (0.97 * counts_V[0] + 0.03 * 64), atol=1e-5)
    for _ in range(300):
        quantised.update_codebook(latents_NL, codes_N, None, World())
    assert (quantised.counts_V[1:] < 0.03).all()
    quantised.update_codebook(latents_NL, codes_N, torch.Generator().manual_seed(0), World())
    distance = torch.cdist(quantised.centres_VL[1:], latents_NL).min(1).values
    assert (quantised.counts_V >= 0.03).all() and distance.max() < 1e-2  # cdist rounds


def test_only_the_density_trains_the_scale(quantised):
    terms, _, _ = quantised.losses(torch.rand(2, 3, 32, 32))
    output = quantised.trunk.decoder.blocks.output.conv.weight
    (of_error,) = torch.autograd.grad(terms["squared_error"], output, retain_graph=True)
    (of_density,) = torch.autograd.grad(terms["nll"], output, retain_graph=True)
    assert of_error[:3].abs().max() > 0 and not of_error[3:].any()
    assert of_density[3:].abs().max() > 0 and not of_density[:3].any()
    (narrow,) = torch.autograd.grad(terms["nll"], quantised.to_latent.weight, allow_unused=True)
    assert narrow is None or not narrow.any()


def test_k_means_finds_clusters():
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = middles.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=torch.Generator().manual_seed(0))
    found = k_means(points, 12, torch.Generator().manual_seed(0))
    assert torch.cdist(middles, found).min(1).values.max() < 0.2


def test_ranks_share_a_batch(images):
    members, _ = list_images(images)
    config = DVAETrainingConfig(steps=3, batch_size=4, window=32)
    whole = list(batches(members, config.batch_plan, 0))
    halves = [list(batches(members, config.batch_plan, 0, rank, 2)) for rank in range(2)]
    broken = 0  # where a image is broken, the next one takes its place in its own half
    for step, x_BCHW in enumerate(whole):
        together = torch.cat([half[step] for half in halves])
        broken += not torch.equal(together, x_BCHW)
    assert broken <= 1


def test_two_processes_train_together(images, tmp_path):
    pairmill = os.path.join(os.path.dirname(sys.executable), "pairmill")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
        pairmill,
        "train-dvae",
        "--images",
        images,
        "--steps=5",
        "--method=quantised",
        "--batch-size=4",
        "--window=16",
        "--hidden=8",
        "--vocabulary=16",
        "--threads=1",
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1 and json.loads((tmp_path / "out" / "log.jsonl").read_text())["step"] == 5


def test_a_batch_is_shared_out_evenly(images, tmp_path):
    with pytest.raises(UserError, match="--batch-size 3: give a multiple of 2, the number of processes"):
        train(images, fresh(), DVAETrainingConfig(2, batch_size=3), tmp_path / "out", resume=False, world=World(0, 2))
