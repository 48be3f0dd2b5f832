"""The same job on other runners: its graph for Dataflow, without a network, and a run by portable workers."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from beam_jobs import build_dataset, engine, select_pairs
from beam_jobs.flags.common import beam_options
from models.data.format import read_manifest
from models.errors import UserError
from pipeline.output import state
from tests.support.paths import ROOT

SOURCE = f"--source=cc3m={ROOT / 'sample' / 'sources' / 'cc3m.tsv'}"


def test_the_graph_builds_for_dataflow(tmp_path, capsys):
    pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs the extra gcp")
    assert (
        build_dataset.main(
            [
                SOURCE,
                f"--output={tmp_path / 'out'}",
                "--runner=DataflowRunner",
                "--dry_run=True",
                "--no_auth",
                "--sdk_location=container",
                "--project=test-project",
                "--region=us-central1",
                "--temp_location=gs://some-bucket/tmp",
                "--staging_location=gs://some-bucket/stg",
            ]
        )
        == 0
    )
    assert "the graph was built and checked" in capsys.readouterr().out
    assert not (tmp_path / "out" / "ledger.json").exists()


@pytest.mark.parametrize(
    "asked, workers, mode",
    [
        ([], os.cpu_count(), "multi_processing"),
        (["--direct_num_workers=0"], os.cpu_count(), "multi_processing"),
        (["--direct_num_workers=1"], 1, "in_memory"),
        (["--direct_num_workers", "3"], 3, "multi_processing"),
    ],
)
def test_workers_of_the_local_runner(asked, workers, mode):
    given = beam_options(asked).get_all_options()
    assert (given["direct_num_workers"], given["direct_running_mode"]) == (workers, mode)


class Service(NamedTuple):
    """A running process."""

    pid: int
    port: int
    terminate: Callable[[], None]
    wait: Callable[[], int]


SERVICE = ("-m", "apache_beam.runners.portability.local_job_service_main", "-p")
# Threads of the pool are quicker than processes, which would import Beam for each job.
WORKERS = (
    "-c",
    "import sys; from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer as Pool; "
    "Pool.start(port=int(sys.argv[1]))[1].wait_for_termination()",
)


def portable_options(service: Service, workers: Service) -> list[str]:
    return [
        "--runner=PortableRunner",
        f"--job_endpoint=localhost:{service.port}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{workers.port}",
    ]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with _process(*SERVICE, cwd=tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Unlike the local runner's own workers, these start in a folder from which the project can't be imported."""
    with _process(*WORKERS, cwd=tmp_path_factory.mktemp("workers")) as running:
        yield running


def test_runs_through_the_portable_job_service(
    service, workers, tmp_path, server, fetch_options, tiny_dvae, exhaustive
):
    """The path that Flink, Spark and Dataflow take: a job service, and a worker that knows nothing of this process."""
    if not exhaustive:
        pytest.skip("only with --exhaustive: tests/engines/test_remote_workers.py builds that way")
    options = [f"--source=cc3m={server.url}/sources/cc3m.tsv", *fetch_options, f"--image-tokenizer={tiny_dvae}"]
    output = tmp_path / "out"
    assert build_dataset.main([*options, f"--output={output}", *portable_options(service, workers)]) == 0
    manifest = read_manifest(output)
    assert manifest.pairs("train") + manifest.pairs("val") > 90


@pytest.fixture
def held(service, workers, tmp_path):
    """Workers that do nothing before `held.go()`, and the options of a select that uses them and the job service."""
    os.kill(workers.pid, signal.SIGSTOP)
    options = [SOURCE, f"--output={tmp_path / 'out'}", *portable_options(service, workers)]
    yield SimpleNamespace(options=options, go=lambda: os.kill(workers.pid, signal.SIGCONT))
    os.kill(workers.pid, signal.SIGCONT)


def test_a_launcher_leaves_and_another_follows(held, tmp_path, capsys):
    assert select_pairs.main([*held.options, "--no-wait"]) == 0
    [job] = re.findall(r"select: job (\S+) of the job server localhost:\d+\n", capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "_work" / "run.json").read_text())["engine"]["job"] == job
    assert select_pairs.main([*held.options, "--no-wait"]) == 0
    assert f"select: job {job} of the job server" in capsys.readouterr().out
    with pytest.raises(UserError, match="still runs; cancel it first"):
        select_pairs.main([*held.options, "--overwrite"])
    state.release_output(str(tmp_path / "out"))
    held.go()
    assert select_pairs.main(held.options) == 0
    said = capsys.readouterr().out
    assert f"job {job}" in said and "runs since an earlier command" in said and "rejected" in said
    assert not (tmp_path / "out" / "_work").exists() and (tmp_path / "out" / "ledger.json").exists()


