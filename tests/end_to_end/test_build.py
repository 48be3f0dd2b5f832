"""The whole way on the sample, against a real server, by Beam's local runner."""

from __future__ import annotations

import collections
import json
import signal
from pathlib import Path

import msgpack
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from beam_jobs import build_dataset, encode_shards, fetch_images, select_pairs
from models.data.format import read_manifest
from models.tokenizers.text import BUNDLED_BPE
from pipeline.inspection import faults, stats
from tests.support.paths import ROOT, files_of

ENCODE = ["--draws=2", "--pairs-per-shard=100", "--rows-per-file=60"]
SELECT = ["--val-share=0.1"]
ONE_WORKER = ["--direct_num_workers=1"]


@pytest.fixture(scope="module")
def options(source_options, fetch_options, tiny_dvae):
    """Everything that decides a dataset's bytes."""
    return [*source_options, *SELECT, *fetch_options, *ENCODE, f"--image-tokenizer={tiny_dvae}"]


@pytest.fixture(scope="module")
def dataset(options, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("build") / "a folder with spaces"
    assert build_dataset.main([*options, f"--output={output}", *ONE_WORKER]) == 0
    return output


@pytest.fixture(scope="module")
def two_lists(source_options) -> list[str]:
    """The sources of the builds that are compared with others: cc3m, whose images have most faults, and wit."""
    return [source_options[0], source_options[2]]


@pytest.fixture(scope="module")
def few_options(two_lists, fetch_options, tiny_dvae) -> list[str]:
    return [*two_lists, *SELECT, *fetch_options, *ENCODE, f"--image-tokenizer={tiny_dvae}"]


@pytest.fixture(scope="module")
def few(few_options, tmp_path_factory) -> Path:
    """The dataset of two lists."""
    output = tmp_path_factory.mktemp("few") / "out"
    assert build_dataset.main([*few_options, f"--output={output}", *ONE_WORKER]) == 0
    return output


@pytest.fixture(scope="module")
def expected() -> list[dict]:
    with open(ROOT / "sample" / "sources" / "expected.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_every_row_ends_as_expected(dataset, expected):
    """Each row of the four files is kept, or rejected for the reason that the sample's table gives."""
    kept = {(row["source"], row["file"], row["row"]): "kept" for row in pq.read_table(dataset / "index").to_pylist()}
    rejected = {
        (row["source"], row["file"], row["row"]): row["reason"]
        for row in pq.read_table(dataset / "rejects").to_pylist()
    }
    assert not kept.keys() & rejected.keys()
    outcome = kept | rejected
    wanted = {(row["source"], row["file"], row["row"]): row["expected"] for row in expected}
    assert outcome.keys() == wanted.keys()
    # Which of two rows with one image stays is the pipeline's choice: there the numbers must agree.
    free = {"kept", "duplicate_url", "duplicate_pair"}
    assert {k: v for k, v in outcome.items() if v not in free} == {k: v for k, v in wanted.items() if v not in free}
    assert collections.Counter(outcome.values()) == collections.Counter(wanted.values())


def test_ledger_is_exact_and_reasons_are_many(dataset):
    report = stats.dataset_stats(str(dataset))
    assert set(report["sources"]) == {"cc3m", "cc12m", "yfcc100m", "wit"}
    for account in report["sources"].values():
        rejected = sum(number for stage in account["rejected"].values() for number in stage.values())
        assert account["read"] == account["kept"] + rejected
    reasons = {reason for stage in report["rejects_by_reason"].values() for reason in stage}
    assert len(reasons) >= 25
    assert sum(report["pairs"].values()) == sum(account["kept"] for account in report["sources"].values()) >= 200
    assert report["pairs"]["val"] > 10


def test_stock_webdataset_reads_the_shards(dataset):
    manifest = read_manifest(dataset)
    assert len(manifest.shards) > 2
    urls = [str(dataset / shard.path) for shard in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == manifest.pairs("train") + manifest.pairs("val")
    for sample in samples:
        body = sample["mp"]
        codes = np.frombuffer(body["codes"], "<u2").reshape(body["draws"], -1)
        assert codes.shape == (2, 64) and codes.max() < 64 and len(sample["__key__"]) == 32
        assert isinstance(body["caption"], str) and len(np.frombuffer(body["tokens"], "<u2")) > 2


def test_index_tells_where_each_sample_lies(dataset):
    index = pq.read_table(dataset / "index").to_pylist()
    row = index[len(index) // 2]
    sample = list(webdataset.WebDataset(str(dataset / row["shard"]), shardshuffle=False))[row["position"]]
    assert sample["__key__"] == row["key"] and msgpack.unpackb(sample["mp"])["caption"] == row["caption"]
    assert np.array(row["crop_boxes"]).shape == (2, 6)


def test_manifest_names_every_file_and_verify_agrees(dataset, tmp_path):
    assert faults.verify(str(dataset), workers=1) == []
    assert not [path for path in dataset.rglob("*") if path.name.startswith((".", "_"))]


def test_repeated_bundles_give_the_same_bytes(few, few_options, tmp_path):
    repeat = [*ONE_WORKER, "--direct_runner_bundle_repeat=2"]
    assert build_dataset.main([*few_options, f"--output={tmp_path / 'out'}", *repeat]) == 0
    assert files_of(tmp_path / "out") == files_of(few)


def test_the_three_stages_give_the_same_dataset(few, two_lists, fetch_options, tiny_dvae, tmp_path):
    pairs, images, shards = (str(tmp_path / name) for name in ("pairs", "images", "shards"))
    assert select_pairs.main([*two_lists, *SELECT, "--rows-per-file=60", f"--output={pairs}", *ONE_WORKER]) == 0
    assert (
        fetch_images.main([f"--pairs={pairs}", *fetch_options, "--rows-per-file=60", f"--output={images}", *ONE_WORKER])
        == 0
    )
    assert (
        encode_shards.main(
            [
                f"--images={images}/*.tar",
                f"--image-tokenizer={tiny_dvae}",
                "--text-tokenizer",
                str(BUNDLED_BPE),
                *ENCODE,
                f"--output={shards}",
                *ONE_WORKER,
            ]
        )
        == 0
    )
    assert files_of(shards) == files_of(few)


def test_killed_and_run_again_by_two_processes_gives_the_same_bytes(few, few_options, tmp_path, elsewhere):
    output = tmp_path / "killed"
    command = ["build", *few_options, f"--output={output}", "--direct_num_workers=2"]
    units = output / "_work" / "units"
    assert elsewhere.run(command, tmp_path, kill_when=lambda: any(units.glob("*.msgpack")))[0] == -signal.SIGKILL
    assert not (output / "manifest.json").exists()
    status, said = elsewhere.run(command, tmp_path)
    assert status == 0, said
    assert files_of(output) == files_of(few)


def test_a_finished_output_is_refused(dataset, options, tmp_path, elsewhere):
    status, said = elsewhere.run(["build", *options, f"--output={dataset}"], tmp_path)
    assert status == 2
    assert "--overwrite" in said and "finished" in said and said.count("\n") == 1


def test_other_settings_do_not_resume(options, tmp_path, capsys):
    from models.errors import UserError

    marker = tmp_path / "out" / "_work" / "settings.json"
    marker.parent.mkdir(parents=True)
    marker.write_text(json.dumps({"job": "build", "settings": {"select": {"min_words": 9}}}))
    with pytest.raises(UserError, match=r"started with other settings .*min_words: 9 -> 3"):
        build_dataset.main([*options, f"--output={tmp_path / 'out'}"])


def test_a_folder_that_is_not_ours_is_left_alone(options, tmp_path):
    from models.errors import UserError

    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.txt, which pairmill did not write"):
        build_dataset.main([*options, f"--output={tmp_path}", "--overwrite"])
    assert (tmp_path / "thesis.txt").exists()
