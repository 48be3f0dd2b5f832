"""The sample is whole, and its source files are what their formats say."""

import bz2
import collections
import csv
import gzip
import io
import json
import re
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.records import Reason
from sample import formats, make_oddities, make_sources
from tests.support.paths import ROOT

SAMPLE = ROOT / "sample"
SOURCES = SAMPLE / "sources"
IMAGES = make_sources.load_images()
EXPECTED = [json.loads(line) for line in (SOURCES / make_sources.EXPECTED).read_text("utf-8").splitlines()]


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)(data)


def source_lines(name: str) -> list[str]:
    return unpacked(SOURCES / name).decode().removesuffix("\n").split("\n")


def wit_records() -> list[list[str]]:
    text = unpacked(SOURCES / "wit_v1.sample.tsv.gz").decode()
    return list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))


# the images ---------------------------------------------------------------------------------------------------------


def test_every_image_is_described_and_opens_at_its_size():
    assert {path.name for path in (SAMPLE / "images").iterdir()} == set(IMAGES)
    for entry in IMAGES.values():
        with Image.open(SAMPLE / "images" / entry.file) as image:
            image.load()
            assert image.size == (entry.width, entry.height), entry.file


def test_captions_are_sentences_of_their_own():
    captions = [image.caption for image in IMAGES.values()]
    assert len(set(captions)) == len(captions)
    assert [caption for caption in captions if not 6 <= len(caption.split()) <= 20] == []


def test_every_image_is_free_and_credited():
    text = (SAMPLE / "CREDITS").read_text("utf-8")
    assert text == make_sources.credits_text()
    for image in IMAGES.values():
        assert image.licence in ("CC0-1.0", "public-domain")
        assert image.author and image.title and urlsplit(image.source_url).scheme in ("http", "https")
        assert f"images/{image.file} - {image.author} - " in text


def test_the_odd_files_can_be_made_again(tmp_path):
    make_oddities.write_oddities(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (SAMPLE / "odd").iterdir()}
    for path in tmp_path.iterdir():
        stored = SAMPLE / "odd" / path.name
        try:
            with Image.open(path) as new_image, Image.open(stored) as old_image:
                assert (new_image.mode, new_image.size) == (old_image.mode, old_image.size)
                new, old = (np.asarray(image.convert("RGBA"), np.float32) for image in (new_image, old_image))
        except (OSError, Image.DecompressionBombError):
            assert path.stem in ("bomb", "empty", "garbled", "page", "truncated")
        else:
            assert np.abs(new - old).mean() < 2, path.name  # codecs of other versions round otherwise


def test_the_odd_files_are_odd():
    def opened(name):
        return Image.open(SAMPLE / "odd" / name)

    assert opened("cmyk.jpg").mode == "CMYK" and opened("grey16.png").mode.startswith("I")
    assert opened("animated.gif").n_frames == 3
    assert opened("palette.png").mode == "P" and "transparency" in opened("palette.png").info
    assert opened("transparent.png").getextrema()[3] == (0, 255)
    assert opened("half.jpg").width * 2 == opened("half.jpg").height
    assert opened("wide.jpg").width == opened("wide.jpg").height * 2 + 1
    assert opened("rotated.jpg").size == ImageOps.exif_transpose(opened("rotated.jpg")).size[::-1]
    assert (SAMPLE / "odd" / "bomb.png").stat().st_size < 200
    with pytest.raises(OSError, match="truncated"):
        opened("truncated.jpg").load()


# the source files -----------------------------------------------------------------------------------------------------


