"""The bundled model of scenes: what it samples for held-out captions satisfies them."""

from __future__ import annotations

import pytest
import torch

from models.files import BUNDLED
from models.sampling.checkpoint import BUNDLED_SCENES, find_checkpoint, load_generator
from models.sampling.sampler import PAPER_SAMPLING
from models.tokenizers.image import is_bundled, load_image_tokenizer
from pipeline import cli
from sample.scenes.captions import parse_caption
from sample.scenes.judge import satisfies
from sample.scenes.make import training_scene
from sample.scenes.render import render
from sample.scenes.score import held_out_captions, held_out_in, sample_images
from tests.support.paths import ROOT

CAPTIONS, MIN_SATISFIED = 20, 16  # of seed 0, whose score is in docs/scenes.md
MAX_BYTES = 8 << 20


@pytest.fixture(scope="module")
def scenes():
    torch.set_num_threads(1)
    return load_generator(BUNDLED_SCENES)


def test_held_out_captions_are_satisfied(scenes):
    captions = held_out_captions(CAPTIONS, 0)
    images = sample_images(scenes, captions, scenes.sampling, 0)
    satisfied = [satisfies(*pair) for pair in zip(images, captions, strict=True)]
    assert sum(satisfied) >= MIN_SATISFIED


def test_its_prompts_are_captions_that_training_did_not_see(scenes):
    assert scenes.prompts
    for prompt in scenes.prompts:
        assert held_out_in(parse_caption(prompt))


def test_its_image_tokenizer_renders_scenes():
    tokenizer = load_image_tokenizer("bundled-scenes")
    scene = training_scene("test")
    assert satisfies(tokenizer.decode(tokenizer.encode(render(scene))), scene.caption)
    assert is_bundled("bundled-scenes")  # each worker has it


def test_it_is_small_and_names_no_path():
    files = [path for path in BUNDLED_SCENES.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert BUNDLED_SCENES.parent == BUNDLED
    assert '"spec": "bundled-scenes"' in (BUNDLED_SCENES / "config.json").read_text()


def test_the_commands_know_its_name(tmp_path):
    assert find_checkpoint("bundled-scenes") == BUNDLED_SCENES
    options = ["--checkpoint", "bundled-scenes", "--count", "1", "--threads", "1", "--output", str(tmp_path)]
    assert cli.main(["generate", "--prompt", "a large red arch", *options]) == 0
    assert (tmp_path / "0000.png").exists()


def test_its_defaults_are_those_of_the_documentation(scenes):
    text = (ROOT / "docs" / "scenes.md").read_text(encoding="utf-8")
    named = {
        name: value for name, value in scenes.sampling._asdict().items() if value != PAPER_SAMPLING._asdict()[name]
    }
    assert named and all(f"{name.replace('_', '-')} {value:g}" in text for name, value in named.items())
