"""Stores without the packages that an extra brings: one line that names the extra, for outputs, lists and datasets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CC3M = f"cc3m={ROOT}/sample/sources/cc3m.tsv"
TRAIN = ["train", "--size", "3m", "--steps", "1", "--batch-size", "2", "--output", "OUT"]
CASES = [
    (["select", "--source", CC3M, "--output", "gs://b/o"], "gs://b/o", "gcp"),
    (["select", "--source", CC3M, "--output", "s3://b/o"], "s3://b/o", "s3"),
    (["select", "--source", CC3M, "--output", "OUT", "--runner=DataflowRunner"], "--runner DataflowRunner", "gcp"),
    (["select", "--source", "cc3m=gs://b/x.tsv", "--output", "OUT"], "gs://b/x.tsv", "gcp"),
    (["select", "--source", "cc3m=s3://b/x.tsv", "--output", "OUT"], "s3://b/x.tsv", "s3"),
    (["fetch", "--pairs", "gs://b/pairs", "--output", "OUT"], "gs://b/pairs", "gcp"),
    (["fetch", "--pairs", "s3://b/pairs", "--output", "OUT"], "s3://b/pairs", "s3"),
    (["score", "--images", "s3://b/*.tar", "--output", "OUT"], "s3://b/*.tar", "s3"),
    (["repack", "--dataset", "s3://b/d", "--output", "OUT"], "s3://b/d", "remote"),
    (["filter", "gs://b/d", "--where", "width > 1", "--output", "OUT"], "gs://b/d", "remote"),
    (["cluster", "--scores", "gs://b/s", "--output", "OUT"], "gs://b/s", "gcp"),
    (["hash", f"{ROOT}/sample/images/cat.jpg", "--output", "s3://b/hashes"], "s3://b/hashes", "s3"),
    *[
        ([*command, f"{scheme}://b/d"], f"{scheme}://b/d", "remote")
        for scheme in ("gs", "s3")
        for command in (["show"], ["stats"], ["verify"], [*TRAIN, "--dataset"])
    ],
]
HIDDEN = ("boto3", "botocore", "s3fs", "gcsfs", "google.api_core", "google.cloud")

# Commands run in one process, which sees none of the packages.
WITHOUT = """
import contextlib, importlib.util, io, json, sys, traceback

hidden, cases = json.loads(sys.argv.pop())

class Hider:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if any(name == top or name.startswith(top + ".") for top in hidden):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hider)
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in hidden else find_spec(name, package)
from pipeline import cli

answers = []
for arguments in cases:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = cli.main(arguments)
        except BaseException:
            status = 99
            traceback.print_exc()
    answers.append([status, said.getvalue()])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> tuple[list[tuple[int, str]], Path]:
    """The status of each case and its errors, and the folder in which OUT would be."""
    folder = tmp_path_factory.mktemp("extras")
    cases = [[str(folder / "out") if word == "OUT" else word for word in arguments] for arguments, _, _ in CASES]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps([HIDDEN, cases])], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{words[0]} {place}" for words, place, _ in CASES])
def test_a_package_that_is_missing_is_named_by_its_extra(number, answers):
    (status, said), (_, place, extra) = answers[0][number], CASES[number]
    assert status == 2 and said.startswith("pairmill: ") and said.count("\n") == 1, said
    assert place in said
    assert f": packages for it are not installed; `pip install '.[{extra}]'` in a clone installs them" in said


def test_nothing_is_left(answers):
    assert not list(answers[1].iterdir())
