"""A finished output and the same command again: with the same settings, with others, and onto another job's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from tests.support.datasets import tiny_text_tokenizer
from tests.support.fetching import pair, write_pairs
from tests.support.paths import ROOT, files_of
from tests.support.records import write_records

LIST = ROOT / "sample" / "sources" / "cc3m.tsv"
FEW_ROWS = 12
Command = list[str]

# Command -> options that change its result, and what the error says of them.
CHANGES = [
    ("select", ["--min-words=5"], "select.min_words: 3 -> 5"),
    ("select", ["--min-side=80"], "select.min_side: 64 -> 80"),
    ("select", ["--dry-run"], "dry_run: none -> True"),
    ("fetch", ["--allow-address=127.0.0.0/8"], "fetch.allow_addresses: [] -> ['127.0.0.0/8']"),
    ("fetch", ["--resize=128"], "fetch.resize: 0 -> 128"),
    ("fetch", ["--min-side=80"], "fetch.min_side: 64 -> 80"),
    ("fetch", ["--pairs-per-unit=7"], "fetch.pairs_per_unit: 1000 -> 7"),
    ("encode", ["--min-side=80"], "encode.min_side: 64 -> 80"),
    ("encode", ["--draws=2"], "encode.draws: 1 -> 2"),
    ("encode", ["--text-tokenizer=OTHER"], "text_tokenizer: "),
    ("build", ["--min-words=5"], "select.min_words: 3 -> 5"),
    ("build", ["--max-bytes=9"], "fetch.max_bytes: "),
    ("build", ["--pairs-per-shard=2"], "encode.shards.pairs: "),
    ("repack", ["--share=0.5"], "made_from[0].share: 1.0 -> 0.5"),
    ("repack", ["--pairs-per-shard=2"], "shards.pairs: "),
]


@pytest.fixture(scope="module")
def finished(images, tiny_dvae, tmp_path_factory) -> dict[str, Command]:
    """Job -> the command that has made an output; the last word is the output."""
    base = tmp_path_factory.mktemp("finished")
    (base / "cc3m.tsv").write_text("".join(LIST.read_text().splitlines(keepends=True)[:FEW_ROWS]))
    write_pairs(base / "pairs", [pair("http://127.0.0.1:1/a.jpg")])
    write_records(base / "dataset", 12, 1)
    tokenizers = [f"--image-tokenizer={tiny_dvae}", "--text-tokenizer=bundled"]
    inputs = {
        "select": [f"--source=cc3m={base}/cc3m.tsv"],
        "fetch": [f"--pairs={base}/pairs", "--retries=0"],
        "encode": [f"--images={images}/00000.tar", *tokenizers],
        "build": [f"--source=cc3m={base}/cc3m.tsv", "--retries=0", "--timeout=0.1", *tokenizers],
        "repack": [f"--dataset={base}/dataset"],
    }
    commands = {
        job: [job, *options, "--direct_num_workers=1", f"--output={base / 'out' / job}"]
        for job, options in inputs.items()
    }
    for command in commands.values():
        assert cli.main(command) == 0
    return commands


@pytest.fixture
def refused(capsys) -> Callable[[Command], str]:
    """Runs a command that must change nothing and end with one line, which is returned."""

    def run(command: Command) -> str:
        output = command[-1].removeprefix("--output=")
        before = files_of(output)
        capsys.readouterr()
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and output in said and files_of(output) == before
        return said

    return run


@pytest.mark.parametrize(("job", "options", "said"), CHANGES, ids=lambda value: str(value)[:30])
def test_other_settings_are_named(job, options, said, finished, refused, tmp_path):
    (tmp_path / "bpe.json").write_text(tiny_text_tokenizer().text)
    options = [option.replace("OTHER", f"{tmp_path}/bpe.json") for option in options]
    line = refused([*finished[job][:-1], *options, finished[job][-1]])
    assert f"holds a finished {job} with other settings (" in line and said in line
    assert "choose another folder, or --overwrite to replace it" in line


@pytest.mark.parametrize("job", ["select", "encode", "build", "repack"])
def test_the_same_settings_are_no_other(job, finished, refused):
    assert f"holds a finished {job} already; choose another folder" in refused(finished[job])


def test_fetch_of_the_same_settings_is_complete(finished, capsys):
    assert cli.main([*finished["fetch"], "--attempts=1"]) == 0
    assert "is complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("job", "holder", "said"),
    [
        ("fetch", "select", "holds a finished select, not a fetch"),
        ("fetch", "build", "holds a finished dataset, not a fetch"),
        ("select", "fetch", "holds a finished fetch, not a select"),
        ("select", "repack", "holds a finished dataset, not a select"),
    ],
)
def test_an_output_of_another_job(job, holder, said, finished, refused):
    assert said in refused([*finished[job][:-1], finished[holder][-1]])


def test_many_and_long_differences_stay_one_short_line(finished, refused):
    options = ["--min-words=9", "--min-characters=9", "--min-side=9", "--max-ratio=9", "--val-share=0.5", "--sharma"]
    licences = [f"--licence={'a' * 500}"]
    line = refused([*finished["select"][:-1], *options, *licences, finished["select"][-1]])
    assert ", and 3 more)" in line and "a" * 100 not in line


def test_a_damaged_manifest_is_no_difference(tmp_path, finished, capsys):
    write_records(tmp_path / "dataset", 3, 1)
    manifest = Path(tmp_path / "dataset" / "manifest.json")
    manifest.write_text(manifest.read_text()[:-9])
    assert cli.main([*finished["repack"][:-1], f"--output={tmp_path / 'dataset'}"]) == 2
    assert "manifest.json is damaged" in capsys.readouterr().err


def test_what_says_nothing_of_its_job_is_refused_too(tmp_path, finished, refused):
    write_pairs(tmp_path / "pairs", [])  # no settings.json
    assert "with other settings" in refused([*finished["select"][:-1], f"--output={tmp_path / 'pairs'}"])
