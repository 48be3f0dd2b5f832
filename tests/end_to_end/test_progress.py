"""The progress of a real job with several worker processes: in place on a terminal, as lines in a pipe."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import progress
from models.data.format import read_manifest
from models.export import to_transformers
from models.sampling import generate
from models.training import train_bpe, train_dvae
from pipeline.dataset import exclusion_list
from pipeline.filters import SelectConfig
from pipeline.inspection import diff, stats, verify
from pipeline.output.progress import read_progress, remove_counts
from pipeline.select.stage import filter_range, plan_reading
from pipeline.sources.file_ranges import file_ranges
from pipeline.sources.registry import DEFAULTS, SOURCES
from tests.support.narrowing import required
from tests.support.records import write_records
from tests.support.terminals import run_in_terminal

STAGES = ["start", "select", "one row a URL", "fetch and encode", "group", "shards", "finish"]


@pytest.fixture(scope="module")
def build(images) -> list[str]:
    """A build of ten stored images, one of them broken, all in one unit. The bundled tokenizer takes some seconds for
    so many crops, on a fast machine too."""
    source = f"--source=img2dataset={images}/0000[01].tar"
    return ["build", source, "--direct_num_workers=2", "--pairs-per-unit=1000", "--draws=8"]


def test_a_terminal_s_line_is_rewritten_and_never_runs_backwards(build, elsewhere, tmp_path):
    status, shown = run_in_terminal(elsewhere, [*build, f"--output={tmp_path / 'out'}"], tmp_path)
    assert status == 0, shown
    line, _, results = shown.partition("\n")
    assert re.search("^source ", results, re.MULTILINE) and "\r" not in results.replace("\r\n", "\n")
    texts = [text.strip() for text in line.split("\r") if text.strip()]
    stages = [required(re.match(r"build: ([^:,]+)", text))[1] for text in texts]
    assert stages == sorted(stages, key=STAGES.index), stages
    assert stages[-1] == "finish" and "took" in texts[-1]
    pairs = [int(n) for n in re.findall(r"fetch and encode: (\d+)/10 pairs \(\d+%\)", line)]
    assert pairs == sorted(pairs) and any(0 < number < 10 for number in pairs), texts
    assert re.search(
        r"pairs/s, \d\d:\d\d left; [\d.]+% fetched(, not_an_image 1)?; [\d.]+ images/s a worker: pictures \d+%", line
    ), texts
    assert not (tmp_path / "out" / "_work").exists()


def test_a_pipe_gets_lines(build, elsewhere, tmp_path):
    command = [*build, f"--output={tmp_path / 'out'}"]
    status, said = elsewhere.run(command, tmp_path, printed=tmp_path / "printed")
    assert status == 0 and "\r" not in said
    lines = said.splitlines()
    assert lines and all(line.startswith("build: ") for line in lines)
    assert re.fullmatch(r"build: finish, took \d\d:\d\d", lines[-1])
    assert re.match("build: this run, all workers together: .*\nsource ", (tmp_path / "printed").read_text())
    assert not (tmp_path / "out" / "_work").exists()


# --- the other commands ----------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch, capsys) -> Callable[..., list[str]]:
    """Runs a command of this process; the progress lines it would show if each was old enough."""
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)

    def run(main: Callable[[list[str]], int], *arguments: object) -> list[str]:
        capsys.readouterr()
        main(list(map(str, arguments)))
        # Without the rate and the times, which differ each time.
        lines = capsys.readouterr().err.splitlines()
        return [re.sub(r", [\d.,]+ \w+/s|, [\d:]+ left|, took [\d:]+|, \d\d:\d\d$", "", line) for line in lines]

    return run


def test_generate_shows_positions(shown, tiny_checkpoint, tmp_path):
    lines = shown(generate.main, "--checkpoint", tiny_checkpoint, "--prompt=a cat", "--count=5", "--output", tmp_path)
    assert lines[0] == "generate: 0/5 images (1%); position 1/64 of images 1 to 4"
    assert "generate: 0/5 images (40%); position 32/64 of images 1 to 4" in lines
    assert "generate: 4/5 images (90%); position 32/64 of images 5 to 5" in lines
    assert lines[-2:] == ["generate: 5/5 images (100%)"] * 2


@pytest.mark.parametrize("name", ["list.txt", "list.jsonl", "list.txt.gz", "list.parquet"])
def test_train_bpe_shows_captions(name, shown, tmp_path):
    captions, path = [f"a cat number {n} in the snow" for n in range(20_000)], tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"caption": captions}), path)
    else:
        lines = [json.dumps({"caption": text}) if "jsonl" in name else text for text in captions]
        with (gzip.open if name.endswith(".gz") else open)(path, "wt") as file:
            file.writelines(f"{line}\n" for line in lines)
    lines = shown(train_bpe.main, "--captions", path, "--vocabulary=300", "--output", tmp_path / "bpe.json")
    read = [required(re.fullmatch(r"train-bpe: read: ([\d,]+) captions \((\d+)%\)", line)) for line in lines[:-2]]
    assert [match[1] for match in read] == [f"{n:,}" for n in [*range(1000, 20_001, 1000), 20_000]]
    shares = [int(match[2]) for match in read]
    assert shares == sorted(shares) and shares[-1] == 100 and shares[0] < 80
    assert lines[-2:] == ["train-bpe: merge"] * 2


def test_train_dvae_shows_steps(shown, images, tmp_path):
    options = ["--steps=2", "--batch-size=2", "--window=32", "--hidden=8", "--vocabulary=16", "--threads=1"]
    lines = shown(train_dvae.main, "--images", f"{images}/*.tar", "--output", tmp_path, *options)
    assert [line.partition("; ")[0] for line in lines] == [
        "train-dvae: 1/2 steps (50%)",
        "train-dvae: 2/2 steps (100%)",
        "train-dvae: 2/2 steps (100%)",
    ]
    assert all(re.search(r"; loss -?[\d.]+  [\d.]+ images/s$", line) for line in lines)


def test_verify_repair_and_stats_show_files_and_shards(shown, tmp_path):
    write_records(tmp_path / "dataset", pairs=40, shards=5)
    shards = len(read_manifest(tmp_path / "dataset").shards)
    lines = shown(verify.main, tmp_path / "dataset", "--workers=1")
    counted = [f"verify: {n}/{shards} shards ({100 * n // shards}%)" for n in [*range(1, shards + 1), shards]]
    assert lines[-len(counted) :] == counted
    assert any(line.startswith("verify: 1/") and "files" in line for line in lines)
    assert shown(stats.main, tmp_path / "dataset")[-1] == f"stats: {shards}/{shards} shards (100%)"
    damaged = next(path for path in (tmp_path / "dataset" / "train").iterdir())
    damaged.write_bytes(b"")
    lines = shown(verify.main, tmp_path / "dataset", "--workers=1", "--repair")
    assert f"repair: {shards - 1}/{shards - 1} shards (100%)" in lines


def test_diff_shows_the_shards_of_both(shown, tmp_path):
    for name, shards in (("one", 3), ("two", 2)):
        write_records(tmp_path / name, pairs=40, shards=shards)
    total = sum(len(read_manifest(tmp_path / name).shards) for name in ("one", "two"))
    lines = shown(diff.main, tmp_path / "one", tmp_path / "two")
    assert lines == [f"diff: {n}/{total} shards ({100 * n // total}%)" for n in [*range(1, total + 1), total]]


def test_export_shows_what_it_does(shown, tiny_checkpoint, tmp_path):
    lines = shown(to_transformers.main, "--checkpoint", tiny_checkpoint, "--output", tmp_path / "out")
    assert lines == ["export: read the weights", *["export: write the folder"] * 2]


def test_hash_shows_images(shown, images, tmp_path):
    lines = shown(exclusion_list.main, f"{images}/*.tar", "--output", tmp_path / "list.hashes")
    assert sum("left out" in line for line in lines) == 1
    left = [line for line in lines if "left out" not in line]
    counted = [required(re.fullmatch(r"hash: (\d+) images \((\d+)%\)", line)) for line in left]
    assert [int(match[1]) for match in counted] == [*range(1, 30), 29]
    assert 70 < int(counted[-1][2]) <= 100


def test_select_shows_rows_and_the_bytes_read(shown, tmp_path):
    """The rows of one list, far fewer than a range holds, as they are read."""
    row = "A brown dog number {} on the grass" + " and on" * 300 + "\thttp://h.example/{}.jpg\n"
    path, output = tmp_path / "list.tsv", str(tmp_path / "out")
    path.write_text("".join(row.format(n, n) for n in range(1200)))
    ranges = file_ranges("cc3m", str(path))
    plan_reading(ranges, output)
    seen = []

    def tidy(*_, **__) -> str:
        seen.append(read_progress(output, "select"))
        return "A brown dog on the grass"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(SOURCES["cc3m"]), "tidy_caption", tidy)
        filter_range((0, ranges[0]), [], SelectConfig(), DEFAULTS, output)
    rows, shares = [each.done for each in seen], [each.share or 0 for each in seen]
    assert rows == sorted(rows) and rows[-1] == 1100 and len(set(rows)) == 12
    assert shares == sorted(shares) and len(set(shares)) > 2
    last = read_progress(output, "select")
    assert (last.done, last.before, last.share) == (1200, 0, 1.0)
    remove_counts(output)
    filter_range((0, ranges[0]), [], SelectConfig(), DEFAULTS, output)
    resumed = read_progress(output, "select")
    assert (resumed.done, resumed.before, resumed.share, resumed.share_before) == (1200, 1200, 1.0, 1.0)
