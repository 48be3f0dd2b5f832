"""Drawing: a picture is the same alone or among others, files say what made them, wrong tokenizers are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import generate as drawing
from models.dvae import DVAE, DVAEConfig, save_dvae
from models.errors import UserError
from models.generate import Artist, Sampling, choose, draw, load_artist, picture_grid, picture_seed
from models.image_tokenizers import load_image_tokenizer
from models.train import TrainingConfig, train
from models.transformer import SIZES
from tests.helpers_dataset import one_thread, write_dataset


@pytest.fixture(scope="module", autouse=True)
def quick():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def checkpoint(tiny_dvae, tmp_path_factory) -> Path:
    """Trained for two steps, on pictures of 8 x 8 codes."""
    base = tmp_path_factory.mktemp("generate")
    write_dataset(base / "dataset", train=(4,), val=(), image=load_image_tokenizer(tiny_dvae).info)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (3, 2, 32))
        train(base / "dataset", "tiny", TrainingConfig(2, 4, 1e-2), base / "run")
    return base / "run"


@pytest.fixture(scope="module")
def artist(checkpoint) -> Artist:
    return load_artist(checkpoint)


def run(checkpoint: Path, output: Path, *others: object, prompt: str = "a red cat", count: int = 3) -> int:
    return drawing.main([str(argument) for argument in (
        "--checkpoint", checkpoint, "--prompt", prompt, "--count", count, "--seed", 7, "--output", output, *others)])


def test_writes_pictures_that_say_what_made_them(checkpoint, artist, tmp_path):
    assert run(checkpoint, tmp_path, prompt="a red cat 😺 in the snow") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.png", "0001.png", "0002.png", "grid.png"]
    with Image.open(tmp_path / "0002.png") as image:
        assert image.size == (64, 64)
        assert image.text["prompt"] == "a red cat 😺 in the snow"
        assert (image.text["seed"], image.text["index"]) == ("7", "2")
        assert image.text["image_tokenizer"] == artist.image_tokenizer.info.fingerprint
        assert image.text["text_tokenizer"] == artist.text_tokenizer.info.fingerprint
        assert image.text["model"] == artist.fingerprint
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (128, 128)


def test_a_seed_draws_the_same_pictures_again(checkpoint, tmp_path):
    """And more of them go on from there."""
    run(checkpoint, tmp_path / "a", count=3)
    run(checkpoint, tmp_path / "b", count=drawing.GROUP + 2)
    for name in ("0000.png", "0001.png", "0002.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    run(checkpoint, tmp_path / "c", "--seed", 8, count=1)
    assert (tmp_path / "a" / "0000.png").read_bytes() != (tmp_path / "c" / "0000.png").read_bytes()


def test_a_picture_is_the_same_alone_or_among_others(artist):
    group = drawing.GROUP
    seeds = [picture_seed(0, index) for index in range(2 * group + 1)]
    together = draw(artist.model, [5, 6], seeds)
    assert len({tuple(codes) for codes in together.tolist()}) == len(seeds)
    for index in (0, 2, group, 2 * group):
        assert torch.equal(draw(artist.model, [5, 6], [seeds[index]])[0], together[index])


def test_the_caption_matters(artist):
    assert not torch.equal(draw(artist.model, [5, 6], [1]), draw(artist.model, [9], [1]))


def test_a_long_prompt_is_cut_to_what_the_model_reads(artist):
    tokens = [5] * artist.model.config.text_length
    assert torch.equal(draw(artist.model, tokens + [6] * 1000, [1]), draw(artist.model, tokens, [1]))


@pytest.mark.parametrize("prompt", ["x " * 5000, "😺", "mot à mot"])
def test_any_text_draws(artist, tmp_path, prompt):
    drawing.generate(artist, prompt, 1, 0, tmp_path)
    assert (tmp_path / "0000.png").exists()


# --- choosing codes --------------------------------------------------------------------------------------------------

LOGITS = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]]))


@pytest.mark.parametrize("sampling, kept", [
    (Sampling(), {0, 1, 2, 3}),
    (Sampling(top_k=1), {1}),
    (Sampling(top_k=2), {1, 3}),
    (Sampling(top_k=9), {0, 1, 2, 3}),
    (Sampling(top_p=0.3), {1}),
    (Sampling(top_p=0.6), {1, 3}),
    (Sampling(top_p=0.95), {0, 1, 2, 3}),
    (Sampling(top_k=3, top_p=0.5), {1, 3}),  # of the three that top-k leaves, 0.4 / 0.9 is too little
    (Sampling(temperature=1e-300), {1}),
])
def test_choose_keeps(sampling, kept):
    chances_B = torch.linspace(0, 1 - 2**-24, 1000)
    assert set(choose(LOGITS.expand(1000, -1), chances_B, sampling).tolist()) == kept


def test_choose_follows_the_probabilities():
    chances_B = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(choose(LOGITS.expand(1000, -1), chances_B, Sampling()), minlength=4)
    assert counts.tolist() == [100, 400, 200, 300]
    hot = torch.bincount(choose(LOGITS.expand(1000, -1), chances_B, Sampling(temperature=1e6)), minlength=4)
    assert hot.tolist() == [250] * 4


@pytest.mark.parametrize("count, shape", [(1, (2, 3)), (2, (2, 6)), (3, (4, 6)), (5, (4, 9))])
def test_grids_are_nearly_square(count, shape):
    pictures = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(3, 2).repeat(3, 3)
    grid = picture_grid(pictures)
    assert grid.shape == (*shape, 3)
    assert grid[::2, ::3, 0].flatten().tolist() == [*range(count), *[255] * (shape[0] * shape[1] // 6 - count)]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_another_image_tokenizer(checkpoint, tmp_path):
    torch.manual_seed(1)
    other = DVAE(DVAEConfig(hidden=8, vocabulary=64, decoder_input=16, image_size=64))
    save_dvae(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="was trained on another image tokenizer"):
        run(checkpoint, tmp_path / "out", "--image-tokenizer", f"dvae:{tmp_path}/other.safetensors")


def test_the_image_tokenizer_may_have_moved(checkpoint, tiny_dvae, tmp_path):
    shutil.copy(tiny_dvae.removeprefix("dvae:"), tmp_path / "moved.safetensors")
    assert run(checkpoint, tmp_path / "out", "--image-tokenizer", f"dvae:{tmp_path}/moved.safetensors", count=1) == 0


def test_another_text_tokenizer(checkpoint, tmp_path):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    path = copied / "text_tokenizer.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="was trained on another text tokenizer"):
        load_artist(copied)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "text_tokenizer.json"])
def test_a_missing_file_is_named(checkpoint, tmp_path, name):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    (copied / name).unlink()
    with pytest.raises(UserError, match=name):
        load_artist(copied)


@pytest.mark.parametrize("name, data", [("config.json", b"{"), ("config.json", b"[]"),
                                        ("config.json", b'{"model": {}}'), ("model.safetensors", b"x" * 100)])
def test_a_damaged_file(checkpoint, tmp_path, name, data):
    copied = shutil.copytree(checkpoint, tmp_path / "run")
    (copied / name).write_bytes(data)
    with pytest.raises(UserError, match="is not a checkpoint that can be read"):
        load_artist(copied)


def test_an_output_that_is_a_file(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output .*: File exists"):
        run(checkpoint, tmp_path / "file")


@pytest.mark.parametrize("arguments, said", [
    (("--count", 0), "--count 0: give 1 to 1024"),
    (("--count", 10**9), "give 1 to 1024"),
    (("--prompt", "  "), "--prompt is empty"),
    (("--temperature", 0), "--temperature is above 0"),
    (("--temperature", "nan"), "--temperature is above 0"),
    (("--top-p", 1.5), "--top-p above 0"),
    (("--top-k", -1), "--top-k 0 or more"),
])
def test_wrong_arguments(checkpoint, tmp_path, arguments, said):
    with pytest.raises(UserError, match=said):
        run(checkpoint, tmp_path, *arguments)
