"""Each command says what to run next, and that runs as printed."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from models.next_command import print_output
from pipeline import cli
from pipeline.output.nothing_kept import FIXES, warning
from pipeline.records import Reason
from sample.make_sources import DEFAULT_BASE
from tests.support.narrowing import required
from tests.support.paths import ROOT
from tests.support.recipes import ADDED
from tests.support.records import write_records


def printed_next(output: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^next: (.*)", output, re.M)]


def test_the_way_from_a_list_to_images(tmp_path, server, tiny_size, tiny_dvae, capsys):
    """With the options that a test needs behind the printed ones."""
    lines = (ROOT / "sample" / "sources" / "cc3m.tsv").read_text().replace(DEFAULT_BASE, server.url).splitlines(True)
    (tmp_path / "my list.tsv").write_text("".join(lines[:12]))
    command = ["pairmill", "select", f"--source=cc3m={tmp_path / 'my list.tsv'}", f"--output={tmp_path / 'my pairs'}"]
    done = []
    while command:
        name, *options = command[1:]
        assert cli.main([name, *options, *ADDED.get(name, "").format(tokenizer=tiny_dvae).split()]) == 0
        done.append(name)
        said = capsys.readouterr().out
        following = [words for words in printed_next(said) if words[1] not in ("stats", "serve")]
        for words in printed_next(said):
            if words[1] == "stats":
                assert cli.main(words[1:]) == 0
                capsys.readouterr()
        if "--output" in options:
            output = options[options.index("--output") + 1]
            assert f"{name}: wrote {output}" in said and Path(output).exists()
        command = following[0] if following and name != "train" else []
    assert done == ["select", "fetch", "encode", "train"]
    assert following[0][1:3] == ["generate", "--checkpoint"]


@pytest.fixture
def next_of(capsys):
    """Runs a command: what it prints to run next, whose options all exist."""
    known = (ROOT / "tests" / "support" / "options.txt").read_text().splitlines()

    def run(*command: object, status: int = 0) -> list[list[str]]:
        capsys.readouterr()
        assert cli.main(list(map(str, command))) == status
        found = printed_next(capsys.readouterr().out)
        for program, name, *words in found:
            if program == "pairmill":
                assert {f"{name} {word}" for word in words if word.startswith("--")} <= set(known), name
        return found

    return run


def test_what_follows_tokenizers_and_lists_of_hashes(next_of, images, tmp_path):
    (tmp_path / "captions.txt").write_text("a red cat\na blue boat\n")
    bpe, hashes = tmp_path / "bpe.json", tmp_path / "list.hashes"
    followed = next_of("train-bpe", "--captions", tmp_path / "*.txt", "--vocabulary=300", "--output", bpe)
    dataset = ["--output", "DATASET"]
    assert followed == [["pairmill", "encode", "--images", "IMAGES", "--text-tokenizer", str(bpe), *dataset]]
    followed = next_of("hash", images / "00000.tar", "--output", hashes)
    assert followed == [["pairmill", "encode", "--images", "IMAGES", "--exclude", str(hashes), *dataset]]


def test_what_follows_a_model(next_of, tiny_checkpoint, tmp_path):
    checkpoint = ["--checkpoint", str(tiny_checkpoint)]
    options = ["--prompt=a cat", "--count=1", "--threads=1"]
    [serve] = next_of("generate", *checkpoint, *options, "--output", tmp_path / "images")
    assert serve == ["pairmill", "serve", *checkpoint]
    for output in ([], ["--output", tmp_path / "numbers.json"]):
        options = [
            "--dataset",
            tiny_checkpoint.parent / "dataset",
            "--split=train",
            "--limit=2",
            "--threads=1",
            *output,
        ]
        [generate] = next_of("evaluate", *checkpoint, *options)
        assert generate[:4] == ["pairmill", "generate", *checkpoint] and "--prompt" in generate
    [python] = next_of("export", *checkpoint, "--output", tmp_path / "the model")
    assert python[:2] == ["python", "-c"]
    called = ast.parse(python[2]).body[-1].value
    assert ast.unparse(called) == f"AutoModel.from_pretrained('{tmp_path / 'the model'}', trust_remote_code=True)"


def test_what_follows_a_look_at_a_dataset(next_of, tmp_path):
    one, two = (str(tmp_path / name) for name in ("one", "two"))
    write_records(tmp_path / "one", pairs=40)
    write_records(tmp_path / "two", pairs=40, first=10)
    assert next_of("stats", one) == [["pairmill", "verify", one]]
    assert next_of("stats", one, "--json") == []
    assert next_of("verify", one, "--workers=1")[0][:4] == ["pairmill", "train", "--dataset", one]
    shown = next_of("diff", one, two, status=1)
    assert [command[:4] for command in shown] == [["pairmill", "show", name, "--key"] for name in (one, two)]
    for command in shown:
        assert next_of(*command[1:]) == []


def test_names_are_quoted(capsys):
    print_output("fetch", "my images", ["encode", "--images", "my images"])
    assert capsys.readouterr().out == "fetch: wrote my images\nnext: pairmill encode --images 'my images'\n"


def test_a_list_of_which_nothing_is_kept(tmp_path, capsys):
    (tmp_path / "list.tsv").write_text("Ein brauner Hund läuft über die Wiese\thttp://a.example/1.jpg\n" * 3)
    options = [f"--source=cc3m={tmp_path / 'list.tsv'}", "--output", str(tmp_path / "out"), "--direct_num_workers=1"]
    assert cli.main(["select", *options]) == 0
    said = capsys.readouterr()
    assert "next:" not in said.out
    [line] = [line for line in said.err.splitlines() if "warning" in line]
    assert line.startswith("pairmill select: warning: no row was kept; 3 of 3 were not_english: only English")


def test_addresses_that_are_refused(tmp_path, server, capsys):
    (tmp_path / "list.tsv").write_text(f"A brown dog runs over the meadow\t{server.url}/images/cat.jpg\n")
    options = [f"--source=cc3m={tmp_path / 'list.tsv'}", "--output", str(tmp_path / "pairs"), "--direct_num_workers=1"]
    assert cli.main(["select", *options]) == 0
    [[_, *fetch]] = printed_next(capsys.readouterr().out)
    assert cli.main([*fetch, "--direct_num_workers=1"]) == 0
    assert "1 of 1 were refused_address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ledger", "expected"),
    [
        ({"read": 3, "kept": 1, "rejected": {}}, None),
        ({"read": 0, "kept": 0, "rejected": {}}, "no row was read: the input is empty"),
        ({"read": 2, "kept": 0, "rejected": {"fetch": {"dns": 2}}}, "2 of 2 were dns: check that this machine reaches"),
        ({"read": 1, "kept": 0, "rejected": {"select": {"file_name": 1}}}, "`pairmill show OUT` lists"),
    ],
)
def test_the_warning(ledger, expected):
    line = warning({"sources": {"cc3m": ledger}}, "OUT")
    assert line is None if expected is None else expected in required(line)


def test_options_in_the_fixes_exist():
    options = (ROOT / "tests" / "support" / "options.txt").read_text().split()
    named = {word for fix in FIXES.values() for word in re.findall(r"--[a-z-]+", fix)}
    assert named and named <= set(options)
    assert set(FIXES) <= set(Reason)
