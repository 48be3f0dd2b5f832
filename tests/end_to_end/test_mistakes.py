"""Sixty mistakes: each ends with one line that names what is wrong and the fix, status 2, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
import tempfile
import traceback
from pathlib import Path

import pytest

from pipeline import cli
from tests.support.fetching import pair, write_pairs
from tests.support.file_systems import mounted
from tests.support.launcher import NOBODY
from tests.support.narrowing import instance
from tests.support.paths import ROOT
from tests.support.records import write_records
from tests.support.scores import write_scores

LISTS = ROOT / "sample" / "sources"
CC3M = ["--source", f"cc3m={LISTS / 'cc3m.tsv'}"]
YFCC = ["--source", f"yfcc100m={LISTS / 'yfcc100m_dataset-0'}"]
CC12M = ["--source", f"cc12m={LISTS / 'cc12m.tsv'}"]
WIT = ["--source", f"wit={LISTS / 'wit_v1.sample.tsv.gz'}"]
TOKENIZERS = ["--image-tokenizer", "bundled", "--text-tokenizer", "bundled"]
IMAGE = ROOT / "sample" / "images" / "cat.jpg"
README = ROOT / "README.md"
CAPTIONS = ROOT / "sample" / "captions.jsonl"
SELECT = ["select", *CC3M, "--output", "OUT"]
TRAIN = ["train", "--size", "3m", "--steps", "1", "--batch-size", "2", "--output", "OUT"]
JOBS_THAT_WRITE = [
    ["select", *CC3M],
    ["build", *CC3M],
    ["fetch", "--pairs", "PAIRS"],
    ["encode", "--images", "TAR", *TOKENIZERS],
    ["repack", "--dataset", "DATASET"],
    ["score", "--images", "TAR"],
    ["cluster", "--scores", "SCORES"],
    ["filter", "DATASET", "--where", "width > 1"],
]
WRITE_FOLDERS = [
    *JOBS_THAT_WRITE,
    ["train-dvae", "--images", "TAR", "--steps", "1", "--hidden", "8", "--vocabulary", "64", "--batch-size", "1"],
    [*TRAIN[:-2], "--dataset", "DATASET"],
    ["generate", "--prompt", "a cat", "--count", "1"],
    ["export", "--checkpoint", "bundled"],
]
WRITE_FILES = [
    ["train-bpe", "--captions", str(CAPTIONS), "--vocabulary", "300"],
    ["hash", str(IMAGE)],
    ["evaluate", "--images", "TAR", "--image-tokenizer", "bundled"],
]
COMMANDS_THAT_WRITE = [*WRITE_FOLDERS, *WRITE_FILES]
LONG_NAME = "x" * 300
# OUT: a place that does not exist. DATASET: a finished one. TAR: images. FILE: a file in the place of a folder.
# FOLDER: a folder in the place of a file. LINK: a link to what does not exist. PAIRS, SCORES: outputs of select, score.

MISTAKES: list[tuple[list[str], str]] = [
    # the command line
    (["bild"], "there is no command 'bild'"),
    (["select", *CC3M], "--output"),
    (["select", "--output", "OUT"], "--source"),
    (["select", *CC3M, "--output", ""], "--output"),
    (["fetch", "--pairs", "/nowhere", "--output", ""], "--output"),
    ([*SELECT, "--min-wrods", "3"], "--min-wrods"),
    ([*SELECT, "--min-words", "-1"], "--min-words"),
    ([*SELECT, "--min-words", "few"], "--min-words"),
    ([*SELECT, "--val-share", "1"], "--val-share"),
    ([*SELECT, "--language-threshold", "2"], "--language-threshold"),
    ([*SELECT, "--language-detector", "oracle"], "oracle"),
    ([*SELECT, "--min-ratio", "0"], "--min-ratio"),
    (["build", *CC3M, "--output", "OUT", "--timeout", "0"], "--timeout"),
    (["build", *CC3M, "--output", "OUT", "--draws", "0"], "--draws"),
    (["build", *CC3M, "--output", "OUT", "--allow-address", "home"], "--allow-address home"),
    (["build", *CC3M, "--output", "OUT", "--connections", "0"], "--connections"),
    (["train", "--dataset", "DATASET", "--size", "9q", *TRAIN[3:]], "9q"),
    ([*TRAIN, "--dataset", "DATASET", "--steps", "0"], "--steps"),
    (["generate", "--prompt", " ", "--output", "OUT"], "--prompt"),
    (["generate", "--prompt", "a cat", "--count", "0", "--output", "OUT"], "--count"),
    (["generate", "--prompt", "a cat", "--top-p", "2", "--output", "OUT"], "--top-p"),
    (["generate", "--prompt", "a cat", "--rows", "3", "--output", "OUT"], "--rows"),
    (["train-bpe", "--captions", str(CAPTIONS), "--vocabulary", "3", "--output", "OUT"], "--vocabulary"),
    (["train-dvae", "--images", "TAR", "--steps", "1", "--window", "9", "--output", "OUT"], "--window"),
    (["verify", "DATASET", "--workers", "0"], "--workers"),
    # what is to be read
    (["select", "--source", "cc3m", "--output", "OUT"], "NAME=PATTERN"),
    (["select", "--source", f"laion={README}", "--output", "OUT"], "cc3m, cc12m"),
    (["select", "--source", "cc3m=/nowhere/*.tsv", "--output", "OUT"], "no file matches /nowhere/*.tsv"),
    (["select", "--source", f"cc3m={LISTS}", "--output", "OUT"], "is a folder"),
    (["select", "--source", "cc3m=s3://bucket/x.tsv", "--output", "OUT"], "s3://bucket/x.tsv"),
    (["select", *CC12M, "--output", "OUT", "--cc12m-hashes", "/nowhere"], "/nowhere"),
    (["select", *CC12M, "--output", "OUT", "--cc12m-hashes", str(IMAGE)], "CC12M's file of hashes"),
    (["select", *WIT, "--output", "OUT", "--wit-pixels", "/nowhere*"], "/nowhere*"),
    (["select", *WIT, "--output", "OUT", "--wit-pixels", str(README)], "README.md"),
    (["select", *YFCC, "--output", "OUT", "--yfcc-subset", "/nowhere"], "/nowhere"),
    (["select", *YFCC, "--output", "OUT", "--yfcc-subset", str(README)], "README.md"),
    (["build", *CC3M, "--output", "OUT", "--exclude", "/nowhere"], "pairmill hash"),
    (["build", *CC3M, "--output", "OUT", "--image-tokenizer", "vqgan"], "dvae:FILE.safetensors"),
    (["build", *CC3M, "--output", "OUT", "--image-tokenizer", f"dvae:{README}"], "safetensors"),
    (["build", *CC3M, "--output", "OUT", "--text-tokenizer", "/no.json"], "pairmill train-bpe"),
    (["fetch", "--pairs", "/nowhere", "--output", "OUT"], "run `pairmill select`"),
    (["encode", "--images", "/nowhere/*.tar", "--output", "OUT", *TOKENIZERS], "no file matches"),
    (["repack", "--dataset", "/nowhere", "--output", "OUT"], "/nowhere"),
    (["filter", "/nowhere", "--where", "width > 1", "--output", "OUT"], "not a finished dataset"),
    (["score", "--images", "/nowhere/*.tar", "--output", "OUT"], "no file matches"),
    (["score", "--images", "TAR", "--model", "/nowhere", "--output", "OUT"], "there is no such folder"),
    (["cluster", "--scores", "/nowhere", "--output", "OUT"], "run `pairmill score` to its end first"),
    (["stats", "/nowhere"], "neither manifest.json nor ledger.json"),
    (["show", "/nowhere"], "not a finished dataset"),
    (["show", "s3://bucket/dataset"], "s3://bucket/dataset"),
    (["verify", "/nowhere"], "not a finished dataset"),
    (["diff", "/nowhere", "DATASET"], "not a finished dataset"),
    (["hash", "/nowhere/*.jpg", "--output", "OUT"], "no file matches"),
    (["train-bpe", "--captions", "/nowhere*", "--vocabulary", "300", "--output", "OUT"], "/nowhere*"),
    (["train-dvae", "--images", "/nowhere*.tar", "--steps", "1", "--output", "OUT"], "/nowhere*.tar"),
    ([*TRAIN, "--dataset", "/nowhere"], "not a finished dataset"),
    ([*TRAIN, "--dataset", "http://127.0.0.1:9/dataset"], "http://127.0.0.1:9/dataset"),
    (["generate", "--checkpoint", "/nowhere", "--prompt", "a cat", "--output", "OUT"], "/nowhere"),
    (["serve", "--checkpoint", "/nowhere"], "/nowhere"),
    # where it is to be written
    *[([*command, "--output", "FILE/out"], "FILE") for command in COMMANDS_THAT_WRITE],
    *[([*command, "--output", "FILE"], "FILE") for command in WRITE_FOLDERS],
    *[([*command, "--output", "LINK"], "which does not exist") for command in WRITE_FOLDERS if command[0] != "export"],
    *[([*command, "--output", "/proc/out"], "/proc/out") for command in COMMANDS_THAT_WRITE],
    *[([*command, "--output", f"OUT/{LONG_NAME}"], "give a shorter name") for command in WRITE_FOLDERS],
    *[([*command, "--output", "FOLDER"], "FOLDER") for command in WRITE_FILES],
    ([*WRITE_FILES[0], "--output", "gs://b/tokenizer.json"], "name a local file"),
    (["show", "DATASET", "--html", "gs://b/page.html"], "name a local file"),
    *[([*command, "--output", "OUT/file"], " OUT; create it") for command in WRITE_FILES if command[0] != "hash"],
    *[(["show", "DATASET", "--html", page], named) for page, named in (
        ("FILE/page.html", "FILE"), ("FOLDER", "FOLDER"), ("OUT/page.html", " OUT; create it"),
    )],
    (["encode", "--images", "TAR", "--output", "DATASET", *TOKENIZERS], "DATASET"),
    # the engine
    ([*SELECT, "--runner", "Nonsense"], "--runner"),
    ([*SELECT, "--direct_running_mode", "multi_threading"], "multi_threading"),
    ([*SELECT, "--experiments", "data_buffer_time_limit_ms=100"], "data_buffer_time_limit_ms"),
]  # fmt: skip


def name_of(words: list[str]) -> str:
    text = " ".join(words).replace(LONG_NAME, "LONG_NAME")
    return text if len(text) <= 90 else f"{text[:20]}...{text[-70:]}"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    base = tmp_path_factory.mktemp("mistakes")
    (base / "file").write_text("not a folder")
    (base / "folder").mkdir()
    (base / "link").symlink_to(base / "nothing")
    with tarfile.open(base / "00000.tar", "w") as tar:
        tar.add(IMAGE, "0.jpg")
        tar.add(IMAGE.with_name("beagle.png"), "1.png")
    keys = [record.key for record in write_records(base / "dataset")]
    write_scores(base / "scores", {key: {"clip": 0.5} for key in keys}, with_embeddings=True)
    write_pairs(base / "pairs", [pair("http://127.0.0.1:9/a.jpg")])
    return {"FILE": str(base / "file"), "FOLDER": str(base / "folder"), "LINK": str(base / "link"),
            "TAR": str(base / "00000.tar"), "DATASET": str(base / "dataset"), "SCORES": str(base / "scores"),
            "PAIRS": str(base / "pairs")}  # fmt: skip


def put(words: list[str], places: dict[str, str]) -> list[str]:
    """Each word with its places: a word, or what a word begins or ends with."""
    return [_put(word, places) for word in words]


def _put(word: str, places: dict[str, str]) -> str:
    return re.sub(rf"(?<!:)\b({'|'.join(places)})\b(?!\.)", lambda found: places[found[0]], word)


def call(arguments: list[str]) -> tuple[int, str]:
    """The status of a command, and what it printed as an error."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = cli.main(arguments)
        except SystemExit as exit_:  # argparse's own way
            status = instance(exit_.code, int)
        except BaseException:
            status, _ = 99, said.write(traceback.format_exc())
    return status, said.getvalue()


