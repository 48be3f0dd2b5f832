"""Pictures that look alike: what counts as one, and which of them stays."""

from __future__ import annotations

import itertools
import random

import cv2
import numpy as np
import pyarrow as pa
import pytest

from benchmarks.duplicates import CHANGES
from models import pixels
from models.errors import UserError
from pipeline import cli
from pipeline.dataset import hash_bands, image_signature
from pipeline.dataset.exclusion_list import hash_line, read_hashes
from pipeline.dataset.near_duplicates import (
    DropNearDuplicates,
    ImageNode,
    NearDuplicateConfig,
    duplicates_to_drop,
)
from pipeline.records import REJECTED_TAG, EncodedPair
from tests.support.paths import ROOT
from tests.support.transforms import apply

IMAGES = ROOT / "sample" / "images"
NAMES = sorted(path.name for path in IMAGES.glob("*.jpg"))[:16]


def rgb(name: str) -> np.ndarray:
    return pixels.decode_rgb((IMAGES / name).read_bytes())


def record(name: str, image: np.ndarray, source: str = "cc3m", row: int = 0) -> EncodedPair:
    height, width = image.shape[:2]
    return EncodedPair(
        f"{row:032x}",
        "train",
        source,
        "f",
        row,
        "",
        name,
        width,
        height,
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


def entries_of(images: list[np.ndarray], excluded: tuple[int, ...] = ()) -> pa.Table:
    signatures = [image_signature.compute_signature(np.ascontiguousarray(image)) for image in images]
    flags = np.array([hash_bands.EXCLUDED * (i in excluded) for i in range(len(images))], np.uint8)
    return hash_bands.band_entries(signatures, np.arange(len(images), dtype=np.uint64), flags)


def pairs_one_by_one(entries: pa.Table) -> set[tuple[int, int]]:
    """What `candidates_of` is to find, by the definition."""
    groups: dict[int, list[dict]] = {}
    for entry in entries.to_pylist():
        groups.setdefault(entry["band"], []).append(entry)
    return {
        tuple(sorted((one["image"], other["image"])))
        for group in groups.values()
        for one, other in itertools.product(group, group)
        if not one["flags"] & hash_bands.CROPPED and one["image"] != other["image"] and unequal(one, other) <= 24
    }


def unequal(one: dict, other: dict) -> int:
    return (int.from_bytes(one["bits"], "big") ^ int.from_bytes(other["bits"], "big")).bit_count()


def test_candidates_are_the_same_in_any_order():
    images = [rgb(name) for name in NAMES[:6]]
    entries = entries_of(images + [changed(image, "cropped", 1) for image in images])
    found, left_out = hash_bands.candidates_of(entries, True)
    shuffled = entries.take(np.random.default_rng(0).permutation(len(entries)))
    assert found.tolist() == hash_bands.candidates_of(shuffled, True)[0].tolist()
    assert set(map(tuple, found.tolist())) == pairs_one_by_one(entries) >= {(i, 6 + i) for i in range(6)}
    assert left_out == 0 and not len(hash_bands.candidates_of(entries, False)[0])
    assert not len(hash_bands.candidates_of(entries.slice(0, 0), True)[0])


def test_with_excluded_images_alone_only_they_are_looked_for():
    images = [rgb(NAMES[0]), changed(rgb(NAMES[0]), "resized", 1), changed(rgb(NAMES[0]), "recompressed", 2)]
    assert hash_bands.candidates_of(entries_of(images, excluded=(2,)), False)[0].tolist() == [[0, 2], [1, 2]]
    assert hash_bands.candidates_of(entries_of(images, excluded=(1, 2)), True)[0].tolist() == [[0, 1], [0, 2]]


def test_copies_are_found_in_crowded_groups(monkeypatch):
    images = [rgb(name) for name in NAMES]
    entries = entries_of(images + [changed(image, "resized", 1) for image in images])
    monkeypatch.setattr(hash_bands, "CROWDED", 4)
    found, left_out = hash_bands.candidates_of(entries, True)
    assert set(map(tuple, found.tolist())) >= {(i, len(images) + i) for i in range(len(images))}
    assert left_out == 0


@pytest.mark.parametrize(("crowded", "pairs"), [(100, [[0, 1], [0, 2]]), (5, [[0, 2]])])
def test_pairs_of_a_crowded_group_share_a_further_band(crowded, pairs, monkeypatch):
    """0 and 1 share the first band alone, 0 and 2 all but the last, and nine others only the first with anybody."""
    monkeypatch.setattr(hash_bands, "CROWDED", crowded)
    draw = np.random.default_rng(0)
    others = draw.integers(0, 256, (9, 12), np.uint8)
    bits = np.concatenate([np.zeros((3, 12), np.uint8), others])
    bits[1, 2::2], bits[2, 10], bits[3:, :2] = 1, 1, 0
    entries = pa.Table.from_arrays(
        [
            pa.array(np.zeros(12, np.uint32)),
            pa.array([row.tobytes() for row in bits], pa.binary(12)),
            pa.array(np.zeros(12, np.uint8)),
            pa.array(np.arange(12, dtype=np.uint64)),
        ],
        schema=hash_bands.ENTRIES,
    )
    found, _ = hash_bands.candidates_of(entries, True)
    assert [pair for pair in found.tolist() if 0 in pair] == pairs


def test_what_a_crowd_of_equal_images_leaves_out_is_counted(monkeypatch):
    monkeypatch.setattr(hash_bands, "CROWDED", 10)
    found, left_out = hash_bands.candidates_of(entries_of([rgb(NAMES[0])] * 30), True)
    joined = {int(image) for image in found.ravel()}
    assert left_out > 0 and 0 < len(joined) < 30


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
    outputs = apply(
        DropNearDuplicates(NearDuplicateConfig(True, str(tmp_path / "hashes")), str(tmp_path / "out")), records
    )
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
