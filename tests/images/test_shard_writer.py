"""Images in img2dataset's layout: encoded anew, found, and read, our own and those of img2dataset."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from models.errors import UserError
from pipeline.images import shard_reader, shard_writer
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_reader import list_pairs, read_image_shard, read_images
from pipeline.images.shard_writer import StoreConfig, to_image_file
from pipeline.images.validate import ImageConfig
from tests.support.fetching import pair, result
from tests.support.images import encoded, jpeg, photo


def image_of(image: Image.Image, form: str = "PNG") -> FetchedImage:
    data = encoded(image, form)
    return FetchedImage(pair("http://a.org/x"), data, np.asarray(image), hashlib.sha256(data).hexdigest())


def test_quality_is_a_setting():
    sizes = [len(to_image_file(image_of(photo()), StoreConfig(100, "jpg", quality)).data) for quality in (30, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_small_images_keep_their_size():
    stored = to_image_file(image_of(photo(90, 70)), StoreConfig(256, "png"))
    assert (stored.width, stored.height, stored.suffix) == (90, 70, "png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored.data))), np.asarray(photo(90, 70)))


# --- img2dataset's own -----------------------------------------------------------------------------------------------


def img2dataset_tar(path: Path, samples: list[dict[str, object]]) -> str:
    """As version 1.47 writes them: keys of nine digits, images resized and encoded anew, .json with an indent."""
    with webdataset.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"{number:09d}", **sample})
    return str(path)


def metadata(number: int, **others: object) -> bytes:
    said = {
        "caption": f"caption {number}",
        "url": f"http://a.org/{number}.jpg",
        "key": f"{number:09d}",
        "status": "success",
        "error_message": None,
        "width": 256,
        "height": 256,
        "original_width": 640,
        "original_height": 480,
    }
    return json.dumps(said | others, indent=4).encode()


def test_img2datasets_own_output_is_read(tmp_path):
    path = img2dataset_tar(
        tmp_path / "00000.tar",
        [
            {
                "jpg": jpeg(256, 256, seed=1),
                "txt": "a bison in the snow",
                "json": metadata(0, sha256="ab" * 32, exif="{}"),
            },
            {"webp": encoded(photo(256, 171), "WEBP"), "txt": "two boats", "json": metadata(1)},
            {"jpg": jpeg(256, 256, seed=2), "json": metadata(2)},  # without --save_caption
            {"png": encoded(photo(100, 90), "PNG"), "txt": "no json"},
            {"jpg": jpeg()[:-900], "txt": "cut off", "json": metadata(4)},
            {"jpg": jpeg(300, 100), "txt": "too wide", "json": metadata(5)},
            {"txt": "no picture", "json": metadata(6)},
        ],
    )
    found = list(read_images(path, ImageConfig()))
    assert [result(one) for one in found] == ["fetched"] * 4 + ["corrupt_image", "aspect_ratio"]
    pairs = [one.pair for one in found[:4]]
    assert [one.caption for one in pairs] == ["a bison in the snow", "two boats", "caption 2", "no json"]
    assert [one.url for one in pairs] == ["http://a.org/0.jpg", "http://a.org/1.jpg", "http://a.org/2.jpg", ""]
    assert [(one.source, one.file, one.row) for one in pairs] == [("img2dataset", "00000.tar", n) for n in range(4)]
    assert (pairs[0].width, pairs[0].height) == (640, 480)
    assert found[0].sha256 == "ab" * 32  # of the original, as img2dataset computed it
    assert found[1].sha256 == hashlib.sha256(found[1].data).hexdigest()
    assert [one.rgb_HWC.shape for one in found[:4]] == [(256, 256, 3), (171, 256, 3), (256, 256, 3), (90, 100, 3)]
    assert {one.stage for one in found[4:]} == {"encode"}
    assert [one.key for one in found[4:]] == [one.key for one in list(list_pairs(path))[4:]]


def test_keys_come_from_what_the_set_says(tmp_path):
    sample = {"jpg": jpeg(), "txt": "a boat", "json": metadata(0)}
    changed = [{**sample, "jpg": jpeg(seed=1)}, {**sample, "txt": "a ship"}, {**sample, "json": metadata(1)}]
    path = img2dataset_tar(tmp_path / "00000.tar", [sample, *changed])
    other = img2dataset_tar(tmp_path / "00007.tar", [*changed, sample])
    keys = [one.key for one in list_pairs(path)]
    assert len(set(keys)) == 4
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    assert sorted(one.key for one in list_pairs(other)) == sorted(keys)  # wherever they stand


@pytest.mark.parametrize("cut", [1, 511, 512, 1000, 10_240, 12_000, 15_000, -1, -512, -9_000])
def test_a_tar_that_was_cut_off_is_an_error(tmp_path, cut):
    whole = Path(img2dataset_tar(tmp_path / "00000.tar", [{"jpg": jpeg(seed=n), "txt": "x"} for n in range(5)]))
    data = whole.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:cut])
    zeros = len(data) - len(data.rstrip(b"\0"))
    if cut < 0 and not -cut % 512 and -cut <= zeros - 1024:
        assert len(list(read_image_shard(str(tmp_path / "cut.tar")))) == 5  # only some of the filling is missing
        return
    with pytest.raises(ValueError, match=r"cut\.tar is not a whole tar file"):
        list(read_image_shard(str(tmp_path / "cut.tar")))


def test_no_tar_at_all(tmp_path):
    for data in (b"", b"nonsense" * 1000, bytes(700)):
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.tar is not a whole tar file"):
            list(read_image_shard(str(tmp_path / "x.tar")))


def test_damaged_metadata_is_an_error_that_names_the_file(tmp_path):
    path = img2dataset_tar(tmp_path / "00000.tar", [{"jpg": jpeg(), "txt": "x", "json": b"{"}])
    with pytest.raises(ValueError, match=r"00000\.tar.*000000000"):
        list(read_image_shard(path))


# --- finding ---------------------------------------------------------------------------------------------------------


def test_finding_tar_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        shard_reader.find_image_shards(str(tmp_path / "*.tar"))
    for name in ("00001.tar", "00000.tar", "00000.parquet"):
        (tmp_path / name).write_bytes(b"")
    assert shard_reader.find_image_shards(str(tmp_path / "*.tar")) == [
        str(tmp_path / "00000.tar"),
        str(tmp_path / "00001.tar"),
    ]
    with pytest.raises(UserError, match=r"not a \.tar file"):
        shard_reader.find_image_shards(str(tmp_path / "*"))


def test_whose_tar_files_they_are(tmp_path):
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        folder.mkdir()
        for number in range(2):
            (folder / f"{number:05d}.tar").write_bytes(b"")
    tars = sorted(map(str, ours.glob("*.tar")))
    assert shard_reader.fetch_output_of(tars) is None
    (ours / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="unfinished fetch"):
        shard_reader.fetch_output_of(tars)
    (ours / "ledger.json").write_text("{}")
    assert shard_reader.fetch_output_of(tars) == str(ours)
    with pytest.raises(UserError, match=r"leaves out 00001\.tar"):
        shard_reader.fetch_output_of(tars[:1])
    with pytest.raises(UserError, match="one output"):
        shard_reader.fetch_output_of([*tars, *map(str, other.glob("*.tar"))])
    assert shard_reader.fetch_output_of(list(map(str, other.glob("*.tar")))) is None


def test_no_outcome_is_no_row(tmp_path):
    """A unit whose rows are not all accounted for is a fault of the program, not a smaller unit."""
    writer = shard_writer.ShardWriter(str(tmp_path), 0, [pair("http://a.org/x")], StoreConfig())
    with writer, pytest.raises(KeyError):
        writer.write()
    assert not list(tmp_path.iterdir())
