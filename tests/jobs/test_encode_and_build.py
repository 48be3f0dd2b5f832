"""One img2dataset folder by `encode` and by `build`: one dataset, but for what `build` rejects by caption."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_jobs import build_dataset, encode_shards
from models.data.format import index_path
from models.tokenizers.text import BUNDLED_BPE
from pipeline.dataset import existing
from pipeline.inspection import faults
from pipeline.records import EncodedPair
from tests.support.images import jpeg
from tests.support.img2dataset_output import image_row, write_output

CAPTION_REASONS = {"caption_too_short", "no_caption"}


def dataset(job, output: Path, tokenizer: str, *options: str) -> Path:
    assert (
        job.main(
            [
                *options,
                f"--output={output}",
                f"--image-tokenizer={tokenizer}",
                f"--text-tokenizer={BUNDLED_BPE}",
                "--direct_num_workers=1",
            ]
        )
        == 0
    )
    assert faults.verify(str(output), workers=1) == []
    return output


def build(folder: Path, output: Path, tokenizer: str) -> Path:
    options = ("--allow-address=127.0.0.0/8", "--retries=0")
    return dataset(build_dataset, output, tokenizer, f"--source=img2dataset={folder}", *options)


def records(output: Path) -> dict[str, EncodedPair]:
    [dataset] = existing.open_existing([str(output)])
    shards = [(shard, existing.file_of(dataset, index_path(shard.path))) for shard in dataset.manifest.shards]
    return {record.key: record for files in shards for record in existing.read_records(str(output), *files)}


def rejects(output: Path) -> dict[int, dict]:
    return {row["row"]: row for row in pq.read_table(output / "rejects").to_pylist()}


def account(output: Path) -> dict:
    return json.loads((output / "ledger.json").read_text())["sources"]["img2dataset"]


def write_folder(folder: Path, form: str) -> Path:
    """Thirteen rows, of which each of the last eight has something of its own."""
    rows = [
        *(image_row(number) for number in range(5)),
        image_row(5, caption="  A &amp; B: two  dogs on the beach"),  # to be cleaned
        image_row(6, caption="Dog"),
        image_row(7, caption=""),
        image_row(8),  # too wide
        image_row(9),  # damaged
        image_row(10),  # lost
        image_row(
            11,
            status="failed_to_download",
            error_message="HTTP Error 404: Not Found",
            original_width=None,
            original_height=None,
        ),
        image_row(12, url="http://127.0.0.1:1/0.jpg", caption=image_row(0)["caption"]),  # the first once more
    ]
    images = {row["key"]: jpeg(90, 80, seed=number) for number, row in enumerate(rows)}
    images |= {"000000008": jpeg(300, 80), "000000009": b"no image"}
    del images["000000010"], images["000000011"]
    return write_output(folder, form, rows, images)


@pytest.fixture(scope="module")
def built_of(tiny_dvae, tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """A folder of each form and what `build` makes of it, which takes seconds: once."""

    @functools.cache
    def built(form: str) -> tuple[Path, Path]:
        base = tmp_path_factory.mktemp(form)
        folder = write_folder(base / "images", form)
        return folder, build(folder, base / "build", tiny_dvae)

    return built


@pytest.mark.parametrize("form", ["webdataset", "files", "parquet"])
def test_both_ways_are_one_dataset(form, built_of, tiny_dvae, tmp_path):
    folder, built = built_of(form)
    encoded = dataset(encode_shards, tmp_path / "encode", tiny_dvae, f"--images={folder}")
    expected, actual = records(built), records(encoded)
    assert len(expected) == 6 and len(actual) == 8  # the size of the original, which is too wide, does not count
    assert {key: actual[key] for key in expected} == expected
    assert {actual[key].caption for key in actual.keys() - expected.keys()} == {"Dog", ""}
    assert "A & B: two dogs on the beach" in {record.caption for record in expected.values()}
    there, here = rejects(built), rejects(encoded)
    assert {row["reason"] for number, row in there.items() if number not in here} == CAPTION_REASONS
    failed = here.pop(11)
    assert (failed["reason"], failed["detail"]) == ("not_stored", "failed_to_download: HTTP Error 404: Not Found")
    assert there.pop(11)["reason"] == "connection"  # build tries again
    assert here == {number: row for number, row in there.items() if number in here}
    assert Counter(row["reason"] for row in here.values()) == Counter(
        ["aspect_ratio", "not_an_image", "not_stored", "duplicate_url"]
    )
    assert account(built)["read"] == account(encoded)["read"] == 13


def test_adding_to_what_build_made(built_of, tiny_dvae, tmp_path):
    folder, built = built_of("webdataset")
    added = dataset(encode_shards, tmp_path / "both", tiny_dvae, f"--images={folder}", f"--add-to={built}")
    assert records(added) == records(built)
    assert account(added)["read"] == account(built)["read"] == 13
    again = dataset(encode_shards, tmp_path / "again", tiny_dvae, f"--images={folder}", f"--add-to={added}")
    assert account(again) == account(added)
