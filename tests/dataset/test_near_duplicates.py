"""Pictures that look alike: what counts as one, and which of them stays."""

from __future__ import annotations

import itertools
import random

import cv2
import numpy as np
import pytest

from benchmarks.duplicates import CHANGES
from models import pixels
from models.errors import UserError
from pipeline import cli
from pipeline.dataset import image_signature
from pipeline.dataset.exclusion_list import hash_line, read_hashes
from pipeline.dataset.near_duplicates import (
    DropNearDuplicates,
    ImageNode,
    NearDuplicateConfig,
    band_entries,
    candidates_of,
    duplicates_to_drop,
    signed_image,
)
from pipeline.records import REJECTED_TAG, EncodedPair
from tests.conftest import ROOT
from tests.support.transforms import apply

IMAGES = ROOT / "sample" / "images"
NAMES = sorted(path.name for path in IMAGES.glob("*.jpg"))[:16]


def rgb(name: str) -> np.ndarray:
    return pixels.decode_rgb((IMAGES / name).read_bytes())


def record(name: str, image: np.ndarray, source: str = "cc3m", row: int = 0) -> EncodedPair:
    return EncodedPair(
        f"{row:032x}",
        "train",
        source,
        "f",
        row,
        "",
        name,
        *image.shape[1::-1],
        "",
        "",
        f"{row:064x}",
        "",
        b"",
        b"",
        (),
        image_signature.compute_signature(np.ascontiguousarray(image)),
    )


def changed(image: np.ndarray, change: str, seed: int) -> np.ndarray:
    draw = random.Random(seed)
    for step in CHANGES[change]:
        image = step(image, draw)
    return np.ascontiguousarray(image)


@pytest.mark.parametrize("change", ["resized", "recompressed", "cropped", "re-toned"])
def test_a_changed_copy_is_the_same_image(change):
    found = 0
    for seed, name in enumerate(NAMES):
        one, other = (
            image_signature.unpack_signature(image_signature.compute_signature(each))
            for each in (rgb(name), changed(rgb(name), change, seed))
        )
        assert image_signature.is_near_duplicate(one, other) == image_signature.is_near_duplicate(other, one)
        meet = set(image_signature.band_keys(image_signature.hash_bits(one)).ravel()) & set(
            image_signature.band_keys(image_signature.hash_bits(other)).ravel()
        )
        found += bool(meet) and image_signature.is_near_duplicate(one, other)
    assert found >= len(NAMES) - 1


def test_different_images_are_different():
    every = [image_signature.unpack_signature(image_signature.compute_signature(rgb(name))) for name in NAMES]
    assert not any(image_signature.is_near_duplicate(*pair) for pair in itertools.combinations(every[:10], 2))


def drawn(mouth: int = 0, colour=(250, 200, 40)) -> image_signature.Signature:
    face = np.full((128, 128, 3), 255, np.uint8)
    cv2.circle(face, (64, 64), 55, colour, -1)
    for x in (44, 84):
        cv2.circle(face, (x, 50), 6, (60, 30, 0), -1)
    cv2.ellipse(face, (64, 80), (26, 14), 0, mouth, mouth + 180, (60, 30, 0), -1)
    return image_signature.unpack_signature(image_signature.compute_signature(face))


def test_another_mouth_or_colour_is_another_image():
    assert image_signature.is_near_duplicate(drawn(), drawn())
    assert not image_signature.is_near_duplicate(drawn(), drawn(mouth=180))
    assert not image_signature.is_near_duplicate(drawn(), drawn(colour=(120, 220, 250)))


def cluster(seed: int) -> image_signature.Signature:
    """A glow with a few hundred stars around it."""
    draw = np.random.RandomState(seed)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    sky = 200 * np.exp(-8 * (x**2 + y**2))
    for _ in range(300):
        place = draw.normal(64, 25, 2)
        sky += draw.uniform(10, 40) * np.exp(-((y * 64 + 64 - place[0]) ** 2 + (x * 64 + 64 - place[1]) ** 2) / 3)
    return image_signature.unpack_signature(
        image_signature.compute_signature(np.repeat(np.clip(sky, 0, 255).astype(np.uint8)[:, :, None], 3, 2))
    )


