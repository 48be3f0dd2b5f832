"""stats, show, verify and diff of a dataset behind a URL: fsspec's `memory://` for stores, a web server for https://."""

from __future__ import annotations

import fsspec
import pytest

from pipeline.cli import main
from tests.support.folder_server import serving
from tests.support.records import write_records


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "dataset"
    write_records(folder)
    return folder


@pytest.fixture(params=["memory", "http"])
def url(request, local):
    if request.param == "http":
        with serving(local.parent) as address:
            yield f"{address}/dataset"
        return
    memory = fsspec.filesystem("memory")
    memory.put(f"{local}/", "/bucket/dataset/", recursive=True)
    yield "memory://bucket/dataset"
    memory.rm("/bucket", recursive=True)


def output_of(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [["stats"], ["stats", "--json"], ["show", "--count=3"], ["verify", "--workers=1"]])
def test_a_url_gives_what_the_folder_gives(local, url, command, capsys):
    name, *options = command
    expected = output_of(capsys, name, str(local), *options)
    assert output_of(capsys, name, url, *options) == expected.replace(str(local), url)


def test_a_url_is_compared_with_the_folder(local, url, capsys):
    assert "60 pairs in both" in output_of(capsys, "diff", str(local), url)
    assert main(["diff", url, f"{url}/"]) == 2


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_damage_behind_a_url_is_found(url, capsys):
    memory = fsspec.filesystem("memory")
    memory.rm("/bucket/dataset/ledger.json")
    memory.pipe("/bucket/dataset/extra", b"x")
    assert main(["verify", url, "--workers=1"]) == 1
    out = capsys.readouterr().out
    assert "ledger.json: missing" in out and "extra: not in the manifest" in out


def test_a_web_server_is_not_repaired(capsys):
    assert main(["verify", "https://example.org/dataset", "--repair"]) == 2
    assert "cannot be written to; copy it" in capsys.readouterr().err
