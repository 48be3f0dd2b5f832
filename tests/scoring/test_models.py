"""Contrastive models from folders: parity with the peers' own classes on random weights, and folders that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks import tiny_clip
from models.errors import UserError
from models.scoring import model_folder
from models.scoring.embedder import Embedder, cosines
from models.scoring.model_folder import LoadedModel, load_model, model_files
from models.scoring.network import ContrastiveModel
from tests.support.contrastive import MODEL, SIZE, word_tokenizer, write_model

pytestmark = pytest.mark.filterwarnings("ignore:Failed to load image Python extension")
CLOSE = 1e-5
IMAGES = [np.random.RandomState(i).randint(0, 256, (40 + 9 * i, 70, 3)).astype(np.uint8) for i in range(3)]
TOKENS = torch.tensor([[57, 3, 7, 58, 59] + [0] * 7, [57, 5, 59] + [0] * 9])


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="make peers installs it")


def write(folder: Path, settings: dict[str, Any], weights: dict[str, torch.Tensor], name: str, pad: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad}))
    save_file({key: weight.contiguous().clone() for key, weight in weights.items()}, folder / "model.safetensors")
    word_tokenizer(["a", "red", "cat"]).save(str(folder / "tokenizer.json"))
    return folder


Network = TypeVar("Network", bound=torch.nn.Module)


def spread(model: Network) -> Network:
    """Weights of a size at which a wrong activation, norm or pool shows."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    return model.eval()


def same_embeddings(ours: LoadedModel, images: Callable, texts: Callable, tokens: torch.Tensor = TOKENS) -> None:
    pixels = torch.from_numpy(np.stack([ours.images.prepare(image) for image in IMAGES]))
    with torch.inference_mode():
        for actual, expected in (
            (ours.network.embed_images(pixels), images(pixels)),
            (ours.network.embed_texts(tokens), texts(tokens)),
        ):
            expected = torch.nn.functional.normalize(expected, dim=-1)
            assert actual.std(dim=0).mean() > 1e-3, "embeddings that do not depend on the input"
            assert (actual - expected).abs().max() < CLOSE


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_clip_of_open_clip(open_clip, tmp_path, quick_gelu):
    theirs = spread(open_clip.CLIP(**MODEL, quick_gelu=quick_gelu))
    settings = {"model_cfg": MODEL | {"quick_gelu": quick_gelu}, "preprocess_cfg": {}}
    ours = load_model(model_files(write(tmp_path, settings, theirs.state_dict(), "open_clip_config.json")))
    same_embeddings(ours, theirs.encode_image, theirs.encode_text)
    look = open_clip.image_transform(SIZE, is_train=False)
    for image in IMAGES:
        assert np.abs(look(Image.fromarray(image)).numpy() - ours.images.prepare(image)).max() < 1e-6


def test_custom_text_of_open_clip(open_clip, tmp_path):
    theirs = spread(open_clip.CustomTextCLIP(**MODEL))
    folder = write(tmp_path, {"model_cfg": MODEL | {"custom_text": True}}, theirs.state_dict(), "open_clip_config.json")
    same_embeddings(load_model(model_files(folder)), theirs.encode_image, theirs.encode_text)


