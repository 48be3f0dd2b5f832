"""Prism whose workers are on another host, with another path and another user, and whose output is on a store."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import grpc
import pytest

from beam_jobs import build_dataset
from pipeline.output import files as output_files
from pipeline.output.names import LEASE_FILE, RUN_FILE, WORK_FOLDER
from tests.support.engines import START_S, free_port, prism_process, wait_for
from tests.support.launcher import launcher
from tests.support.other_host import Running, is_possible, other_host
from tests.support.paths import ROOT, files_of
from tests.support.stores import Store

ENDPOINTS = ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")
VICTIMS = ("worker", "host", "engine", "launcher")
KILLS = 7  # of each on each store, with --exhaustive: 56


@pytest.fixture(autouse=True)
def slow(exhaustive):
    if not exhaustive:
        pytest.skip("only with --exhaustive: what stands in for the stores is slow")
    if not is_possible():
        pytest.skip("needs a user who may make namespaces: root")


@pytest.fixture
def job(store: Store, command) -> list[str]:
    """Options of a build whose list lies in the store, without its output."""
    [source] = [option for option in command if option.startswith("--source=cc3m=")]
    rows = Path(source.removeprefix("--source=cc3m=")).read_bytes().splitlines(keepends=True)
    store.put("cc3m.tsv", b"".join(rows[:20]))
    return [f"--source=cc3m={store.url}/cc3m.tsv", "--no_auth", *(option for option in command if option != source)]


@pytest.fixture
def here(job, tmp_path) -> dict[str, bytes]:
    """The files of the dataset by the local runner."""
    assert build_dataset.main([*job, f"--output={tmp_path / 'here'}", "--direct_num_workers=1"]) == 0
    return files_of(tmp_path / "here")


class Engine(NamedTuple):
    """Prism, with the other host's pool."""

    options: list[str]  # for a job
    prism: subprocess.Popen
    host: Running

    def kill(self, victim: str) -> None:
        pids = {"worker": self.host.workers, "host": [self.host.process.pid], "engine": [self.prism.pid]}
        for pid in pids[victim]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def engine(server, cwd: Path) -> Iterator[Engine]:
    """Runs Prism with workers on the other host, which reaches Prism, the store and the images."""
    pool_port = free_port()
    stores = [urlsplit(os.environ[name]).port for name in ENDPOINTS if name in os.environ]
    with prism_process(cwd) as (port, prism):
        reached = [port, *stores, urlsplit(server.url).port]
        with other_host(ROOT, reached, pool_port, cwd / "host.log") as host:
            wait_for(pool_port, host.process)
            wait_for_pool(pool_port)
            options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--machines=1"]
            options += ["--environment_type=EXTERNAL", f"--environment_config=localhost:{pool_port}"]
            yield Engine(options, prism, host)


def wait_for_pool(port: int) -> None:
    """Returns once the pool answers behind what forwards its port, which listens before: Prism would end at once."""
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=START_S)


def stored(output: str) -> dict[str, bytes]:
    return {name: output_files.read(f"{output}/{name}") for name in output_files.list_files(output)}


def test_the_same_dataset_from_another_host(store, job, here, server, tmp_path):
    with launcher() as elsewhere, engine(server, tmp_path) as there:
        status, said = elsewhere.run(["build", *job, f"--output={store.url}/out", *there.options], tmp_path)
    assert status == 0, said
    assert stored(f"{store.url}/out") == here


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_and_run_again(victim, store, job, here, server, tmp_path):
    chance = random.Random(victim)
    with launcher() as elsewhere:  # which knows the store
        for number in range(KILLS):
            output, after_s = f"{store.url}/{number}", chance.uniform(2, 20)
            whole = ["build", *job, f"--output={output}"]
            with engine(server, tmp_path) as there:
                timer = threading.Timer(after_s, there.kill, (victim,))
                if victim != "launcher":
                    timer.start()
                elsewhere.run(
                    [*whole, *there.options], tmp_path, kill_after_s=after_s if victim == "launcher" else None
                )
                timer.cancel()
            # As if the lease had ended, and as the line says that tells of a job whose engine is gone.
            output_files.delete(f"{output}/{WORK_FOLDER}", [LEASE_FILE, RUN_FILE])
            with engine(server, tmp_path) as there:
                status, said = elsewhere.run([*whole, *there.options], tmp_path)
            assert status == 0, said
            assert stored(output) == here
