"""What a user gets who installs pairmill as the README says, without a developer's packages: `make plain`.

    .venv-plain/bin/python tests/end_to_end/plain_install.py

Imports each module alone, runs every command once on the sample, and `pairmill select` on one row many times. Fails on
a status that is not due and on a traceback in what a process prints. No pytest: it would bring packages of its own.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import IO, NamedTuple

from packaging.requirements import Requirement  # Beam, among others, depends on it
from packaging.utils import canonicalize_name

from pipeline.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last: what is installed comes before the checkout

from sample import serve  # noqa: E402 (found by the line above)

OURS = ("models", "pipeline", "beam_jobs")
# The extra that a module needs beside `pip install .`; the longest name of the table that it begins with counts.
EXTRAS = {
    "models": None,
    "models.server": "serve",
    "pipeline": "pipeline",
    "pipeline.cli": None,
    "pipeline.version": None,
    "beam_jobs": "pipeline",
}
ELSEWHERE = "models.export.hub."  # modules that an exported model takes along, to where transformers is
# Runs as a user's process: neither the checkout nor the environment's variables name a folder to import from.
PYTHON = [sys.executable, "-I"]
PAIRMILL = os.path.join(os.path.dirname(sys.executable), "pairmill")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
TRAINING = ("train-dvae", "train", "evaluate", "export", "generate")  # on a machine that has no extra
AT_ONCE = 2
LIMIT_S = 300  # for one process
ONE_ROW_RUNS = 12
ROWS = 40  # of the lists, all have more
INTERRUPTED = 130  # the status after Control-C
TRACEBACK = "Traceback (most recent call last)"

# One environment stands for several: a third with torch would take 5 GB more. The finder of installed modules is
# replaced by one that does not see, neither as modules nor as metadata, what an extra left out would have brought.
SEEING_LESS = """
import importlib, json, re, sys
from importlib.machinery import PathFinder

module, hidden_modules, hidden_names = json.loads(sys.argv.pop(1))

class Fewer:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in hidden_modules else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*context):
        for found in PathFinder.find_distributions(*context):
            if re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower() not in hidden_names:
                yield found

    invalidate_caches = PathFinder.invalidate_caches

sys.meta_path[sys.meta_path.index(PathFinder)] = Fewer
imported = importlib.import_module(module)
if sys.argv[1:]:
    sys.exit(imported.main(sys.argv[1:]))
