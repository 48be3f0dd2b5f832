"""Ctrl-C at a terminal, which sends SIGINT to every process of the foreground group: one line, status 130, no process
left, and what the line says is true."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli import AFTER_INTERRUPT
from pipeline.output.state import KNOWN_FILES
from tests.support.paths import ROOT
from tests.support.records import write_records
from tests.support.scores import write_scores
from tests.support.terminals import CTRL_C, LIMIT_S, run_in_terminal

CC12M_ROWS = 200_000
IMPORTS = Path("while it imports packages")
# A job is interrupted once its output begins, or at the first line of its progress; others while they still start.
BUILD = ["build", "--output", "OUT", "--allow-address=127.0.0.0/8"]
CASES = {
    "select while it starts": (["select", "--source=cc12m=LIST", "--output", "OUT"], IMPORTS),
    "select before its workers run": (["select", "--source=cc12m=LIST", "--output", "OUT"], "OUT"),
    "select at work": (["select", "--source=cc12m=LIST", "--output", "OUT"], b"select:"),
    "build at work": ([*BUILD, "--source=cc12m=LIST"], b"build:"),
    "fetch": (["fetch", "--pairs", "PAIRS", "--output", "OUT", "--allow-address=127.0.0.0/8"], "OUT"),
    "encode": (["encode", "--images", "IMAGES", "--output", "OUT", "--image-tokenizer=bundled"], "OUT"),
    "score": (["score", "--images", "IMAGES", "--output", "OUT"], "OUT"),
    "cluster": (["cluster", "--scores", "SCORES", "--output", "OUT"], "OUT"),
    "filter": (["filter", "DATASET", "--where", "width > 1", "--output", "OUT"], "OUT"),
    "repack": (["repack", "--dataset", "DATASET", "--output", "OUT"], "OUT"),
    "verify": (["verify", "DATASET"], IMPORTS),
    "train": (["train", "--dataset", "DATASET", "--size", "3m", "--steps", "100000", "--batch-size", "2",
               "--output", "OUT"], b"step "),
    "train-dvae": (["train-dvae", "--images", "TARS", "--steps", "100000", "--batch-size", "2", "--hidden", "8",
                    "--vocabulary", "64", "--output", "OUT"], b"train-dvae:"),
    "evaluate": (["evaluate", "--images", "TARS", "--image-tokenizer=bundled", "--output", "OUT"], b"evaluate:"),
    "generate": (["generate", "--prompt", "a cat", "--count", "64", "--output", "OUT"], "OUT"),
    "serve": (["serve", "--port", "0"], b"http://"),
    "train-bpe": (["train-bpe", "--captions", "LIST", "--vocabulary", "300", "--output", "OUT"], IMPORTS),
}  # fmt: skip
# They start as a user's command does; the others are forked from a process that has imported what they need.
STARTING = {"select while it starts", "select before its workers run", "verify", "train-bpe"}


# What an interrupted command may leave in its output: what it needs to go on, or what is of use by itself.
LEAVES = {
    **dict.fromkeys(
        ("select", "build", "fetch", "encode", "score", "cluster", "filter", "repack"), KNOWN_FILES.pattern
    ),
    "train": r"log\.jsonl|text_tokenizer\.json",
    "train-dvae": r"log\.jsonl",
    "generate": r"\d{4}\.png",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory, images) -> dict[str, str]:
    base = tmp_path_factory.mktemp("interrupts")
    with open(base / "cc12m.tsv", "w") as file:
        file.writelines(
            f"http://127.0.0.1:9/{row}.jpg\tA brown dog number {row} runs over the grass\n" for row in range(CC12M_ROWS)
        )
    keys = [record.key for record in write_records(base / "dataset")]
    write_scores(base / "scores", {key: {"clip": 0.5} for key in keys}, with_embeddings=True)
    return {"LIST": str(base / "cc12m.tsv"), "DATASET": str(base / "dataset"), "PAIRS": str(base / "pairs"),
            "SCORES": str(base / "scores"), "IMAGES": str(images), "TARS": f"{images}/*.tar"}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ctrl_c_is_one_line(name, places, tmp_path, elsewhere):
    arguments, moment = CASES[name]
    if "PAIRS" in arguments and not os.path.exists(places["PAIRS"]):
        short = tmp_path / "short.tsv"
        short.write_text("".join(Path(places["LIST"]).read_text().splitlines(keepends=True)[:200]))
        assert elsewhere.run(["select", f"--source=cc12m={short}", "--output", places["PAIRS"]], tmp_path)[0] == 0
    put = {**places, "OUT": str(tmp_path / "out")}
    words = [word.replace("=LIST", f"={put['LIST']}") for word in arguments]
    words = [put.get(word, word) for word in words]
    moment = put.get(moment, moment)
    if name in STARTING:
        status, printed = interrupt(words, moment)
    else:
        status, printed = run_in_terminal(elsewhere, words, tmp_path, lambda shown: is_due(moment, shown))
    assert status in (130, 0) if arguments[0] == "serve" else status == 130, printed
    assert "Traceback" not in printed
    said = [line for line in printed.replace("\r", "\n").splitlines() if "interrupted" in line]
    if arguments[0] != "serve":
        assert len(said) == 1 and said[0].endswith(AFTER_INTERRUPT.get(arguments[0], "interrupted")), printed
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()} - {"short.tsv"}
    kept = re.compile(f"out/({LEAVES.get(arguments[0], '(?!)')})")
    assert not [name for name in left if not kept.fullmatch(name)]
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders <= ({"out"} if left else set())


def interrupt(arguments: list[str], moment: Path | str | bytes) -> tuple[int, str]:
    """Runs a command in a terminal of its own and types Ctrl-C: while it imports, when a path exists, or when the
    command has printed something. Returns its status and what the terminal showed."""
    child, terminal = pty.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a shell does; what runs the tests may ignore it
        command = os.path.join(os.path.dirname(sys.executable), "pairmill")
        os.execve(command, [command, *arguments], {**os.environ, "PYTHONPATH": str(ROOT)})
    started, shown, typed = time.monotonic(), b"", False
    try:
        while time.monotonic() < started + LIMIT_S:
            if select.select([terminal], [], [], 0.05)[0]:
                try:
                    shown += os.read(terminal, 1 << 16)
                except OSError:  # the last process has closed it
                    break
            if not typed and (is_importing(child) if moment is IMPORTS else is_due(moment, shown)):
                os.write(terminal, CTRL_C)
                typed = True
        else:
            pytest.fail(f"did not end within {LIMIT_S} s: {shown[-2000:].decode(errors='replace')}")
    finally:
        os.close(terminal)
        status = wait(child, started + LIMIT_S)
    return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")


def is_importing(process: int) -> bool:
    with contextlib.suppress(OSError):  # it has ended
        own = Path("/proc/self/cmdline").read_bytes()
        is_command = Path(f"/proc/{process}/cmdline").read_bytes() != own  # until exec it maps what the tests map
        return is_command and "site-packages" in Path(f"/proc/{process}/maps").read_text()
    return False


def is_due(moment: Path | str | bytes, shown: bytes) -> bool:
    return moment in shown if isinstance(moment, bytes) else os.path.exists(moment)


def wait(process: int, deadline: float) -> int:
    """The status that a process ends with, or is made to end with at the deadline."""
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    return ended[1]
