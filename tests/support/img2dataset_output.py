"""What img2dataset 1.47 writes, made without it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def image_row(number: int, **others: Any) -> dict[str, Any]:
    """A row of its Parquet file and the .json of a sample."""
    row = {
        "url": f"http://127.0.0.1:1/{number}.jpg",
        "caption": f"A brown dog runs along the beach, number {number}",
        "key": f"{number:09d}",
        "status": "success",
        "error_message": None,
        "width": 90,
        "height": 80,
        "original_width": 900,
        "original_height": 100,
        "exif": "{}",
        "sha256": "ab" * 32,
    }
    return row | others


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def members_of(row: dict[str, Any], data: bytes, ending: str = "jpg") -> list[tuple[str, bytes]]:
    key = row["key"]
    text = json.dumps(row, indent=4).encode()
    return [(f"{key}.{ending}", data), (f"{key}.txt", row["caption"].encode()), (f"{key}.json", text)]


def write_output(folder: Path, form: str, rows: list[dict[str, Any]], images: dict[str, bytes]) -> Path:
    """A shard in img2dataset's `webdataset`, `files` or `parquet` form; `images` by key are JPEG."""
    folder.mkdir()
    table = pa.Table.from_pylist(rows)
    samples = [(row, images[row["key"]]) for row in rows if row["key"] in images]
    if form == "parquet":
        table = table.append_column("jpg", pa.array([images.get(row["key"]) for row in rows], pa.binary()))
    elif form == "webdataset":
        write_tar(folder / "00000.tar", [member for sample in samples for member in members_of(*sample)])
    else:
        (folder / "00000").mkdir()
        for name, data in (member for sample in samples for member in members_of(*sample)):
            (folder / "00000" / name).write_bytes(data)
    pq.write_table(table, folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    return folder
