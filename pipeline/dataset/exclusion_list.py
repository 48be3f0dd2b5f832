"""`pairmill hash`: pictures to the list of hashes that `--exclude` keeps out of a dataset.

For evaluation sets: `pairmill hash 'val2014/*.jpg' --output coco-val.hashes`. Tar files are looked into."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
import tarfile
from collections.abc import Iterator

from pipeline.dataset import image_signature
from pipeline.dataset.near_duplicates import hash_line
from pipeline.images.validate import PictureConfig, PictureRejected, decode
from pipeline.output import files
from pipeline.sources.paths import expand

ANY_PICTURE = PictureConfig(min_ratio=0, max_ratio=math.inf, min_side=1)


def files_of(path: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a file, or of every file in a tar."""
    if not path.endswith(".tar"):
        with open(path, "rb") as file:
            yield os.path.basename(path), file.read()
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and not member.name.endswith((".txt", ".json")):
                yield f"{os.path.basename(path)}/{member.name}", tar.extractfile(member).read()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill hash", description=__doc__.split("\n")[0])
    parser.add_argument("pictures", metavar="PATTERN", help="files, or tar files of files")
    parser.add_argument("--output", required=True, metavar="FILE")
    args = parser.parse_args(arguments)
    lines, unreadable = [], 0
    for path in expand(args.pictures):
        for name, data in files_of(path):
            try:
                picture = decode(data, ANY_PICTURE)
            except PictureRejected as error:
                unreadable += 1
                print(f"hash: {name}: {error}; left out", file=sys.stderr)
                continue
            lines.append(hash_line(hashlib.sha256(data).hexdigest(), image_signature.signature(picture), name))
    files.write_whole(args.output, "".join(lines).encode())
    print(f"hash: {len(lines):,} pictures in {args.output}" + f", {unreadable:,} unreadable" * bool(unreadable))
    return 0
