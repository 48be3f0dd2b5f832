"""Each command says what to run next, and that runs as printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from models.next_command import print_output
from pipeline import cli
from pipeline.output.nothing_kept import FIXES, warning
from pipeline.records import Reason
from sample.make_sources import DEFAULT_BASE
from tests.conftest import ROOT
from tests.end_to_end.test_recipes import ADDED


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
    assert line is expected is None or expected in line


def test_options_in_the_fixes_exist():
    options = (ROOT / "tests" / "support" / "options.txt").read_text().split()
    named = {word for fix in FIXES.values() for word in re.findall(r"--[a-z-]+", fix)}
    assert named and named <= set(options)
    assert set(FIXES) <= set(Reason)
