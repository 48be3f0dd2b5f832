"""Images in img2dataset's layout: encoded anew, and read."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.errors import UserError
from pipeline.images import shard_reader, shard_writer
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_format import pair_columns, read_metadata, reject_columns, rejected_of
from pipeline.images.shard_reader import read_image_shard
from pipeline.images.shard_writer import StoreConfig, to_image_file, to_member
from pipeline.images.validate import ANY_IMAGE
from pipeline.records import Reason, Rejected, Stage, reject
from tests.support.fetching import pair
from tests.support.images import encoded, jpeg, photo
from tests.support.repetition import examples


def image_of(image: Image.Image, form: str = "PNG", url: str = "http://a.org/x") -> FetchedImage:
    data = encoded(image, form)
    return FetchedImage(pair(url), data, np.asarray(image), hashlib.sha256(data).hexdigest())


def test_quality_is_a_setting():
    sizes = [len(to_image_file(image_of(photo()), StoreConfig(100, "jpg", quality)).data) for quality in (30, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_small_images_keep_their_size():
    stored = to_image_file(image_of(photo(90, 70)), StoreConfig(256, "png"))
    assert (stored.width, stored.height, stored.suffix) == (90, 70, "png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored.data))), np.asarray(photo(90, 70)))


def test_a_full_disk_ends_the_job_with_one_line(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_writer.tempfile, "TemporaryFile", Full)
    writer = shard_writer.ShardWriter(str(tmp_path), 0, [])
    with writer, pytest.raises(UserError, match="No space left on device; make room"):
        writer.add(to_member(image_of(photo()), StoreConfig()))


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
    writer = shard_writer.ShardWriter(str(tmp_path), 0, [pair("http://a.org/x")])
    with writer, pytest.raises(KeyError):
        writer.write()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("store", [StoreConfig(), StoreConfig(64)], ids=["as fetched", "resized"])
def test_a_stored_image_with_a_flipped_bit_is_not_encoded(tmp_path, store):
    image = image_of(photo())
    with shard_writer.ShardWriter(str(tmp_path), 0, [image.pair]) as writer:
        writer.add(to_member(image, store))
        writer.write()
    path = tmp_path / "00000.tar"
    [found] = shard_reader.read_images(str(path), ANY_IMAGE)
    assert isinstance(found, FetchedImage) and found.sha256 == image.sha256
    [stored] = read_image_shard(str(path))
    data = bytearray(path.read_bytes())
    data[data.index(stored.data) + len(stored.data) - 30] ^= 1
    path.write_bytes(data)
    [found] = shard_reader.read_images(str(path), ANY_IMAGE)
    assert isinstance(found, Rejected) and found.reason == "hash_mismatch" and "00000.tar" in found.detail


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """A tar as `pairmill fetch` writes it, of three images."""
    folder = tmp_path_factory.mktemp("flips")
    images = [image_of(photo(64, 48 + number), url=f"http://a.org/{number}") for number in range(3)]
    with shard_writer.ShardWriter(str(folder), 0, [image.pair for image in images]) as writer:
        for image in images:
            writer.add(to_member(image, StoreConfig(32)))
        writer.write()
    return folder / "00000.tar"


@examples(100)
@given(st.data())
def test_no_flipped_bit_of_a_tar_reaches_a_dataset_as_an_image(stored, tmp_path_factory, data):
    """What is read is an image as it was stored, a reject, or an error that names the file."""
    whole = stored.read_bytes()
    right = {image.data for image in read_image_shard(str(stored))}
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped" / stored.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(changed)
    try:
        found = list(shard_reader.read_images(str(path), ANY_IMAGE))
    except UserError as error:
        assert stored.name in str(error)
        return
    assert {image.data for image in found if isinstance(image, FetchedImage)} <= right
    assert all(row.detail for row in found if isinstance(row, Rejected))


# --- tar files that somebody else has made ---------------------------------------------------------------------------


def fetched_tar(path: Path, change=lambda row: row) -> str:
    """As `pairmill fetch` writes it, with other metadata."""
    image = image_of(photo())
    with shard_writer.ShardWriter(str(path), 0, [image.pair]) as writer:
        writer.add(to_member(image, StoreConfig()))
        writer.write()
    [stored] = read_image_shard(str(path / "00000.tar"))
    with tarfile.open(path / "changed.tar", "w") as tar:
        text = json.dumps(change(dict(stored.metadata)))
        for ending, data in (("png", stored.data), ("json", text.encode()), ("txt", b"A cat")):
            info = tarfile.TarInfo(f"000000000.{ending}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path / "changed.tar")


def test_what_fetch_writes_is_read(tmp_path):
    assert len(list(shard_reader.list_pairs(fetched_tar(tmp_path)))) == 1


@pytest.mark.parametrize("others", [(), ("The same cat", "A grey cat")])
def test_other_captions_come_back(tmp_path, others):
    """They are in the .json only where there are some."""
    image = image_of(photo())
    image = image._replace(pair=image.pair._replace(other_captions=others))
    with shard_writer.ShardWriter(str(tmp_path), 0, [image.pair]) as writer:
        writer.add(to_member(image, StoreConfig()))
        writer.write()
    [stored] = read_image_shard(str(tmp_path / "00000.tar"))
    assert stored.metadata.get("other_captions", "none") == (list(others) or "none")
    [pair] = shard_reader.list_pairs(str(tmp_path / "00000.tar"))
    assert tuple(pair.other_captions) == others
    [row] = read_metadata(str(tmp_path), 0)
    assert row["other_captions"] == list(others)


def test_a_reject_comes_back_from_its_columns_and_from_those_of_earlier_versions():
    rejected = reject(pair("http://a.org/x"), Stage.FETCH, Reason.HTTP_OTHER, "http_other: status 418")
    row = pair_columns(pair("http://a.org/x")) | reject_columns(rejected)
    assert row["error_message"] == "http_other: http_other: status 418"
    assert rejected_of(row | {"error_message": "another text"}) == rejected
    del row["detail"]
    assert rejected_of(row) == rejected


CHANGES: dict[str, tuple[str, object]] = {
    "pair_key": ("pair_key", "x"),
    "source": ("source", None),
    "row": ("row", "1"),
    "url": ("url", 7),
    "fallback_urls": ("fallback_urls", "x"),
    "split": ("split", "test"),
    "text": ("raw_caption", ["x"]),
    "others": ("other_captions", "x"),
}


@pytest.mark.parametrize(("name", "value"), CHANGES.values(), ids=CHANGES)
def test_metadata_of_another_type_names_the_file(tmp_path, name, value):
    path = fetched_tar(tmp_path, lambda row: row | {name: value})
    with pytest.raises(UserError, match=r"changed\.tar is damaged: "):
        list(shard_reader.list_pairs(path))


def without(name):
    """Metadata in which a bit of a column's name has flipped."""
    return lambda row: {(f"{key[:-1]}z" if key == name else key): value for key, value in row.items()}


