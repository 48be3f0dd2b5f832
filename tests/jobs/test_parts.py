"""`--part I/N`: any order, at once, killed and repeated, the bytes are those of a run without parts."""

from __future__ import annotations

import fcntl
import itertools
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.errors import UserError
from pipeline import cli
from pipeline.output import state
from pipeline.output.parts import Part
from tests.support.fetching import pair, write_pairs
from tests.support.hostile import HostileServer
from tests.support.launcher import Launcher
from tests.support.paths import files_of

Command = list[str]


@pytest.fixture(scope="module")
def commands(images, server, fetch_options, tiny_dvae, tmp_path_factory) -> dict[str, Command]:
    """Job -> a command without its output, whose units are several."""
    pairs = tmp_path_factory.mktemp("selected") / "pairs"
    select = ["select", f"--source=cc3m={server.url}/sources/cc3m.tsv", f"--output={pairs}", "--direct_num_workers=1"]
    assert cli.main(select) == 0
    tokenizer = f"--image-tokenizer={tiny_dvae}"
    few = [option for option in fetch_options if "unit" not in option]
    commands = {
        "build": [f"--source=img2dataset={images}/*.tar", tokenizer, "--pairs-per-unit=4", "--pairs-per-shard=6"],
        "encode": [f"--images={images}/*.tar", tokenizer, "--pairs-per-shard=6"],
        "fetch": [f"--pairs={pairs}", *few, "--pairs-per-unit=12"],
    }
    return {job: [job, *options, "--direct_num_workers=1"] for job, options in commands.items()}


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Job -> the files of a run without parts."""
    folder = tmp_path_factory.mktemp("whole")
    for job, command in commands.items():
        assert cli.main([*command, f"--output={folder / job}"]) == 0
    return {job: files_of(folder / job) for job in commands}


@pytest.fixture
def refused(capsys) -> Callable[[Command], str]:
    """Runs a command that must end with one line, which it gives."""

    def run(command: Command) -> str:
        capsys.readouterr()
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run


@pytest.mark.parametrize("job", ["build", "encode", "fetch"])
def test_parts_in_any_order_make_the_same_files(job, commands, whole, tmp_path, capsys):
    output = tmp_path / "out"
    for number in (3, 1, 2):
        assert not (output / "manifest.json").exists() and not (output / "ledger.json").exists()
        assert cli.main([*commands[job], f"--output={output}", f"--part={number}/3"]) == 0
    assert files_of(output) == whole[job]
    said = capsys.readouterr().out
    assert all(f"{job}: part {number}/3 of {output} is done" in said for number in (1, 2, 3))
    assert cli.main([*commands[job], f"--output={output}", "--part", "2/3"]) == 0  # an array that is submitted again
    assert "is complete: nothing to do for part 2/3" in capsys.readouterr().out
    assert files_of(output) == whole[job]


def test_a_part_does_its_units_alone(commands, tmp_path):
    output = tmp_path / "out"
    found: set[str] = set()
    for number in (1, 2):
        assert cli.main([*commands["build"], f"--output={output}", f"--part={number}/3"]) == 0
        units = {path.name for path in (output / "_work" / "units").iterdir()}
        assert found < units and len(units) < 8
        found = units
    assert json.loads((output / "_work" / "parts" / "2-of-3.json").read_text()) == {"done": True}


def test_the_whole_command_does_what_parts_have_left(commands, whole, tmp_path):
    output = tmp_path / "out"
    assert cli.main([*commands["build"], f"--output={output}", "--part=2/3"]) == 0
    assert cli.main([*commands["build"], f"--output={output}"]) == 0
    assert files_of(output) == whole["build"]


@pytest.mark.parametrize("job", ["build", "fetch"])
def test_parts_at_once(job, commands, whole, elsewhere, tmp_path, exhaustive):
    """Each in a process of its own, some killed and started again."""
    output = tmp_path / "out"
    command = [*commands[job], f"--output={output}"]
    for _ in range(10 if exhaustive else 1):
        shutil.rmtree(output, ignore_errors=True)
        parts = [[*command, f"--part={number}/3"] for number in (1, 2, 3)]
        with ThreadPoolExecutor(3) as pool:
            kills = (None, None, 0.5)
            ended = list(pool.map(lambda part, kill: elsewhere.run(part, tmp_path, None, kill), parts, kills))
        if not (output / ("manifest.json" if job == "build" else "ledger.json")).exists():
            ended.append(elsewhere.run(parts[2], tmp_path))
        assert {status for status, _ in ended} <= {0, -9}, ended
        assert files_of(output) == whole[job]


def test_parts_at_once_keep_to_the_limits_of_hosts_together(elsewhere, tmp_path):
    """Four processes that share nothing, as on four machines; measured at the server."""
    with HostileServer() as web:
        times = times_of_parts(elsewhere, web, tmp_path)
    assert len(times) == 40
    for begun in times:  # one of each machine may have been late on its way
        assert sum(begun <= at < begun + 0.9 for at in times) <= 8 + 4


def times_of_parts(elsewhere: Launcher, web: HostileServer, tmp_path: Path) -> list[float]:
    write_pairs(tmp_path / "pairs", [pair(web.url(f"plain/{n}")) for n in range(40)])
    command = ["fetch", f"--pairs={tmp_path / 'pairs'}", f"--output={tmp_path / 'out'}", "--pairs-per-unit=5"]
    command += ["--allow-address=127.0.0.0/8", "--direct_num_workers=1", "--per-host-rate=8"]
    with ThreadPoolExecutor(4) as pool:
        parts = [[*command, f"--part={number}/4"] for number in range(1, 5)]
        ended = list(pool.map(lambda part: elsewhere.run(part, tmp_path), parts))
    assert [status for status, _ in ended] == [0] * 4, ended
    return sorted(request.time for request in web.log)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/2/3", "-1/3"])
def test_a_wrong_part(text, commands, refused, tmp_path):
    said = refused([*commands["build"], f"--output={tmp_path / 'out'}", f"--part={text}"])
    assert said == f"pairmill: --part {text}: give I/N with I from 1 to N, such as 2/8\n"
    assert not (tmp_path / "out").exists()


def test_what_does_not_go_with_parts(commands, refused, tmp_path):
    output = tmp_path / "out"
    command = [*commands["build"], f"--output={output}"]
    assert "--overwrite: each part would remove" in refused([*command, "--part=1/3", "--overwrite"])
    assert cli.main([*command, "--part=1/3"]) == 0
    before = files_of(output)
    assert f"{output} was started in 3 parts; give I/3" in refused([*command, "--part=1/4"])
    assert "was started with other settings (settings.encode.draws: 1 -> 2)" in refused(
        [*command, "--part=2/3", "--draws=2"]
    )
    assert files_of(output) == before


def test_a_part_and_another_writer(commands, refused, tmp_path):
    output = tmp_path / "out"
    command = [*commands["build"], f"--output={output}"]
    (output / "_work" / "parts").mkdir(parents=True)
    with open(output / "_work" / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another pairmill writes the whole output in" in refused([*command, "--part=1/3"])
    with open(output / "_work" / "parts" / "1-of-3.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another pairmill writes this part in" in refused([*command, "--part=1/3"])
    with open(output / "_work" / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(UserError, match="another pairmill is writing there"):
            state.lock_output(str(output))


def test_a_folder_that_is_not_ours(commands, refused, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is not empty; choose another folder" in refused([*commands["build"], f"--output={tmp_path}", "--part=1/2"])
    assert files_of(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize(("total", "count"), list(itertools.product((1, 2, 3, 7), (0, 1, 3, 8, 100))))
def test_shares_are_even_and_cover_all(total, count):
    shares = [Part(number, total).share(count) for number in range(1, total + 1)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
