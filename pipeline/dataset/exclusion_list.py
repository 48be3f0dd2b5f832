"""`pairmill hash`: writes a list of hashes of images, which `--exclude` keeps out of a dataset.

For evaluation sets: `pairmill hash 'val2014/*.jpg' --output coco-val.hashes`. Reads the images in tar files, too."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from models.command_line import CommandParser
from models.errors import UserError
from models.files import check_file_place, output_folder
from models.next_command import print_output
from models.progress import Progress, ProgressLine, print_above
from pipeline.dataset import image_signature
from pipeline.images.validate import ANY_IMAGE, ImageRejected, decode
from pipeline.output import files
from pipeline.sources.paths import expand


def files_of(path: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a file, or of every file in a tar but .txt and .json."""
    if not path.endswith(".tar"):
        with open(path, "rb") as file:
            yield os.path.basename(path), file.read()
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if (content := tar.extractfile(member)) and not member.name.endswith((".txt", ".json")):
                yield f"{os.path.basename(path)}/{member.name}", content.read()


def _with_share(paths: Sequence[str]) -> Iterator[tuple[tuple[str, bytes], float]]:
    """What `files_of` gives for each path, with the share of all bytes that were read."""
    sizes, before = [os.path.getsize(path) for path in paths], 0
    for path, size in zip(paths, sizes, strict=True):
        read = 0
        for name, data in files_of(path):
            read = min(size, read + len(data))
            yield (name, data), (before + read) / max(1, sum(sizes))
        before += size


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser("hash", __doc__.split("\n")[0])
    parser.add_argument("images", metavar="PATTERN", help="image files, or tar files of them: a path or a glob")
    parser.add_argument("--output", required=True, metavar="FILE", help="list of hashes to write")
    args = parser.parse_args(arguments)
    files.check_installed(args.output)
    is_local = files.is_local(args.output)
    with output_folder(os.path.dirname(args.output) or ".") if is_local else contextlib.nullcontext():
        if is_local:
            check_file_place("--output", args.output)
        lines, unreadable = _hash_lines(args.images)
        files.write_atomically(args.output, "".join(lines).encode())
    print(f"hash: {len(lines):,} images" + f", {unreadable:,} unreadable" * bool(unreadable))
    print_output("hash", args.output, ["encode", "--images", "IMAGES", "--exclude", args.output, "--output", "DATASET"])
    return 0


def _hash_lines(images: str) -> tuple[list[str], int]:
    """The lines of the list, and the number of images that can't be read."""
    lines, unreadable = [], 0
    with ProgressLine("hash") as line:
        for (name, data), share in _with_share(expand(images)):
            try:
                image = decode(data, ANY_IMAGE)
            except ImageRejected as error:
                unreadable += 1
                print_above(f"hash: {name}: {error}; left out", sys.stderr)
                continue
            lines.append(hash_line(hashlib.sha256(data).hexdigest(), image_signature.compute_signature(image), name))
            line.show(Progress(len(lines), "images", share=share))
    return lines, unreadable


class ExcludedImage(NamedTuple):
    """A line of the list that has a signature."""

    line: int  # from 1
    sha256: str  # 64 hex digits, lower case
    signature: bytes  # of image_signature
    name: str  # in the list; its sha256 if it has none


class ExclusionList(NamedTuple):
    """The images of a list."""

    names: dict[str, str]  # sha256 -> name in the list
    images: list[ExcludedImage]  # those with a signature


def read_hashes(path: str) -> ExclusionList:
    """Reads a file that `pairmill hash` wrote: a line for each image with its sha256, its signature in base64 and its
    name, separated by tabs. A line may end after the sha256: then only identical files are excluded. Raises UserError.
    """
    names: dict[str, str] = {}
    images = []
    if not files.exists(path):
        raise UserError(f"--exclude {path}: no such file; write it with `pairmill hash`")
    for number, line in enumerate(files.read(path).decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        sha256, _, remainder = line.strip().partition("\t")
        encoded, _, name = remainder.partition("\t")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except ValueError:
            signature = b"?"
        if len(sha256) != 64 or len(signature) not in (0, image_signature.SIGNATURE_BYTES):
            raise UserError(
                f"--exclude {path}, line {number}: not an image's hash; write the file with `pairmill hash`"
            )
        names[sha256.lower()] = name or sha256
        if signature:
            images.append(ExcludedImage(number, sha256.lower(), signature, name or sha256))
    return ExclusionList(names, images)


def hash_line(sha256: str, signature: bytes, name: str) -> str:
    """One line of the list."""
    return f"{sha256}\t{base64.b64encode(signature).decode()}\t{' '.join(name.split())}\n"
