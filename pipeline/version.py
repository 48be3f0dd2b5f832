"""The one place that holds the version, which setup.cfg reads from here; and the versions that decide the bytes."""

from __future__ import annotations

import contextlib
import importlib.metadata

VERSION = "0.1.0"

DECISIVE = ("torch", "tokenizers", "opencv-python-headless", "pillow", "ftfy")


def decisive_versions() -> dict[str, str]:
    """The version of pairmill, and those of the packages of DECISIVE that are installed."""
    versions = {"pairmill": VERSION}
    for name in DECISIVE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # select needs no torch
            versions[name] = importlib.metadata.version(name)
    return versions