def test_siglip_of_open_clip(open_clip, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm", reason="make peers installs it")

    def vit_tiny_patch16_siglip_32(pretrained: bool = False, **settings: Any) -> torch.nn.Module:
        size = {"img_size": SIZE, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 1}
        kept = {name: settings[name] for name in ("num_classes", "global_pool") if name in settings}
        return timm.models.VisionTransformer(**size | {"class_token": False, "global_pool": "map"} | kept)

    vit_tiny_patch16_siglip_32.__module__ = "timm.models.vision_transformer"
    monkeypatch.setitem(
        timm.models._registry._model_entrypoints, "vit_tiny_patch16_siglip_32", vit_tiny_patch16_siglip_32
    )
    config = {
        "embed_dim": 64,
        "custom_text": True,
        "vision_cfg": {"image_size": SIZE, "timm_model_name": "vit_tiny_patch16_siglip_32", "timm_pool": "map"}
        | {"timm_proj": "none", "timm_model_pretrained": False},
        "text_cfg": MODEL["text_cfg"]
        | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
        | {"tokenizer_kwargs": {"clean": "canonicalize"}},
    }
    own = {name: value for name, value in config.items() if name != "custom_text"}
    theirs = spread(open_clip.CustomTextCLIP(**own))
    settings = {"model_cfg": config, "preprocess_cfg": {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3}}
    ours = load_model(model_files(write(tmp_path, settings, theirs.state_dict(), "open_clip_config.json")))
    same_embeddings(ours, theirs.encode_image, theirs.encode_text)
    look = open_clip.image_transform(SIZE, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3, resize_mode="squash")
    assert np.abs(look(Image.fromarray(IMAGES[1])).numpy() - ours.images.prepare(IMAGES[1])).max() < 1e-6
    assert ours.texts.prepare("A red, cat!").tolist()[:6] == [4, 0, 1, 2, 5, 0]


TOWER = {"num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TOWER | {"hidden_size": 64, "intermediate_size": 96, "image_size": SIZE, "patch_size": 16}
TEXT = TOWER | {"hidden_size": 32, "intermediate_size": 80, "vocab_size": 60, "max_position_embeddings": 12}


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_of_transformers(transformers, tmp_path, activation):
    text = TEXT | {"eos_token_id": 59, "hidden_act": activation}
    settings = {"vision_config": VISION | {"hidden_act": activation}, "text_config": text, "projection_dim": 24}
    theirs = spread(transformers.CLIPModel(transformers.CLIPConfig(**settings)))
    folder = write(tmp_path, {"model_type": "clip"} | settings, theirs.state_dict(), "config.json")
    same_embeddings(
        load_model(model_files(folder)),
        lambda pixels: theirs(pixel_values=pixels, input_ids=TOKENS).image_embeds,
        lambda tokens: theirs(pixel_values=torch.zeros(1, 3, SIZE, SIZE), input_ids=tokens).text_embeds,
    )


def test_siglip_of_transformers(transformers, tmp_path):
    settings = {"vision_config": VISION | {"hidden_size": 32}, "text_config": TEXT | {"projection_size": 32}}
    theirs = spread(transformers.SiglipModel(transformers.SiglipConfig(**settings)))
    folder = write(tmp_path, {"model_type": "siglip"} | settings, theirs.state_dict(), "config.json")
    ours = load_model(model_files(folder))
    assert ours.images.is_squashed and ours.images.mean == (0.5, 0.5, 0.5)
    same_embeddings(
        ours,
        lambda pixels: theirs(pixel_values=pixels, input_ids=TOKENS).image_embeds,
        lambda tokens: theirs(pixel_values=torch.zeros(1, 3, SIZE, SIZE), input_ids=tokens).text_embeds,
    )


def test_the_older_files_of_clip_s_tokenizer(open_clip):
    theirs = open_clip.SimpleTokenizer()
    merges = [" ".join(pair) for pair in sorted(theirs.bpe_ranks, key=theirs.bpe_ranks.get)]
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    ours = model_folder._clip_tokenizer({names.get(piece, piece): i for piece, i in theirs.encoder.items()}, merges)
    for caption in ("A red cat's hat, 12 times!", "naïve  café — 日本 🙂", "don't <b> underscore_d"):
        expected = theirs([caption])[0]
        assert ours.encode(caption).ids == expected[: int(expected.argmax()) + 1].tolist()


# --- without peers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_model(tmp_path / "clip")


def test_embeddings_do_not_depend_on_threads_or_on_what_follows(folder):
    model = load_model(model_files(folder))
    one, four = Embedder(model, threads=1), Embedder(model, threads=4)
    prepared = [one.prepare(IMAGES[i % 3], f"a red cat, number {i}") for i in range(21)]
    whole = one.embed(prepared)
    assert whole.image_BE.shape == (21, one.width) and whole.image_BE.dtype == np.float16
    for first, other in ((0, four.embed(prepared)), (0, one.embed(prepared[:13])), (5, one.embed(prepared[5:]))):
        for ours, expected in zip(other, whole, strict=True):
            assert np.array_equal(ours, expected[first : first + len(ours)])
    assert np.abs(np.linalg.norm(whole.text_BE.astype(float), axis=1) - 1).max() < 1e-3
    products = [float(np.dot(a.astype(float), b.astype(float))) for a, b in zip(*whole, strict=True)]
    assert cosines(whole) == pytest.approx(products)


def test_long_captions_keep_their_end(folder):
    tokens = load_model(model_files(folder)).texts.prepare("a red cat " * 9)
    assert len(tokens) == 12 and tokens[-1] == 11 and tokens[0] == 10


def no_config(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def damaged_weights(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def damaged_config(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text('{"model_cfg": ')


def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def pickled_code(folder: Path) -> None:
    no_weights(folder)
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def change(folder: Path, tower: str, **settings: Any) -> None:
    content = json.loads((folder / "open_clip_config.json").read_text())
    content["model_cfg"][tower] |= settings
    (folder / "open_clip_config.json").write_text(json.dumps(content))


def another_size(folder: Path) -> None:
    change(folder, "vision_cfg", image_size=64)


def another_form(folder: Path) -> None:
    change(folder, "vision_cfg", attentional_pool=True)


def resnet(folder: Path) -> None:
    change(folder, "vision_cfg", layers=[3, 4, 6, 3])


def no_embedding(folder: Path) -> None:
    content = json.loads((folder / "open_clip_config.json").read_text())
    del content["model_cfg"]["embed_dim"]
    (folder / "open_clip_config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_config, "neither open_clip_config.json nor config.json there"),
        (no_weights, "no weights there"),
        (no_tokenizer, "no tokenizer.json there"),
        (damaged_weights, "not a readable file of weights"),
        (damaged_config, "open_clip_config.json: "),
        (damaged_tokenizer, "tokenizer.json: "),
        (pickled_code, "not a readable file of weights|has no weight"),
        (another_size, r"image.positions is \[5, 64\], but its configuration says \[17, 64\]"),
        (another_form, "attentional_pool True is not supported"),
        (resnet, "is a ResNet"),
        (no_embedding, "lacks the setting 'embed_dim'"),
    ],
)
def test_a_folder_that_can_not_be_read_is_one_line(folder, damage, said):
    damage(folder)
    with pytest.raises(UserError, match=said) as error:
        load_model(model_files(folder))
    assert str(error.value).startswith(f"--model {folder}") and "\n" not in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        model_files(tmp_path / "none")


def test_the_fingerprint_is_of_the_content(folder, tmp_path):
    first = model_folder.fingerprint(model_files(folder))
    assert first == model_folder.fingerprint(model_files(write_model(tmp_path / "copy")))
    another_size(folder)
    assert first != model_folder.fingerprint(model_files(folder))


def test_a_model_that_is_written_is_read_as_it_was(tmp_path):
    """By the benchmark that trains a tiny CLIP."""
    tokenizer = tiny_clip.train_tokenizer(["a red cat", "a dog in the snow"])
    network = spread(ContrastiveModel(tiny_clip.tiny_config(tokenizer)))
    tiny_clip.write_model(network, tokenizer, tmp_path / "clip")
    read = load_model(model_files(tmp_path / "clip"))
    assert read.network.config == network.config
    pixels = torch.randn(2, 3, tiny_clip.SIZE, tiny_clip.SIZE)
    tokens = torch.from_numpy(np.stack([read.texts.prepare("a red dog"), read.texts.prepare("snow")]))
    with torch.inference_mode():
        assert torch.equal(read.network.embed_images(pixels), network.embed_images(pixels))
        assert torch.equal(read.network.embed_texts(tokens), network.embed_texts(tokens))


def test_every_swapped_caption_differs():
    images = np.zeros((2, 2, 3), np.uint8)
    examples = [tiny_clip.Example(str(i), images, caption) for i, caption in enumerate("abcabcdd")]
    swapped = tiny_clip.swapped(examples)
    assert sorted(example.caption for example in swapped) == sorted("abcabcdd")
    assert all(a.caption != b.caption for a, b in zip(examples, swapped, strict=True))
