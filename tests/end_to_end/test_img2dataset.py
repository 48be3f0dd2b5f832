"""img2dataset itself, run on the sample: what it writes is read here, and what is written here looks like it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_jobs import encode_shards, fetch_images, select_pairs
from models.data.format import read_manifest
from models.tokenizers.text import BUNDLED_BPE
from pipeline.output.ledger import read_ledger
from pipeline.output.parquet import files_in, read_rows
from pipeline.records import Pair
from tests.support.fetching import pair, write_pairs
from tests.support.narrowing import required
from tests.support.paths import ROOT

PROGRAM = shutil.which("img2dataset", path=Path(sys.executable).parent)
GONE = "odd-routes/status/404/x.jpg"

pytestmark = pytest.mark.skipif(not PROGRAM, reason="make peers")


@pytest.fixture(scope="module")
def urls(server) -> list[str]:
    names = sorted(path.name for path in (ROOT / "sample" / "images").iterdir())[::20]
    return [f"{server.url}/images/{name}" for name in names] + [f"{server.url}/{GONE}"]


@pytest.fixture(scope="module")
def theirs(urls, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("img2dataset")
    lines = [f"{url}\tA photograph of number {n} of the sample\n" for n, url in enumerate(urls)]
    (folder / "list.tsv").write_text("url\tcaption\n" + "".join(lines))
    subprocess.run(
        [
            required(PROGRAM),
            f"--url_list={folder / 'list.tsv'}",
            "--input_format=tsv",
            "--url_col=url",
            "--caption_col=caption",
            f"--output_folder={folder / 'out'}",
            "--output_format=webdataset",
            "--image_size=256",
            "--resize_mode=keep_ratio",
            "--processes_count=1",
            "--thread_count=4",
        ],
        env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder / "out"


def test_encode_reads_it(theirs, urls, tiny_dvae, tmp_path):
    assert (
        encode_shards.main(
            [
                f"--images={theirs}/*.tar",
                f"--output={tmp_path / 'out'}",
                "--direct_num_workers=1",
                f"--image-tokenizer={tiny_dvae}",
                f"--text-tokenizer={BUNDLED_BPE}",
            ]
        )
        == 0
    )
    account = read_ledger(str(tmp_path / "out"))["sources"]["img2dataset"]
    stored = json.loads((theirs / "00000_stats.json").read_bytes())["successes"]
    assert account["read"] == len(urls) == stored + 1
    assert account["rejected"]["fetch"]["not_stored"] == 1
    manifest = read_manifest(tmp_path / "out")
    assert manifest.pairs("train") + manifest.pairs("val") == account["kept"] > stored / 2


def test_select_reads_it(theirs, urls, tmp_path):
    assert (
        select_pairs.main([f"--source=img2dataset={theirs}", f"--output={tmp_path / 'out'}", "--direct_num_workers=1"])
        == 0
    )
    account = read_ledger(str(tmp_path / "out"))["sources"]["img2dataset"]
    assert account["read"] == len(urls)
    pairs = [row for path in files_in(str(tmp_path / "out"), "pairs") for row in read_rows(path, Pair)]
    assert len(pairs) == account["kept"] > len(urls) / 2
    for one in pairs:  # what it has is not fetched again, what it lacks may be
        assert bool(one.stored_at) == (not one.url.endswith(GONE))


def test_ours_has_its_keys(theirs, urls, tmp_path):
    write_pairs(tmp_path / "pairs", [pair(url) for url in urls])
    assert (
        fetch_images.main(
            [
                f"--pairs={tmp_path / 'pairs'}",
                f"--output={tmp_path / 'out'}",
                "--resize=256",
                "--direct_num_workers=1",
                "--allow-address=127.0.0.0/8",
                "--per-host-rate=500",
                "--min-side=1",
                "--min-ratio=0.01",
                "--max-ratio=100",
            ]
        )
        == 0
    )
    found = []
    for folder in (theirs, tmp_path / "out"):
        schema = pq.read_schema(folder / "00000.parquet")
        with tarfile.open(folder / "00000.tar") as tar:
            names = [info.name for info in tar]
            said = json.load(required(tar.extractfile(next(name for name in names if name.endswith(".json")))))
        found.append(
            (
                dict(zip(schema.names, schema.types, strict=True)),
                said,
                {name.split(".")[1] for name in names},
                json.loads((folder / "00000_stats.json").read_bytes()),
            )
        )
    (columns, said, endings, statistics), (our_columns, our_said, our_endings, our_statistics) = found
    assert columns.items() <= our_columns.items()
    assert said.keys() == columns.keys()
    assert {name: type(our_said[name]) for name in said} == {name: type(value) for name, value in said.items()}
    assert our_endings == endings == {"jpg", "json", "txt"}
    counts = ("count", "successes", "failed_to_download", "failed_to_resize")
    assert [our_statistics[name] for name in counts] == [statistics[name] for name in counts]