def test_there_are_sixty():
    assert len(MISTAKES) >= 60


@pytest.mark.parametrize(("arguments", "named"), MISTAKES, ids=[name_of(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line(arguments, named, places, tmp_path):
    places = {**places, "OUT": str(tmp_path / "out")}
    before = listing(tmp_path, places)
    status, said = call(put(arguments, places))
    assert status == 2, said
    assert is_one_line(said) and _put(named, places) in said
    assert listing(tmp_path, places) == before


def is_one_line(said: str) -> bool:
    assert said.startswith("pairmill") and said.endswith("\n") and said.count("\n") == 1, said
    return True


def listing(folder: Path, places: dict[str, str] | None = None) -> set[str]:
    """What lies below a folder, and beside and below the places: files, links and folders, hidden ones as well."""
    bases = {folder, *(Path(place).parent for place in (places or {}).values())}
    return {str(path) for base in bases for path in base.rglob("*")}


@pytest.mark.parametrize("command", COMMANDS_THAT_WRITE, ids=lambda command: command[0])
def test_a_file_system_that_is_read_only(command, places, tmp_path):
    with mounted(tmp_path / "read_only", "ro") as folder:
        before = listing(tmp_path, places)
        status, said = call([*put(command, places), "--output", str(folder / "out")])
        assert listing(tmp_path, places) == before
    assert status == 2 and is_one_line(said)
    assert "Read-only file system" in said


@pytest.mark.parametrize("command", COMMANDS_THAT_WRITE, ids=lambda command: command[0])
def test_a_folder_of_somebody_else(command, places, tmp_path, elsewhere):
    """Run by an ordinary user: where the tests run as root, in a process that has become one. What the commands import
    may lie where only root can read; it is imported before."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    arguments = [*put(command, places), "--output", str(folder / "out")]
    if not os.geteuid():
        let_others_read([*filter(Path.exists, map(Path, arguments)), tmp_path])
    status, said = elsewhere.run(arguments, tmp_path, user=None if os.geteuid() else NOBODY)
    assert status == 2 and is_one_line(said)
    assert "ermission denied" in said and not list(folder.iterdir())


def let_others_read(places: list[Path]) -> None:
    """Places below the folder for temporary files; pytest's own are its user's alone."""
    base = Path(tempfile.gettempdir())
    for place in places:
        if place.is_relative_to(base):
            for path in (place, *place.rglob("*"), *place.relative_to(base).parents[:-1]):
                path = base / path
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


# What a command may leave on a full disk: from there the same command goes on, or it is of use by itself.
KEPT_ON_A_FULL_DISK = {
    **dict.fromkeys([command[0] for command in JOBS_THAT_WRITE], r"_work(/.*)?"),
    "train-dvae": r"log\.jsonl",
    "train": r"log\.jsonl|text_tokenizer\.json",
    "generate": r"\d{4}\.png",
}


@pytest.mark.parametrize("command", COMMANDS_THAT_WRITE, ids=lambda command: command[0])
def test_a_disk_that_is_full(command, places, tmp_path, elsewhere):
    """The line is the last one: lines of progress may come before it."""
    with mounted(tmp_path / "full", "size=16k") as folder:
        before = set()
        if command in WRITE_FILES:  # which are smaller
            (folder / "filler").write_bytes(bytes(16 << 10))
            before = {folder / "filler"}
        status, said = elsewhere.run([*put(command, places), "--output", folder / "out"], tmp_path)
        left = {str(path.relative_to(folder)) for path in {*folder.rglob("*")} - before}
    *progress, line = said.splitlines()
    assert status == 2 and all(text.startswith(f"{command[0]}: ") for text in progress), said
    assert line.startswith("pairmill") and "No space left" in line
    kept = re.compile(rf"out(/({KEPT_ON_A_FULL_DISK.get(command[0], '')}))?")
    assert not [name for name in left if not kept.fullmatch(name) or name.endswith(".tmp")]
