"""A unit of pairs becomes files in img2dataset's layout, once, however often it is begun."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from models.errors import UserError
from pipeline.fetch.stage import UnitResult, fetch_unit, finish_fetch
from pipeline.fetch.units import Unit
from pipeline.images.fetched import FetchedImage
from pipeline.images.shard_reader import list_pairs, read_images
from pipeline.images.shard_writer import ShardWriter, StoreConfig
from pipeline.images.validate import ImageConfig
from pipeline.output import files as output_files
from pipeline.output.counts import BYTES, DECODE_S, DOWNLOAD_S, SLOTS, Step, counts_folder, sum_of_files
from pipeline.output.progress import read_progress, remove_counts, write_plan
from tests.support.fetching import QUICK, pair
from tests.support.hostile import HostileServer
from tests.support.image_records import records_of
from tests.support.narrowing import instances, required
from tests.support.paths import ROOT

IMAGES = ROOT / "sample" / "images"
NAMES = ["bison.jpg", "arcdetriomphe.webp", "lemon.png", "hedgehog.jpg"]
# What img2dataset writes into every .json, and the type of each where there is a image.
IMG2DATASET_FIELDS = {
    "caption": str,
    "url": str,
    "key": str,
    "status": str,
    "error_message": type(None),
    "width": int,
    "height": int,
    "original_width": int,
    "original_height": int,
    "exif": str,
    "sha256": str,
}


def unit_of(*urls: str, number: int = 3) -> Unit:
    pairs = [
        pair(url)._replace(caption=f"Image {n}, « naïf »", width=n, fallback_urls=[], licence="CC0 1.0")
        for n, url in enumerate(urls)
    ]
    return Unit(number, 10, sorted(pairs, key=lambda pair: pair.key))


def fetch(unit: Unit, output: Path, store: StoreConfig | None = None, attempt: int = 1) -> UnitResult:
    return fetch_unit(unit, str(output), attempt, QUICK, ImageConfig(), store or StoreConfig())


def files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


def members(output: Path, number: int = 3) -> dict[str, bytes]:
    with tarfile.open(output / f"{number:05d}.tar") as tar:
        return {info.name: required(tar.extractfile(info)).read() for info in tar}


def rows(output: Path, number: int = 3) -> list[dict]:
    return pq.read_table(output / f"{number:05d}.parquet").to_pylist()


def size_of(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


# --- a unit of the sample --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_unit(server) -> Unit:
    bad = ["odd/truncated.jpg", "odd-routes/status/404/x.jpg", "odd/page.jpg", "odd/wide.jpg"]
    return unit_of(*(f"{server.url}/images/{name}" for name in NAMES), *(f"{server.url}/{path}" for path in bad))


@pytest.fixture(scope="module")
def fetched(sample_unit, tmp_path_factory) -> tuple[Path, UnitResult]:
    output = tmp_path_factory.mktemp("fetched")
    return output, fetch(sample_unit, output)


def test_the_files_of_a_unit(fetched):
    assert files(fetched[0]).keys() == {"00003.tar", "00003.parquet", "00003_stats.json"}


def test_the_account_of_a_unit(fetched, sample_unit):
    account = fetched[1]
    assert account.number == 3
    assert [row.key for row in account.kept] == [row.key for row in sample_unit.pairs if "/images/" in row.url]
    assert {row.url.rpartition("/")[2]: row.reason for row in account.rejected} == {
        "truncated.jpg": "corrupt_image",
        "x.jpg": "http_404",
        "page.jpg": "not_an_image",
        "wide.jpg": "aspect_ratio",
    }
    assert {row.stage for row in account.rejected} == {"fetch"}


def test_images_are_stored_as_fetched(fetched, sample_unit):
    found = members(fetched[0])
    assert list(found) == sorted(found, key=lambda name: (name.split(".")[0], name.endswith("txt"), "json" in name))
    for position, row in enumerate(sample_unit.pairs):
        key, name = f"00003{position:04d}", row.url.rpartition("/")[2]
        if "/images/" not in row.url:
            assert not [name for name in found if name.startswith(key)]
            continue
        data = (IMAGES / name).read_bytes()
        assert found[f"{key}{Path(name).suffix}"] == data
        assert found[f"{key}.txt"].decode() == row.caption
        said = json.loads(found[f"{key}.json"])
        assert {field: type(said[field]) for field in IMG2DATASET_FIELDS} == IMG2DATASET_FIELDS
        assert said["reason"] is None and "detail" not in said
        width, height = size_of(data)
        assert said["sha256"] == hashlib.sha256(data).hexdigest()
        assert (said["width"], said["height"], said["original_width"], said["original_height"]) == (width, height) * 2
        assert (said["key"], said["url"], said["caption"], said["status"]) == (key, row.url, row.caption, "success")


def test_the_rows_of_a_unit(fetched, sample_unit):
    found = rows(fetched[0])
    assert IMG2DATASET_FIELDS.keys() == set(list(found[0])[: len(IMG2DATASET_FIELDS)])
    assert [row["key"] for row in found] == [f"00003{n:04d}" for n in range(8)]
    assert [row["pair_key"] for row in found] == [pair.key for pair in sample_unit.pairs]
    statuses = {row["url"].rpartition("/")[2]: (row["status"], row["reason"]) for row in found}
    assert statuses == dict.fromkeys(NAMES, ("success", None)) | {
        "truncated.jpg": ("failed_to_resize", "corrupt_image"),
        "page.jpg": ("failed_to_resize", "not_an_image"),
        "wide.jpg": ("failed_to_resize", "aspect_ratio"),
        "x.jpg": ("failed_to_download", "http_404"),
    }
    for row in found:
        assert (row["error_message"] is None) == (row["detail"] is None) == (row["status"] == "success")
        assert row["status"] == "success" or row["error_message"] == f"{row['reason']}: {row['detail']}"


def test_the_statistics_of_a_unit(fetched):
    assert json.loads((fetched[0] / "00003_stats.json").read_bytes()) == {
        "count": 8,
        "successes": 4,
        "failed_to_download": 1,
        "failed_to_resize": 3,
        "status_dict": {"aspect_ratio": 1, "corrupt_image": 1, "http_404": 1, "not_an_image": 1, "success": 4},
    }


def test_progress_counts_pairs_as_they_come_and_those_found_done(sample_unit, tmp_path, monkeypatch):
    write_plan(str(tmp_path), Step.FETCH, 8)
    seen, add = [], ShardWriter.add

    def look(self, outcome):
        seen.append(read_progress(str(tmp_path), "fetch").done)
        add(self, outcome)

    monkeypatch.setattr(ShardWriter, "add", look)
    fetch(sample_unit, tmp_path)
    assert seen == list(range(8))
    assert read_progress(str(tmp_path), "build").detail.startswith("50.0% fetched, ")
    counted = dict(zip(SLOTS, sum_of_files(required(counts_folder(str(tmp_path)))), strict=True))
    assert counted[BYTES] > sum(info.stat().st_size for info in tmp_path.glob("*.tar")) / 2
    assert counted[DOWNLOAD_S] > 0 and counted[DECODE_S] > 0
    remove_counts(str(tmp_path))
    fetch(sample_unit, tmp_path)
    found = read_progress(str(tmp_path), "build")
    assert (found.done, found.before) == (8, 8)


def test_a_complete_unit_asks_for_nothing(fetched, sample_unit, server):
    before, seen = files(fetched[0]), len(server.requests)
    assert fetch(sample_unit, fetched[0]) == fetched[1]
    assert len(server.requests) == seen
    assert files(fetched[0]) == before


def test_the_same_unit_gives_the_same_bytes(fetched, sample_unit, tmp_path):
    shuffled = sample_unit._replace(pairs=list(sample_unit.pairs))
    assert fetch(shuffled, tmp_path) == fetched[1]
    assert files(tmp_path) == files(fetched[0])


def test_stock_webdataset_reads_it(fetched, sample_unit):
    dataset = (
        webdataset.WebDataset(str(fetched[0] / "00003.tar"), shardshuffle=False)
        .decode("rgb8")
        .to_tuple("__key__", "jpg;png;webp", "txt", "json")
    )
    found = list(dataset)
    kept = [row for row in sample_unit.pairs if "/images/" in row.url]
    assert [(text, said["pair_key"]) for _, _, text, said in found] == [(row.caption, row.key) for row in kept]
    for _, rgb, _, said in found:
        assert rgb.shape == (said["height"], said["width"], 3)


def test_what_was_fetched_is_read_again(fetched, sample_unit):
    path = str(fetched[0] / "00003.tar")
    found = instances(read_images(path, ImageConfig()), FetchedImage)
    kept = [row for row in sample_unit.pairs if "/images/" in row.url]
    assert [one.pair for one in found] == kept == list(list_pairs(path))
    for one in found:
        assert one.data == (IMAGES / one.pair.url.rpartition("/")[2]).read_bytes()
        assert one.sha256 == hashlib.sha256(one.data).hexdigest()


# --- resized ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image_format", "pillow"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_resized(sample_unit, tmp_path, image_format, pillow):
    account = fetch(sample_unit, tmp_path, StoreConfig(resize=200, image_format=image_format))
    assert len(account.kept) == 4
    found = members(tmp_path)
    by_url = {row["url"].rpartition("/")[2]: row for row in rows(tmp_path)}
    for name in NAMES:
        width, height = size_of((IMAGES / name).read_bytes())
        row, image = by_url[name], Image.open(io.BytesIO(found[f"{by_url[name]['key']}.{image_format}"]))
        assert image.format == pillow
        assert image.size == (row["width"], row["height"])
        assert (row["original_width"], row["original_height"]) == (width, height)
        assert min(image.size) == min(200, width, height)  # never enlarged
        assert image.width / image.height == pytest.approx(width / height, abs=0.01)
        assert row["sha256"] == hashlib.sha256((IMAGES / name).read_bytes()).hexdigest()  # of what was fetched


# --- run again -------------------------------------------------------------------------------------------------------


@pytest.fixture
def flaky() -> Iterator[tuple[HostileServer, Unit]]:
    """A unit of which some fail at the first try, for a reason that passes, and two for one that does not."""
    with HostileServer() as server:
        paths = [f"{'unavailable_once' if n % 3 == 0 else 'good'}/{n}" for n in range(12)]
        yield server, unit_of(*map(server.url, [*paths, "status/404", "page"]))


@pytest.mark.parametrize("store", [StoreConfig(), StoreConfig(resize=100, image_format="webp")])
def test_a_second_attempt_asks_only_for_what_may_have_passed(flaky, tmp_path, tiny_dvae, store):
    server, unit = flaky
    first = fetch(unit, tmp_path / "twice", store)
    assert sorted(row.reason for row in first.rejected) == ["http_404", *["http_5xx"] * 4, "not_an_image"]
    finished, before = files(tmp_path / "twice"), len(server.log)
    second = fetch(unit, tmp_path / "twice", store, attempt=2)
    assert sorted(request.path for request in server.log[before:]) == [f"unavailable_once/{n}" for n in (0, 3, 6, 9)]
    assert sorted(row.reason for row in second.rejected) == ["http_404", "not_an_image"]
    assert len(second.kept) == 12
    assert fetch(unit, tmp_path / "once", store) == second
    # Unit 3 of 10: what was finished stays as it is, and beside it stands shard 13 with what was missing.
    found = files(tmp_path / "twice")
    assert finished.items() <= found.items()
    assert found.keys() - finished.keys() == {"00013.tar", "00013.parquet", "00013_stats.json"}
    assert [row["key"] for row in rows(tmp_path / "twice", 13)] == [f"00013000{n}" for n in range(4)]
    encoded = records_of(tmp_path / "twice", tiny_dvae)
    assert len(encoded) == 12
    assert encoded == records_of(tmp_path / "once", tiny_dvae)


def test_nothing_left_to_try_leaves_no_shard(flaky, tmp_path):
    server, unit = flaky
    account = fetch(unit, tmp_path / "out", attempt=2)  # also what a killed second attempt finds, in units it has not
    before, seen = files(tmp_path / "out"), len(server.log)
    assert fetch(unit, tmp_path / "out", attempt=5) == account
    assert files(tmp_path / "out") == before
    assert len(server.log) == seen


class Killed(BaseException):
    pass


def killed_at(moment: int, unit: Unit, output: Path, attempt: int, monkeypatch) -> None:
    """Fetches, and is killed before the tar (0), the Parquet file, the decision or the statistics (3)."""
    with monkeypatch.context() as patch:
        renames, whole_file = iter(range(10)), output_files.atomic_writer

        def kill_at_rename(path):
            if next(renames) == moment:
                raise Killed
            return whole_file(path)

        patch.setattr(output_files, "atomic_writer", kill_at_rename)
        with pytest.raises(Killed):
            fetch(unit, output, attempt=attempt)


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("moment", range(3))
def test_killed_while_it_writes(flaky, tmp_path, monkeypatch, attempt, moment):
    _, unit = flaky
    if attempt == 2:
        fetch(unit, tmp_path / "killed")
        shutil.copytree(tmp_path / "killed", tmp_path / "undisturbed")
    killed_at(moment, unit, tmp_path / "killed", attempt, monkeypatch)
    account = fetch(unit, tmp_path / "killed", attempt=attempt)
    assert len(account.kept) == 12
    assert fetch(unit, tmp_path / "undisturbed", attempt=attempt) == account
    assert files(tmp_path / "undisturbed") == files(tmp_path / "killed")


@pytest.mark.parametrize("attempt", [1, 2])
def test_killed_after_the_decision(flaky, tmp_path, monkeypatch, attempt):
    """What was decided on is completed, and nothing is asked for again."""
    server, unit = flaky
    if attempt == 2:
        fetch(unit, tmp_path / "killed")
    killed_at(3, unit, tmp_path / "killed", attempt, monkeypatch)
    before = len(server.log)
    account = fetch(unit, tmp_path / "killed", attempt=attempt)
    assert len(server.log) == before and len(account.kept) == {1: 8, 2: 12}[attempt]
    found = files(tmp_path / "killed")
    assert f"{unit.number + (attempt - 1) * unit.total:05d}_stats.json" in found
    assert fetch(unit, tmp_path / "killed", attempt=attempt) == account and files(tmp_path / "killed") == found


def test_other_pairs_are_another_unit(flaky, tmp_path):
    server, unit = flaky
    fetch(unit, tmp_path / "grown")
    more = unit._replace(pairs=sorted([*unit.pairs[2:], pair(server.url("good/more"))], key=lambda pair: pair.key))
    account = fetch(more, tmp_path / "grown")
    keys = {row.key for row in account.kept} | {row.key for row in account.rejected}
    assert keys == {pair.key for pair in more.pairs}
    fetch(more, tmp_path / "new")
    assert files(tmp_path / "grown") == files(tmp_path / "new")
    assert len(server.requests("good/more")) == 2


def test_an_output_that_was_deleted_meanwhile_is_not_finished(tmp_path):
    with pytest.raises(UserError, match="was deleted while the job ran"):
        finish_fetch(str(tmp_path), {}, [], [])
    assert not list(tmp_path.iterdir())
