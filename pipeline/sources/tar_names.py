"""Names of tar files and of their members, as webdataset reads them: KEY.ENDING, the key up to the first dot."""

from __future__ import annotations

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def is_tar(path: str) -> bool:
    return path.endswith(TAR_SUFFIXES)


def without_tar_suffix(path: str) -> str:
    return next((path.removesuffix(suffix) for suffix in TAR_SUFFIXES if path.endswith(suffix)), path)


def is_hidden(name: str) -> bool:
    """Whether a file is none of the data: ".DS_Store", "._000000000.jpg" of macOS."""
    return name.rsplit("/", 1)[-1].startswith(".")


def split_name(name: str) -> tuple[str, str]:
    """Key, with the folder, and ending, in lower case, of a member."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()
