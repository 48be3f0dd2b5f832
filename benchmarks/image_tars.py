"""Writes images and a list of their captions as tars in img2dataset's layout, which `pairmill score` and `encode` read.

    python -m benchmarks.image_tars LIST.jsonl.gz 'IMAGES/*.tar' OUTPUT

A line of LIST is an object with `file`, the name of a member of the tars, and `title_and_keywords` or `captions`, of
which the English one is taken (`[{"lang": "en", "text": ...}]`). Images without a caption are left out. OUTPUT receives
a tar for each one of IMAGES, with KEY.png (or .jpg, .webp) and KEY.txt.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tarfile
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO, cast

from models.files import written_atomically
from models.pixels import IMAGE_SUFFIXES


def read_captions(path: Path) -> dict[str, str]:
    """Captions by the names of images."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["file"]: caption for row in rows if (caption := caption_of(row))}


def caption_of(row: dict[str, Any]) -> str:
    """The title with keywords, else the first English caption, else ""."""
    english = (caption["text"] for caption in row.get("captions", ()) if caption["lang"] == "en")
    return row.get("title_and_keywords") or next(english, "")


def write_pairs(images: Path, captions: dict[str, str], output: BinaryIO) -> int:
    """Writes the images of a tar that have captions; returns their number."""
    count = 0
    with tarfile.open(images) as given, tarfile.open(fileobj=output, mode="w") as tar:
        for member in given:
            suffix = Path(member.name).suffix
            if member.name not in captions or suffix.removeprefix(".") not in IMAGE_SUFFIXES:
                continue
            key = f"{images.stem}-{count:06d}"
            _add(tar, f"{key}{suffix}", cast(BinaryIO, given.extractfile(member)).read())
            _add(tar, f"{key}.txt", captions[member.name].encode())
            count += 1
    return count


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("images", help="glob of tar files")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    captions = read_captions(args.list)
    paths = sorted(map(Path, glob(args.images)))
    if not paths:
        parser.error(f"{args.images}: no such file; give the tars of images")
    args.output.mkdir(parents=True, exist_ok=True)
    for path in paths:
        with written_atomically(args.output / f"{path.stem}.tar") as file:
            count = write_pairs(path, captions, file)
        print(f"{path.stem}.tar: {count:,} pairs", flush=True)


if __name__ == "__main__":
    main()
