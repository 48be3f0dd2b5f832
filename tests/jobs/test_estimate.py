"""`--estimate`: what a job says that it will take, beside what it then makes."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import build_dataset, encode_shards, estimate, fetch_images, run, score_images, select_pairs
from models.errors import UserError
from pipeline.output.ledger import read_ledger
from tests.support.narrowing import required

ONE_WORKER = "--direct_num_workers=1"


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Fails a test that leaves anything of its sample behind."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(estimate, "_import_seconds", lambda module: 1.0)
    yield
    assert not list(folder.glob("pairmill-estimate-*"))


def estimated(main, arguments: list[str], capsys) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_build_of_two_sources(source_options, fetch_options, tiny_dvae, tmp_path, capsys):
    """Pairs and bytes are those of the real run; its time is another day's."""
    output = tmp_path / "dataset"
    options = [*source_options[2:], *fetch_options, f"--image-tokenizer={tiny_dvae}", f"--output={output}", ONE_WORKER]
    found = estimated(build_dataset.main, [*options, "--estimate"], capsys)
    assert not output.exists()

    assert build_dataset.main(options) == 0
    rows = read_ledger(str(output))["sources"].values()
    index = pq.read_table(output / "index", columns=["key"])
    assert found["rows"]["value"] == sum(row["read"] for row in rows)
    assert found["pairs"]["value"] == pytest.approx(len(index), rel=0.05)
    megabytes = required(re.search(r"this run, all workers together: ([\d.]+) MB downloaded", capsys.readouterr().out))
    # On a busy machine some downloads time out in one of the two runs; some images are a tenth of all bytes.
    assert found["download_bytes"]["value"] == pytest.approx(float(megabytes[1]) * 1e6, rel=0.25)
    stored = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    assert found["storage_bytes"]["value"] == pytest.approx(stored, rel=0.05)
    assert [stage["stage"] for stage in found["stages"]][:2] == ["start", "select"]  # the next may be done at once
    assert found["hours"]["16"]["value"] <= found["hours"]["1"]["value"]
    assert found["gpu_hours"]["value"] == 0


@pytest.fixture
def long_list(tmp_path) -> Path:
    """6,000 rows, of which a third has no URL and some of the others are there twice, next to each other."""
    path = tmp_path / "long.tsv"
    schemes = ("", "http", "http")
    caption = "a red boat on the calm sea at dawn"
    rows = (f"{caption} {row}\t{schemes[row % 3]}://h{row % 7}.example/{row // 2}.jpg\n" for row in range(6_000))
    path.write_text("".join(rows), encoding="utf-8")
    return path


def test_a_selection_from_a_few_of_its_rows(long_list, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.sources.source.RANGE_BYTES", 1 << 16)
    output = tmp_path / "selection"
    options = [f"--source=cc3m={long_list}", f"--output={output}", ONE_WORKER]
    found = estimated(select_pairs.main, [*options, "--estimate=600"], capsys)
    assert not output.exists()
    assert found["sample"]["rows"] == pytest.approx(600, rel=0.2)

    assert select_pairs.main(options) == 0
    counted = read_ledger(str(output))["sources"]["cc3m"]
    assert found["rows"]["value"] == pytest.approx(counted["read"], rel=0.05)
    assert found["pairs"]["value"] == pytest.approx(counted["kept"], rel=0.05)
    assert found["rows"]["low"] <= counted["read"] <= found["rows"]["high"]
    assert found["pairs"]["low"] <= counted["kept"] <= found["pairs"]["high"]


@pytest.fixture
def fetched(server, fetch_options, tmp_path, capsys) -> tuple[Path, dict, Path]:
    """A selection, what fetch estimates of it from a part, and the images that it fetches."""
    selection, images = tmp_path / "selection", tmp_path / "images"
    source = f"--source=cc12m={server.url}/sources/cc12m.tsv"
    assert select_pairs.main([source, f"--output={selection}", ONE_WORKER]) == 0
    options = [f"--pairs={selection}", *fetch_options, f"--output={images}", ONE_WORKER]
    found = estimated(fetch_images.main, [*options, "--estimate=60"], capsys)
    assert not images.exists()
    assert fetch_images.main(options) == 0
    return selection, found, images


def test_fetching_and_encoding(fetched, tiny_dvae, tmp_path, capsys):
    selection, found, images = fetched
    selected = pq.read_table(selection / "pairs").num_rows
    kept = read_ledger(str(images))["sources"]["cc12m"]["kept"]
    assert 60 <= found["sample"]["rows"] < selected == found["rows"]["value"]
    assert found["pairs"]["low"] <= kept <= found["pairs"]["high"]
    assert found["download_bytes"]["value"] == pytest.approx(_bytes_of(images, "*.tar"), rel=0.5)

    output = tmp_path / "dataset"
    options = [f"--images={images}", f"--image-tokenizer={tiny_dvae}", f"--output={output}", ONE_WORKER]
    found = estimated(encode_shards.main, [*options, "--estimate=30"], capsys)
    assert not output.exists()
    assert 30 <= found["sample"]["rows"] < kept
    assert found["rows"]["value"] == kept
    # The list has one pair twice. Whether both are among the 30 depends on their keys, which hold the server's port.
    assert found["pairs"]["value"] == pytest.approx(kept, rel=0.15)


def test_scoring(images, tmp_path, capsys):
    """30 images in 6 files, one of them broken."""
    output = tmp_path / "scores"
    options = [f"--images={images}", f"--output={output}", ONE_WORKER]
    found = estimated(score_images.main, [*options, "--estimate=15"], capsys)
    assert not output.exists()

    assert score_images.main(options) == 0
    [rows] = read_ledger(str(output))["sources"].values()
    assert 15 <= found["sample"]["rows"] < rows["read"]
    # By bytes, of which the broken image has next to none: more than a good one's share.
    assert found["rows"]["value"] == pytest.approx(rows["read"], rel=0.1)
    assert found["pairs"]["value"] == pytest.approx(rows["kept"], rel=0.1)
    assert "score" in [stage["stage"] for stage in found["stages"]]


def _bytes_of(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def test_tables_say_it_in_words(long_list, tmp_path, capsys):
    assert (
        select_pairs.main([f"--source=cc3m={long_list}", f"--output={tmp_path / 'o'}", ONE_WORKER, "--estimate=300"])
        == 0
    )
    text = capsys.readouterr().out
    for words in ("nothing was written to --output", "hours on 16 machines", "90 % range"):
        assert words in text


def test_json_is_of_an_estimate(long_list, tmp_path):
    with pytest.raises(UserError, match=r"--json: .*give it with --estimate"):
        select_pairs.main([f"--source=cc3m={long_list}", f"--output={tmp_path / 'o'}", "--json"])


def test_an_interrupt_leaves_no_sample_behind(tmp_path):
    output = tmp_path / "pairmill-estimate-x" / "output"
    output.mkdir(parents=True)
    launch = run._Launch("build", str(output), PipelineOptions([]), is_sample=True)
    assert launch._stop() == "nothing was estimated"
    assert not output.parent.exists()