def test_two_star_clusters_differ_by_their_stars_alone():
    one, other = cluster(1), cluster(2)
    assert image_signature.is_near_duplicate(one, one) and not image_signature.is_near_duplicate(one, other)
    found = image_signature.align(one, other)
    assert (
        found.explained > image_signature.MIN_EXPLAINED
        and found.worst < image_signature.MAX_WORST
        and found.detail < image_signature.MIN_DETAIL
    )


def test_plain_images_are_nothing_to_go_by():
    plain = [
        image_signature.unpack_signature(image_signature.compute_signature(np.full((70, 90, 3), value, np.uint8)))
        for value in (0, 128, 255)
    ]
    assert not any(image_signature.is_near_duplicate(*pair) for pair in itertools.product(plain, [*plain, drawn()]))


def test_candidates_are_the_same_in_any_order():
    records = [record(name, rgb(name), row=row) for row, name in enumerate(NAMES[:6])]
    records += [record(name, changed(rgb(name), "cropped", 1), row=10 + row) for row, name in enumerate(NAMES[:6])]
    groups: dict[int, list[bytes]] = {}
    for key, entry in (entry for each in records for entry in band_entries(signed_image(each))):
        groups.setdefault(key, []).append(entry)
    found = {pair for key, entries in groups.items() for pair in candidates_of((key, entries), True)}
    again = {pair for key, entries in groups.items() for pair in candidates_of((key, entries[::-1] * 2), True)}
    assert found == again >= {(f"{row:032x}", f"{10 + row:032x}") for row in range(6)}
    assert not any(list(candidates_of((key, entries), False)) for key, entries in groups.items())


def test_of_a_set_the_first_stays_whatever_the_order():
    a, b, c, d, e = (
        ImageNode(rank, "f", 0, name) for rank, name in ((0, "a"), (1, "b"), (1, "c"), (2, "d"), (-1, "e"))
    )
    edges = [(b, c), (c, a), (d, c)]
    for order in itertools.permutations(edges):
        assert dict(duplicates_to_drop([*order, *order])) == {"b": a, "c": a, "d": a}
        assert dict(duplicates_to_drop([pair[::-1] for pair in order] + [(d, e)])) == {"a": e, "b": e, "c": e, "d": e}
    assert list(duplicates_to_drop([])) == []


def test_in_a_pipeline(tmp_path):
    records = [record(name, rgb(name), "cc12m", row) for row, name in enumerate(NAMES[:5])]
    records.append(record("copy", changed(rgb(NAMES[0]), "cropped", 3), "cc3m", 10))  # of the first source: it stays
    records.append(record("evaluation", changed(rgb(NAMES[1]), "re-toned", 4), "cc3m", 11))
    (tmp_path / "hashes").write_text(
        hash_line("ab" * 32, image_signature.compute_signature(rgb(NAMES[1])), "coco 7") + f"{2:064x}\n"
    )
    outputs = apply(DropNearDuplicates(NearDuplicateConfig(True, str(tmp_path / "hashes"))), records)
    assert sorted((one.row, one.signature) for one in outputs["records"]) == [(3, b""), (4, b""), (10, b"")]
    assert sorted((one.row, one.stage, one.reason, one.detail) for one in outputs[REJECTED_TAG]) == [
        (0, "encode", "duplicate_image", f"kept {10:032x}"),
        (1, "encode", "excluded", "looks like coco 7"),
        (2, "encode", "excluded", f"the same bytes as {2:064x}"),
        (11, "encode", "excluded", "looks like coco 7"),
    ]


def test_the_hash_command(tmp_path, capsys):
    assert cli.main(["hash", str(IMAGES / "c*.jpg"), "--output", str(tmp_path / "hashes")]) == 0
    hashes = read_hashes(str(tmp_path / "hashes"))
    assert len(hashes.images) == len(hashes.names) == len(list(IMAGES.glob("c*.jpg")))
    assert "cat.jpg" in hashes.names.values()
    assert cli.main(["hash", str(ROOT / "sample" / "odd" / "*"), "--output", str(tmp_path / "odd")]) == 0
    assert "left out" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["cafe", "ab" * 32 + "\t???\tname", "ab" * 32 + "\tAAAA"])
def test_no_list_of_hashes(tmp_path, text):
    (tmp_path / "hashes").write_text("\n" + text)
    with pytest.raises(UserError, match="line 2: not an image's hash"):
        read_hashes(str(tmp_path / "hashes"))
