"""Scenes: captions parse, images follow from the seed and satisfy their captions, training sees nothing held out."""

from __future__ import annotations

import json
import tarfile

import cv2
import numpy as np
import pytest

from models.image_files import jpeg
from models.pixels import seeded_randint
from models.tokenizers.image import load_image_tokenizer
from sample.scenes.captions import (
    EXAMPLE,
    HELD_OUT_OBJECTS,
    Caption,
    Object,
    all_objects,
    is_held_out,
    parse_caption,
    random_caption,
)
from sample.scenes.judge import find_objects, satisfies
from sample.scenes.make import main, training_scene
from sample.scenes.render import BACKGROUND, SCENE_PX, WIDTHS, Box, Scene, random_scene, render, render_objects
from sample.scenes.score import held_out_captions, held_out_in, table
from sample.scenes.tokenizer import cells_of, distinct_cells, tokenizer_file
from tests.support.narrowing import required

COUNT = 150  # scenes of a test: one error is 0.7 %


def any_scenes(count: int = COUNT) -> list[Scene]:
    """Scenes of one to three objects, held-out combinations among them."""
    integers = seeded_randint("test")
    return [random_scene(random_caption(1 + number % 3, integers), integers) for number in range(count)]


@pytest.fixture(scope="module")
def image_tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "tokenizer.pt"
    path.write_bytes(tokenizer_file(distinct_cells()))
    return load_image_tokenizer(f"dalle-pytorch:{path}")


# --- captions and held-out combinations ------------------------------------------------------------------------------


def test_captions_parse():
    for scene in any_scenes():
        assert parse_caption(str(scene.caption)) == scene.caption
    assert str(EXAMPLE) == "a small red circle above a large blue square and left of a small green house"


@pytest.mark.parametrize(
    "text", ["", "a red circle", "a small red circle above", f"{EXAMPLE} and above a small red cup"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="not a scene's caption"):
        parse_caption(text)


def test_training_sees_nothing_held_out():
    for number in range(COUNT):
        scene = training_scene(f"test/{number}")
        assert not HELD_OUT_OBJECTS & {*scene.caption.objects}
        assert not any(map(is_held_out, scene.facts))
        assert set(scene.caption.facts) <= set(scene.facts)
        assert not held_out_in(scene.caption)


def test_every_part_of_a_held_out_combination_is_seen():
    seen = {thing for number in range(3000) for thing in training_scene(f"test/{number}").caption.objects}
    assert seen == set(all_objects()) - HELD_OUT_OBJECTS


def test_held_out_captions_are_different_and_held_out():
    captions = held_out_captions(100, 0)
    assert len(set(captions)) == 100
    assert all(map(held_out_in, captions))
    assert captions[:20] == held_out_captions(20, 0) != held_out_captions(20, 1)


def test_the_table_counts():
    red, blue = Object("large", "red", "arch"), Object("large", "blue", "house")
    lines = table([Caption((red,)), Caption((blue,))], [True, False]).splitlines()
    assert lines[-1].split() == ["satisfied", "1", "of", "2", "50.0%"]


# --- images ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_files(tmp_path):
    for name in ("a", "b"):
        main(["--count", "12", "--output", str(tmp_path / name)])
    for name in ("images/00000.tar", "captions.txt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    main(["--count", "12", "--seed", "1", "--output", str(tmp_path / "c")])
    assert (tmp_path / "c/captions.txt").read_bytes() != (tmp_path / "a/captions.txt").read_bytes()


def test_the_truth_lies_beside_the_image(tmp_path):
    main(["--count", "3", "--output", str(tmp_path)])
    with tarfile.open(tmp_path / "images/00000.tar") as tar:
        members = {info.name: required(tar.extractfile(info)).read() for info in tar}
    truth = json.loads(members["000000001.json"])
    assert (
        members["000000001.txt"].decode() == truth["caption"] == (tmp_path / "captions.txt").read_text().split("\n")[1]
    )
    boxes = [Box(**thing.pop("box")) for thing in truth["objects"]]
    scene = Scene(
        Caption(tuple(Object(**thing) for thing in truth["objects"]), tuple(truth["relations"])), tuple(boxes)
    )
    image_HWC = required(cv2.imdecode(np.frombuffer(members["000000001.png"], np.uint8), cv2.IMREAD_COLOR_RGB))
    assert str(scene.caption) == truth["caption"]
    assert (image_HWC == render(scene)).all()


def test_the_cells_of_held_out_objects_are_seen():
    cells = {cell.tobytes() for cell in distinct_cells()}
    for thing in HELD_OUT_OBJECTS:
        side = WIDTHS[thing.size]
        image_HWC = render_objects([(thing, Box(0, 0, side, side))], side)
        assert {cell.tobytes() for cell in cells_of(image_HWC)} <= cells


# --- the judge -------------------------------------------------------------------------------------------------------


def test_the_judge_finds_what_was_rendered():
    for scene in any_scenes():
        assert satisfies(render(scene), scene.caption), scene.caption


def test_the_judge_finds_it_after_jpeg():
    failed = [scene for scene in any_scenes() if not satisfies(through_jpeg(render(scene)), scene.caption)]
    assert len(failed) < 0.01 * COUNT, failed


def test_the_judge_finds_it_after_the_image_tokenizer(image_tokenizer):
    for scene in any_scenes():
        image_HWC = image_tokenizer.decode(image_tokenizer.encode(render(scene)))
        assert satisfies(image_HWC, scene.caption), scene.caption


def test_the_judge_knows_every_object():
    for thing in all_objects():
        side = WIDTHS[thing.size]
        image_HWC = np.pad(render_objects([(thing, Box(0, 0, side, side))], side), ((9, 7), (5, 3), (0, 0)), "edge")
        image_HWC[:9], image_HWC[-7:], image_HWC[:, :5], image_HWC[:, -3:] = (BACKGROUND,) * 4
        assert [region.object for region in find_objects(image_HWC)] == [thing]


def test_a_caption_that_differs_is_not_satisfied():
    """In an attribute, a relation, the number of objects, or by two objects that changed places."""
    one, two = Object("small", "red", "circle"), Object("large", "blue", "square")
    caption = Caption((one, two), ("above",))
    image_HWC = render(random_scene(caption, seeded_randint("test")))
    wrong = [
        *(caption._replace(objects=(one._replace(**{field: value}), two)) for field, value in
          (("size", "large"), ("colour", "green"), ("shape", "diamond"))),
        caption._replace(relations=("below",)),
        caption._replace(relations=("left of",)),
        caption._replace(objects=(two, one)),
        Caption((one,)),
        Caption((one, two, Object("small", "black", "cup")), ("above", "above")),
    ]  # fmt: skip
    assert satisfies(image_HWC, caption)
    assert not any(satisfies(image_HWC, other) for other in wrong)


def test_what_is_no_object_satisfies_nothing():
    caption = Caption((Object("small", "red", "circle"),))
    image_HWC = render(random_scene(caption, seeded_randint("test")))
    spoilt_HWC = image_HWC.copy()
    spoilt_HWC[-20:-12, -30:-8] = (200, 60, 200)
    noise_HWC = np.random.default_rng(0).integers(0, 256, (SCENE_PX, SCENE_PX, 3)).astype(np.uint8)
    assert satisfies(image_HWC, caption)
    assert not any(satisfies(other, caption) for other in (spoilt_HWC, noise_HWC, np.full_like(image_HWC, 255)))


def through_jpeg(image_HWC: np.ndarray) -> np.ndarray:
    return required(cv2.imdecode(np.frombuffer(jpeg(image_HWC), np.uint8), cv2.IMREAD_COLOR_RGB))
