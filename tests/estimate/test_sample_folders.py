"""Folders of a few pairs or images that jobs read in place of all."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.estimate.sample_folders import write_images, write_pairs
from pipeline.output import schemas
from pipeline.output.ledger import read_ledger
from pipeline.records import Pair


def pair(number: int) -> Pair:
    url, caption = f"http://h.example/{number}.jpg", "a cat on a wall"
    return Pair(
        key=f"{number:032x}",
        source="cc3m",
        file="list",
        row=number,
        url=url,
        fallback_urls=(),
        caption=caption,
        raw_caption=caption,
        width=None,
        height=None,
        licence="",
        page_url="",
        split="train",
    )


def test_pairs_of_many_places(tmp_path):
    (tmp_path / "pairs").mkdir()
    rows = [pair(number)._asdict() for number in range(3000)]
    table = pa.Table.from_pylist(rows, schema=schemas.PAIRS)
    pq.write_table(table.slice(0, 2500), tmp_path / "pairs" / "0.parquet", row_group_size=200)
    pq.write_table(table.slice(2500), tmp_path / "pairs" / "1.parquet")
    assert write_pairs(str(tmp_path), str(tmp_path / "sample"), 160) == 160
    found = pq.read_table(tmp_path / "sample" / "pairs")["key"].to_pylist()
    assert len(set(found)) == 160
    assert set(found) <= set(table["key"].to_pylist())
    [counts] = read_ledger(str(tmp_path / "sample"))["sources"].values()
    assert counts == {"read": 160, "kept": 160, "rejected": {}}
    assert write_pairs(str(tmp_path), str(tmp_path / "all"), 5000) == 3000


def write_shard(folder: Path, number: int, images: int) -> str:
    """A shard as img2dataset writes it, with rows that failed in its table."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{number:05d}.tar"
    with tarfile.open(path, "w") as tar:
        for image in range(images):
            for ending in ("jpg", "txt"):
                info = tarfile.TarInfo(f"{number:05d}{image:04d}.{ending}")
                info.size = 2000
                tar.addfile(info, io.BytesIO(bytes(info.size)))
    keys = [f"{number:05d}{image:04d}" for image in range(images + 5)]
    status = ["success"] * images + ["failed_to_download"] * 5
    pq.write_table(pa.table({"key": keys, "status": status}), folder / f"{number:05d}.parquet")
    return str(path)


def test_images_of_many_shards(tmp_path):
    paths = [write_shard(tmp_path / "images", number, 40) for number in range(20)]
    stratum = write_images(paths, str(tmp_path / "sample"), 64)
    assert len(stratum.ranges) == 16 and stratum.sampled == 64
    assert abs(stratum.rows()[0] - 800) < 80
    name = Path(stratum.ranges[3].file_range.path).name
    with tarfile.open(tmp_path / "sample" / name) as tar:
        assert len(tar.getnames()) == 8
    assert pq.read_table(tmp_path / "sample" / name.replace(".tar", ".parquet")).num_rows == 4


def test_a_shard_that_is_no_tar_is_read_whole(tmp_path):
    table = tmp_path / "images" / "00000.parquet"
    table.parent.mkdir()
    columns = {"key": ["0"], "status": ["success"], "url": ["http://h/0.jpg"], "caption": ["a cat"], "jpg": [b"data"]}
    pq.write_table(pa.table(columns), table)
    stratum = write_images([str(table)], str(tmp_path / "sample"), 64)
    assert (stratum.sampled, stratum.rows()[0]) == (1, 1)
    assert (tmp_path / "sample" / "00000.parquet").samefile(table)
