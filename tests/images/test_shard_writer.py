"""Images in img2dataset's layout: encoded anew, and read."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from models.errors import UserError
from pipeline.images import shard_reader, shard_writer
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_reader import read_image_shard
from pipeline.images.shard_writer import StoreConfig, to_image_file
from tests.support.fetching import pair
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


# --- tar files -------------------------------------------------------------------------------------------------------


def img2dataset_tar(path: Path, samples: list[dict[str, object]]) -> str:
    """As version 1.47 writes them: keys of nine digits, images resized and encoded anew, .json with an indent."""
    with webdataset.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"{number:09d}", **sample})
    return str(path)


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
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