def test_the_source_files_and_tables_can_be_made_again(tmp_path):
    make_sources.write_sources(tmp_path)
    names = {path.name for path in SOURCES.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names:  # unpacked: zlib's successors compress to other bytes
        assert unpacked(tmp_path / name) == unpacked(SOURCES / name), name
    page = (SAMPLE / "README.md").read_text("utf-8")
    assert make_sources.readme(page) == page


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        make_sources.write_sources(tmp_path / folder, "http://127.0.0.1:1234/")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_nearly_every_reason_is_to_be_seen():
    assert {entry["expected"] for entry in EXPECTED} == {"kept", *(reason.value for reason in Reason)} - {
        Reason.HASH_MISMATCH.value,  # only a list of hashes could show it
        Reason.DAMAGED_FILE.value,
        Reason.UNEXPECTED.value,
        Reason.UNKNOWN_TEMPLATE.value,
        Reason.NOT_STORED.value,  # these four hold no images
        Reason.BAD_CODES.value,  # nor codes
        Reason.DUPLICATE_IMAGE.value,  # two captions of one image are two pairs
        # what only an option rejects
        Reason.LICENCE.value,
        Reason.MACHINE_TAG.value,
        Reason.NOT_IN_SUBSET.value,
        Reason.REPETITION.value,
        Reason.CAPITALISATION.value,
        Reason.PERSONAL_DATA.value,
        Reason.EXCLUDED.value,
        Reason.SAMPLED_OUT.value,
        Reason.BALANCED_OUT.value,
        Reason.NO_CONCEPT.value,
        Reason.FILTERED_OUT.value,
        Reason.LOW_SIMILARITY.value,
        Reason.UNSAFE.value,
        Reason.WATERMARK.value,
        Reason.TEXT_IN_IMAGE.value,
        Reason.SEMANTIC_DUPLICATE.value,
        Reason.LOW_QUALITY.value,
        Reason.FACE.value,
        Reason.DAMAGED_SHARD.value,  # what `repack`, `filter` and `verify --repair` leave out
    }


def test_each_source_has_enough_good_pairs():
    kept = collections.Counter(entry["source"] for entry in EXPECTED if entry["expected"] == "kept")
    assert kept.keys() == set(make_sources.SOURCES) and all(70 <= count <= 130 for count in kept.values()), kept


def test_duplicates_come_after_what_they_repeat():
    kept = set()
    for entry in EXPECTED:
        assert not entry["expected"].startswith("duplicate") or entry["picture"] in kept
        if entry["expected"] == "kept":
            assert entry["picture"] not in kept or entry["note"].endswith("another caption")
            kept.add(entry["picture"])


def expected_of(name: str) -> list[dict]:
    entries = [entry for entry in EXPECTED if entry["file"] == name]
    assert [entry["row"] for entry in entries] == list(range(len(entries)))
    return entries


@pytest.mark.parametrize(("name", "url_field"), [("cc3m.tsv", 1), ("cc12m.tsv", 0)])
def test_conceptual_captions(name, url_field):
    for line, entry in zip(source_lines(name), expected_of(name), strict=True):
        fields = line.split("\t")
        assert (len(fields) == 1) if entry["expected"] == "malformed_row" else (fields[url_field] == entry["url"])


def test_cc3m_is_lower_case_and_tokenised():
    for line in source_lines("cc3m.tsv"):
        caption = line.partition("\t")[0]
        assert caption == caption.lower() and not re.search(r"\w[.,;!?](\s|$)", caption), caption


@pytest.mark.parametrize(
    ("caption", "published"),
    [
        ("A red apple, on the artist's table.", "a red apple , on the artist 's table ."),
        ("Self-portrait of Berthe Morisot on 12/03/2009", "self-portrait of artist on 12/03/2009"),
    ],
)
def test_cc3m_caption(caption, published):
    assert formats.cc3m_caption(caption) == published


def test_cc12m_hides_names():
    text = unpacked(SOURCES / "cc12m.tsv").decode()
    assert text.count("<PERSON>") >= 2 and "Morisot" not in text and "Gogh" not in text


@pytest.mark.parametrize(("name", "count"), [("yfcc100m_dataset-0", 23), ("yfcc100m_dataset-1.bz2", 25)])
def test_yfcc100m(name, count):
    ids = set()
    for number, (line, entry) in enumerate(zip(source_lines(name), expected_of(name), strict=True)):
        fields = line.split("\t")
        if entry["expected"] == "malformed_row":
            assert len(fields) not in (23, 25)
            continue
        assert len(fields) == count
        if count == 25:
            assert fields[0] == str(number) and fields[2] == formats.yfcc_hash(fields[16])
            fields = [fields[1], *fields[3:]]
        values = dict(zip(formats.YFCC_COLUMNS, fields, strict=True))
        ids.add(values["photoid"])
        assert values["downloadurl"] == entry["url"]
        assert re.fullmatch(r"\d+@N\d\d", values["uid"]) and values["licensename"].endswith(" License")
        assert re.fullmatch(r"null|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.0", values["datetaken"])
        assert values["marker"] == ("1" if entry["expected"] == "video" else "0")
        assert not set(values["title"] + values["description"]) & set(" \n\t<")
    assert len(ids) > 50


def test_yfcc100m_form_encoding():
    lines = source_lines("yfcc100m_dataset-0") + source_lines("yfcc100m_dataset-1.bz2")
    line = next(line for line in lines if "magnifying_glass_plus" in line)
    assert "a+%2B+in" in line and "with a + in" not in line
    assert "icon with a + in its lens: zoom in, 100% & more." in unquote_plus(line)


def test_yfcc_hash_is_the_published_one():
    url = "http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg"
    assert formats.yfcc_hash(url) == "4e2f7a26a1dfbf165a7e30bdabf7e72a"


def test_wit():
    header, *records = wit_records()
    assert header == list(formats.WIT_COLUMNS) and len(header) == 17
    assert header.index("original_height") < header.index("original_width")
    for record, entry in zip(records, expected_of("wit_v1.sample.tsv.gz"), strict=True):
        if entry["expected"] == "malformed_row":
            assert len(record) == 12
            continue
        values = dict(zip(header, record, strict=True))
        assert values["image_url"] == entry["url"]
        if entry["expected"] == "kept" and values["original_width"]:
            ratio = int(values["original_width"]) / int(values["original_height"])
            assert 0.5 <= ratio <= 2
    cells = [cell for record in records for cell in record]
    assert any('"' in cell for cell in cells) and any("\n" in cell for cell in cells)
    assert len({record[0] for record in records}) > 10
    assert any(cell.startswith("English: ") for cell in cells)
    assert {"image/svg+xml", "image/tiff", "application/pdf"} <= set(cells)
