"""Packs listed images for `pairmill encode`: `python -m sample.clipart.pack --list pairs.jsonl.gz --images
'images-*.tar' --output DIR`.

The list has a JSON object a line, of an image in one of the tar files: `file` is its name there, `captions` a list of
objects with `lang` and `text`, `redistributable` says whether its licence allows to pass it on. Images with true, an
English caption and a name that starts with one of the --prefix are kept. DIR receives `images/NNNNN.tar` in
img2dataset's layout (the image and its first English caption in lower case), and `captions.txt` for `pairmill
train-bpe`. The same input writes the same files.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from models.errors import UserError
from models.files import write_atomically
from sample.scenes.make import tar_bytes

IMAGES_PER_TAR = 1000


def listed_captions(path: Path, prefixes: tuple[str, ...]) -> dict[str, str]:
    """The captions to keep by image file, in the order of the files' names. Raises UserError for a malformed line."""
    captions: dict[str, str] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                english = [caption["text"] for caption in row["captions"] if caption["lang"] == "en"]
                if row["redistributable"] and english and row["file"].startswith(prefixes):
                    captions[row["file"]] = english[0].lower()
            except (ValueError, LookupError, TypeError) as error:
                raise UserError(
                    f"--list: {path}, line {number}: {error!r}; each needs file, captions with lang and text, "
                    "redistributable"
                ) from None
    return dict(sorted(captions.items()))


def read_images(pattern: str, files: Mapping[str, str]) -> dict[str, bytes]:
    """The bytes of the named images in the tar files of a glob. Raises UserError if one of them is missing."""
    found: dict[str, bytes] = {}
    for path in sorted(glob.glob(pattern)):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name in files and (data := tar.extractfile(member)) is not None:
                    found[member.name] = data.read()
    if missing := files.keys() - found.keys():
        raise UserError(f"--images {pattern}: {len(missing):,} images of the list are missing, such as {min(missing)}")
    return found


def write_pack(output: Path, captions: Mapping[str, str], images: Mapping[str, bytes]) -> None:
    """Writes all files of the module's description."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    files = list(captions)
    for first in range(0, len(files), IMAGES_PER_TAR):
        members = (
            member
            for number, file in enumerate(files[first : first + IMAGES_PER_TAR], first)
            for member in pair_members(number, file, captions[file], images[file])
        )
        write_atomically(output / "images" / f"{first // IMAGES_PER_TAR:05d}.tar", tar_bytes(members))
    write_atomically(output / "captions.txt", "\n".join([*captions.values(), ""]))


def pair_members(number: int, file: str, caption: str, image: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a pair in a tar: its image, its caption, and what img2dataset says of both."""
    key = f"{number:09d}"
    yield f"{key}{PurePosixPath(file).suffix}", image
    yield f"{key}.txt", caption.encode()
    yield f"{key}.json", json.dumps({"key": key, "caption": caption, "url": file}).encode()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sample.clipart.pack", description=__doc__.split(":")[0])
    parser.add_argument("--list", type=Path, required=True, metavar="FILE", help="JSON lines, compressed with gzip")
    parser.add_argument("--images", required=True, metavar="PATTERN", help="glob of the tar files with the images")
    parser.add_argument(
        "--prefix", action="append", metavar="TEXT", help="keep files whose names start so (repeatable; default: all)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    args = parser.parse_args(arguments)
    captions = listed_captions(args.list, tuple(args.prefix or [""]))
    write_pack(args.output, captions, read_images(args.images, captions))
    print(f"{len(captions):,} images in {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
