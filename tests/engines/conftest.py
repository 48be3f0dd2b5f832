"""What the tests of engines share: Prism, and a dataset by the local runner to compare with."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_jobs import build_dataset
from tests.support.engines import prism
from tests.support.paths import files_of

Build = Callable[..., dict[str, bytes]]


@pytest.fixture(scope="package")
def prism_port(tmp_path_factory):
    """The port of Prism's job service."""
    with prism(tmp_path_factory.mktemp("prism")) as port:
        yield port


@pytest.fixture(scope="package")
def command(server, fetch_options, tiny_dvae, tmp_path_factory) -> list[str]:
    """Options of a build of a small list of the sample's images, without its output."""
    with urllib.request.urlopen(f"{server.url}/sources/cc3m.tsv") as answer:
        rows = [line for line in answer if b"/images/" in line]  # none of the routes that keep a client waiting
    small = tmp_path_factory.mktemp("lists") / "cc3m.tsv"
    small.write_bytes(b"".join(rows[:60]))

    sizes = ["--draws=2", "--pairs-per-shard=12", "--rows-per-file=20", "--val-share=0.1", "--pairs-per-unit=9"]
    return [f"--source=cc3m={small}", *fetch_options, *sizes, f"--image-tokenizer={tiny_dvae}"]


@pytest.fixture(scope="package")
def build(command, tmp_path_factory) -> Build:
    """Builds it with further options, and gives the dataset's files."""

    def run(*options: str) -> dict[str, bytes]:
        output = tmp_path_factory.mktemp("engines") / "out"
        assert build_dataset.main([*command, f"--output={output}", *options]) == 0
        return files_of(output)

    return run


@pytest.fixture(scope="package")
def built(build) -> dict[str, bytes]:
    """The files of the dataset by the local runner with one worker."""
    return build("--direct_num_workers=1")


@pytest.fixture(scope="package")
def work_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")