"""


class Failure(Exception):
    """What failed, and the end of what it printed."""


def run(name: str, command: list[str], folder: Path, expected: int = 0) -> str:
    """What a command printed. Raises Failure."""
    with tempfile.TemporaryFile("w+", errors="replace") as printed:  # no pipe: a worker left over would hold it open
        status: int | str
        try:
            status = subprocess.run(
                command,
                cwd=folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
            ).returncode
        except subprocess.TimeoutExpired:
            status = f"none after {LIMIT_S} s"
        return judged(name, status, printed, expected)


def judged(name: str, status: int | str, printed: IO[str], expected: int = 0) -> str:
    printed.seek(0)
    text = printed.read()
    if status != expected or TRACEBACK in text:
        what = "a traceback" if status == expected else f"status {status}"
        raise Failure(f"{name}: {what}\n" + "\n".join(text.splitlines()[-40:]))
    return text


# --- imports ---------------------------------------------------------------------------------------------------------


class Hidden(NamedTuple):
    modules: list[str]  # names at the top of the tree
    distributions: list[str]


def modules() -> list[str]:
    """All modules of the checkout that run here: one that the installation left out fails, too."""
    files = [path.relative_to(ROOT) for top in OURS for path in (ROOT / top).rglob("*.py")]
    names = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)
    return sorted(name for name in names if not name.startswith(ELSEWHERE))


def extra_of(module: str) -> str | None:
    return EXTRAS[max((name for name in EXTRAS if f"{module}.".startswith(f"{name}.")), key=len)]


def installed_with(extra: str | None) -> set[str]:
    """The distributions that `pip install '.[extra]'` brings, by their canonical names."""
    reached: set[tuple[str, str]] = set()
    waiting = [("pairmill", extra or "")]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in reached:
            continue
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another system
        reached.add((name, wanted))
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                waiting += [(canonicalize_name(requirement.name), further) for further in ("", *requirement.extras)]
    return {name for name, _ in reached}


@functools.cache
def hidden_without(extra: str | None) -> Hidden:
    seen = installed_with(extra)
    modules = [
        module
        for module, names in metadata.packages_distributions().items()
        if not any(canonicalize_name(name) in seen for name in names)
    ]
    names = {canonicalize_name(found.metadata["Name"]) for found in metadata.distributions()}
    return Hidden(sorted(modules), sorted(names - seen))


def seeing_less(module: str, extra: str | None, *arguments: str) -> list[str]:
    """The command that imports a module, and calls its main with the arguments if there are any."""
    return [*PYTHON, "-c", SEEING_LESS, json.dumps([module, *hidden_without(extra)]), *arguments]


def import_all(folder: Path) -> int:
    """Each module in a process of its own, which sees only what the table allows it; their number."""

    def import_alone(module: str) -> str | None:
        extra = extra_of(module)
        beside = f" with the extra {extra}" if extra else " without any extra"
        try:
            run(f"import {module}{beside}", seeing_less(module, extra), folder)
        except Failure as failure:
            return str(failure)
        return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [failure for failure in pool.map(import_alone, modules()) if failure]
    if failures:
        raise Failure("\n\n".join(failures))
    return len(modules())


# --- commands --------------------------------------------------------------------------------------------------------


def pairmill(folder: Path, line: str) -> str:
    name, *_ = arguments = shlex.split(line)
    print(f"  pairmill {line}", flush=True)
    command = seeing_less("pipeline.cli", None, *arguments) if name in TRAINING else [PAIRMILL, *arguments]
    return run(f"pairmill {line}", command, folder, 1 if name == "diff" else 0)  # the two differ


NEED_SCORES = [
    "filter merged --where 'width > 1' --output filtered",
    "cluster --scores scores --output clustered",
]
"""Commands that end with one line here: the extra `scores` and a model are missing."""


def refused(folder: Path, line: str) -> None:
    print(f"  pairmill {line}, which is refused", flush=True)
    run(f"pairmill {line}", [PAIRMILL, *shlex.split(line)], folder, 2)


def run_commands(folder: Path, url: str) -> set[str]:
    """Every command once, each with what those before it made; their names."""
    first_rows(f"{url}/sources/cc3m.tsv", folder / "cc3m.tsv", ROWS)
    fetching = "--allow-address 127.0.0.0/8 --timeout 3 --retries 0 --per-host-rate 500"
    tokenizers = "--image-tokenizer bundled --text-tokenizer bpe.json"
    lines = [
        "select --source cc3m=cc3m.tsv --val-share 0.2 --output pairs",
        f"fetch --pairs pairs --resize 256 {fetching} --output pictures",
        f"hash {shlex.quote(str(ROOT))}/sample/images/'a*' --output excluded.parquet",
        "train-bpe --captions 'pairs/pairs/*.parquet' --vocabulary 300 --output bpe.json",
        "score --images 'pictures/*.tar' --output scores",
        f"encode --images 'pictures/*.tar' {tokenizers} --exclude excluded.parquet --output encoded",
        f"build --source wit={url}/sources/wit_v1.sample.tsv.gz {fetching} {tokenizers} --output built",
        "repack --dataset encoded --dataset built --output merged",
        "diff encoded merged",
        "stats merged",
        "verify merged",
        "show merged --html page.html --count 4",
        "train-dvae --images 'pictures/*.tar' --steps 2 --batch-size 2 --window 64 --hidden 8 --output dvae",
        "train --dataset merged --size 3m --steps 2 --batch-size 1 --output model",
        "evaluate --checkpoint model --dataset merged --split train --limit 2 --output numbers.json",
        "export --checkpoint model --output exported",
        "generate --prompt 'a red flower' --count 1 --output drawn",
    ]
    for line in lines:
        pairmill(folder, line)
    for line in NEED_SCORES:
        refused(folder, line)
    serve_once(folder)
    return {line.split()[0] for line in (*lines, *NEED_SCORES)} | {"serve"}


def serve_once(folder: Path) -> None:
    """`pairmill serve`, one request, and its end by the signal of Control-C."""
    print("  pairmill serve --port=0", flush=True)
    with tempfile.NamedTemporaryFile("w+", errors="replace") as printed:
        command = [PAIRMILL, "serve", "--port=0"]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdout=printed,
            stderr=subprocess.STDOUT,
            preexec_fn=take_interrupts,
        ) as server:
            try:
                with urllib.request.urlopen(address_in(Path(printed.name), server), timeout=30) as answer:
                    page = answer.read()
                server.send_signal(signal.SIGINT)
                server.wait(timeout=30)
            except (OSError, subprocess.TimeoutExpired) as error:
                server.kill()
                judged("pairmill serve", f"none ({error})", printed)
        judged("pairmill serve", server.returncode, printed, INTERRUPTED)
    if b"<html" not in page:
        raise Failure(f"pairmill serve: GET / is no page but {page[:80]!r}")


def take_interrupts() -> None:
    """As a shell does for a command; what started this script in the background may ignore the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def address_in(printed: Path, server: subprocess.Popen) -> str:
    """The address that the server prints once it listens. Raises OSError if it never does."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends and server.poll() is None:
        for line in printed.read_text(errors="replace").splitlines():
            if line.startswith("serve: http"):
                return line.removeprefix("serve: ")
        time.sleep(0.1)
    raise OSError("it printed no address")


def first_rows(url: str, path: Path, rows: int) -> None:
    with urllib.request.urlopen(url) as answer:
        path.write_bytes(b"".join(answer.readlines()[:rows]))


def select_one_row(folder: Path, runs: int) -> None:
    """Lists shorter than the workers are many: an error there came in some runs only."""
    path = folder / "one_row.tsv"
    path.write_text("a red flower in a green garden\thttp://example.org/flower.jpg\n", encoding="utf-8")
    for number in range(runs):
        pairmill(folder, f"select --source cc3m=one_row.tsv --output one_row_{number}")


# --- all of it -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="plain-install-") as name, serve.start() as server:
            folder = Path(name)
            with timed("imports"):
                imported = import_all(folder)
            with timed("commands"):
                ran = run_commands(folder, server.url)
            with timed(f"select on one row, {ONE_ROW_RUNS} times"):
                select_one_row(folder, ONE_ROW_RUNS)
        if left := sorted(COMMANDS.keys() ^ ran):
            raise Failure(f"commands that did not run here, or are none: {', '.join(left)}")
    except Failure as failure:
        print(f"plain install: failed\n{failure}", file=sys.stderr)
        return 1
    print(f"plain install: {imported} modules, {len(ran)} commands: all passed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