@pytest.mark.parametrize("name", ["stored_sha256", "sha256", "pair_key", "url"])
def test_a_flipped_bit_in_the_name_of_a_column_names_the_file(tmp_path, name):
    """Without its hash an image would pass unseen, whatever has happened to it; without its key, as another tool's."""
    path = fetched_tar(tmp_path, without(name))
    assert shard_reader.is_of_fetch(path)
    with pytest.raises(UserError, match=rf"changed\.tar is damaged: .*`{name}`"):
        list(shard_reader.read_images(path, ANY_IMAGE))


@pytest.mark.parametrize("value", [None, [], 1, "x"])
def test_metadata_that_is_no_object_names_the_file(tmp_path, value):
    path = fetched_tar(tmp_path, lambda _: value)
    with pytest.raises(UserError, match=r"changed\.tar: 000000000\.json does not parse"):
        list(shard_reader.read_images(path, ANY_IMAGE))


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_passed_over(tmp_path, kind):
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        info = tarfile.TarInfo("000000000.jpg")
        info.type, info.linkname = kind, "/etc/hostname"
        tar.addfile(info)
    with pytest.raises(ValueError, match=r"'000000000\.jpg' is not a regular file"):
        list(read_image_shard(str(tmp_path / "odd.tar")))


def test_a_key_that_comes_twice_is_not_passed_over(tmp_path):
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for name in ("1.jpg", "2.jpg", "1.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg())
            tar.addfile(info, io.BytesIO(jpeg()))
    with pytest.raises(ValueError, match="'1' comes twice"):
        list(read_image_shard(str(tmp_path / "twice.tar")))
