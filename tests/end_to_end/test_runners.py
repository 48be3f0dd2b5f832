"""The same job on other runners: its graph for Dataflow, without a network, and a run by portable workers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import pytest

from beam_jobs import build_dataset
from beam_jobs.flags.common import beam_options
from models.data.format import read_manifest
from tests.conftest import ROOT

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


def test_runs_through_the_portable_job_service(tmp_path, server, fetch_options, tiny_dvae):
    """The path that Flink, Spark and Dataflow take: a job service, and a worker that knows nothing of this process."""
    # Unlike the local runner's own workers, this one starts in a folder from which the project can't be imported.
    with (
        _process("apache_beam.runners.portability.local_job_service_main", "-p", cwd=tmp_path) as service,
        _process("apache_beam.runners.worker.worker_pool_main", "--service_port", cwd=tmp_path) as workers,
    ):
        assert (
            build_dataset.main(
                [
                    f"--source=cc3m={server.url}/sources/cc3m.tsv",
                    *fetch_options,
                    f"--image-tokenizer={tiny_dvae}",
                    f"--output={tmp_path / 'out'}",
                    "--runner=PortableRunner",
                    f"--job_endpoint=localhost:{service}",
                    "--environment_type=EXTERNAL",
                    f"--environment_config=localhost:{workers}",
                ]
            )
            == 0
        )
    manifest = read_manifest(tmp_path / "out")
    assert manifest.pairs("train") + manifest.pairs("val") > 90


@contextlib.contextmanager
def _process(module: str, port_option: str, cwd):
    """Runs a Beam service on a free port until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The worker pool starts its workers as `python`: the one of this environment, which need not be activated.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", module, port_option, str(port)],
        cwd=cwd,
        env={**os.environ, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
                    break
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()
