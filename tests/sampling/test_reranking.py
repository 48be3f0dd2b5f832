"""`generate --rank` by a real open_clip model, small and untrained, in the folder that open_clip writes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.errors import UserError
from models.sampling import generate
from models.sampling.reranking import CONFIG, load_ranker
from tests.support.images import text_of

# What torchvision's compiled half says beside a torch that it was not built for; ranking needs none of it.
pytestmark = pytest.mark.filterwarnings("ignore:Failed to load image Python extension")
WEIGHTS = "open_clip_model.safetensors"
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def theirs(open_clip):
    torch.manual_seed(0)
    return open_clip.CLIP(**MODEL).eval()


@pytest.fixture(scope="module")
def folder(theirs, open_clip, tmp_path_factory) -> Path:
    from open_clip.push_to_hf_hub import save_config_for_hf

    directory = tmp_path_factory.mktemp("clip")
    theirs.visual.image_mean, theirs.visual.image_std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    save_config_for_hf(theirs, directory / CONFIG, MODEL)
    save_file(theirs.state_dict(), directory / WEIGHTS)
    return directory


def test_keeps_the_images_that_open_clip_likes_best(tiny_checkpoint, folder, theirs, open_clip, tmp_path):
    ask = ["--checkpoint", str(tiny_checkpoint), "--prompt", "a red cat", "--count", "6", "--threads", "1"]
    generate.main([*ask, "--output", str(tmp_path / "all")])
    generate.main([*ask, "--output", str(tmp_path / "best"), "--rank", "2", "--rank-model", str(folder)])
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["0000.png", "0001.png", "grid.png"]

    look = open_clip.image_transform(32, is_train=False)  # by the mean and deviation that are open_clip's defaults
    images = [Image.open(tmp_path / "all" / f"{i:04d}.png") for i in range(6)]
    with torch.no_grad():
        text = theirs.encode_text(open_clip.tokenize(["a red cat"]))
        scores = torch.cosine_similarity(theirs.encode_image(torch.stack([look(p) for p in images])), text)
    for place, index in enumerate(scores.argsort(descending=True)[:2].tolist()):
        with Image.open(tmp_path / "best" / f"{place:04d}.png") as kept:
            assert text_of(kept)["index"] == str(index)
            assert float(text_of(kept)["score"]) == pytest.approx(scores[index].item(), abs=1e-4)
            assert np.array_equal(np.asarray(kept), np.asarray(images[index]))


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()  # open_clip's own way of loading would go on with random ones


def damaged_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1000])


def pickled_code(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def no_model(folder: Path) -> None:
    (folder / CONFIG).write_text("{}")


def of_another_size(folder: Path) -> None:
    described = json.loads((folder / CONFIG).read_text())
    described["model_cfg"]["embed_dim"] = 8
    (folder / CONFIG).write_text(json.dumps(described))


def unknown_setting(folder: Path) -> None:
    described = json.loads((folder / CONFIG).read_text())
    described["model_cfg"]["magic"] = 1
    (folder / CONFIG).write_text(json.dumps(described))


@pytest.mark.parametrize(
    "damage, said",
    [
        (without_weights, "could not be loaded"),
        (damaged_weights, "incomplete metadata"),
        (pickled_code, "Weights only load failed$"),
        (no_model, "missing 'model_cfg'"),
        (of_another_size, "size mismatch for"),
        (unknown_setting, "'magic'"),
    ],
)
def test_a_folder_that_cannot_be_read(folder, tmp_path, damage, said):
    damage(Path(shutil.copytree(folder, tmp_path / "clip")))
    with pytest.raises(UserError, match=f"^--rank-model .*clip cannot be read: .*{said}") as error:
        load_ranker(tmp_path / "clip")
    assert "\n" not in str(error.value)


def test_without_open_clip(tmp_path, monkeypatch):
    (tmp_path / CONFIG).write_text("{}")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match="pip install 'open_clip_torch>=3'"):
        load_ranker(tmp_path)