def test_an_interrupted_launcher_cancels_the_job(held, elsewhere, tmp_path, capsys):
    printed = tmp_path / "printed"

    def has_printed() -> bool:
        return printed.exists() and printed.read_text().endswith("\n")

    status, errors = elsewhere.run(
        ["select", *held.options], tmp_path, kill_when=has_printed, kill_by=signal.SIGINT, printed=printed
    )
    job = printed.read_text().split()[2]
    assert status == 130 and f"select interrupted; job {job} of the job server" in errors
    assert "is cancelled; the same command continues" in errors and "Traceback" not in errors
    held.go()
    assert select_pairs.main(held.options) == 0
    assert re.search(rf"job {job} of the job server \S+ has ended \(CANCELLED\)", capsys.readouterr().out)


def test_a_job_that_its_engine_has_forgotten(workers, tmp_path):
    with _process(*SERVICE, cwd=tmp_path) as service:
        os.kill(workers.pid, signal.SIGSTOP)
        options = [SOURCE, f"--output={tmp_path / 'out'}", *portable_options(service, workers)]
        assert select_pairs.main([*options, "--no-wait"]) == 0
        service.terminate()
        service.wait()
    os.kill(workers.pid, signal.SIGCONT)
    with _process(*SERVICE, cwd=tmp_path, port=service.port), pytest.raises(UserError) as raised:
        select_pairs.main(options)
    assert "but asking its engine failed" in str(raised.value) and "_work/run.json" in str(raised.value)
    assert "\n" not in str(raised.value)


class DataflowClient:
    """Stands in for Dataflow's API: its jobs have the state that it is made with."""

    state = "JOB_STATE_RUNNING"

    def __init__(self, options, root_staging_location=None):
        self.options = options

    def get_job(self, job_id):
        dataflow = importlib.import_module("google.cloud.dataflow")  # of the extra gcp
        return dataflow.Job(id=job_id, current_state=dataflow.JobState[self.state])

    def modify_job_state(self, job_id, new_state):
        type(self).state = new_state
        return True


@pytest.mark.parametrize(
    ("options", "is_remote", "can_be_found"),
    [
        ([], False, False),
        (["--job_endpoint=localhost:1"], False, False),  # which the local runner does not read
        (["--runner=PortableRunner", "--job_endpoint=localhost:1"], True, True),
        (["--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=LOOPBACK"], False, False),
        (["--runner=PortableRunner", "--job_endpoint=embed"], False, False),
        (["--runner=FlinkRunner"], False, False),
        (["--runner=FlinkRunner", "--flink_master=host:8081"], True, False),
        (["--runner=DataflowRunner"], True, True),
    ],
)
def test_which_jobs_outlive_their_launcher(options, is_remote, can_be_found):
    options = beam_options(options)
    assert (engine.is_remote(options), engine.can_be_found(options)) == (is_remote, can_be_found)


def test_a_job_of_dataflow(monkeypatch):
    """Found again by its id, cancelled, and told of with its link."""
    apiclient = pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs the extra gcp")
    monkeypatch.setattr(apiclient, "DataflowApplicationClient", DataflowClient)
    options = beam_options(["--runner=DataflowRunner", "--project=p", "--region=r"])
    known = {"job": "2026-1", "project": "p", "region": "r"}
    found = engine.find(known, options)
    assert engine.can_be_found(options) and engine.identify(found, options) == known
    assert engine.state_of(known, options, "gs://bucket/out") == "RUNNING"
    link = "https://console.cloud.google.com/dataflow/jobs/r/2026-1?project=p"
    assert engine.cancel(found, known) == (
        f"Dataflow's job 2026-1, {link} is cancelled; the same command continues with what was not finished"
    )


@contextlib.contextmanager
def _process(*command: str, cwd, port: int = 0):
    """Runs a Beam service, whose last argument is its port, a free one unless one is given, until the end of the
    block."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, *command, str(port)],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                    break
                time.sleep(0.2)
            yield Service(process.pid, port, process.terminate, process.wait)
        finally:
            process.terminate()
            process.send_signal(signal.SIGCONT)
