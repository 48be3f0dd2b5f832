"""The files of an image tokenizer on their way to workers that do not see the launcher's disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.files import sha256_of, write_atomically
from pipeline.output import files as output_files
from pipeline.output.names import TOKENIZERS_FOLDER, WORK_FOLDER


class StagedFile(NamedTuple):
    """A copy of a file, by its content."""

    path: str  # in the work folder of an output
    sha256: str


def stage(output: str, files: Sequence[Path]) -> tuple[StagedFile, ...]:
    """Copies files into the work folder, those that are not there yet."""
    return tuple(_stage(output, file) for file in files)


def _stage(output: str, file: Path) -> StagedFile:
    sha256 = sha256_of(file)
    path = output_files.join(output, WORK_FOLDER, TOKENIZERS_FOLDER, sha256 + file.suffix)
    if not output_files.exists(path):
        output_files.write_atomically(path, file.read_bytes())
    return StagedFile(path, sha256)


def fetch(staged: Sequence[StagedFile]) -> list[Path]:
    """The files on this machine's disk: each is copied once into a temporary folder, under its hash, which all
    processes of this user share."""
    return [_fetch(file) for file in staged]


def _fetch(staged: StagedFile) -> Path:
    folder = Path(tempfile.gettempdir()) / f"pairmill-tokenizers-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / os.path.basename(staged.path)
    with contextlib.suppress(FileNotFoundError):
        if sha256_of(path) == staged.sha256:
            return path
    write_atomically(path, output_files.read(staged.path))
    return path
