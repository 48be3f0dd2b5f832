"""Where workers run, and what is refused before a job starts."""

from __future__ import annotations

import argparse
import random

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions

from beam_jobs import build_dataset
from beam_jobs.flags import engine
from beam_jobs.flags.common import beam_options
from beam_jobs.flags.fetch import fetching_machines
from models.errors import UserError
from pipeline import cli
from pipeline.version import decisive_versions
from tests.support.paths import ROOT

LIST = ROOT / "sample" / "sources" / "cc3m.tsv"
DATAFLOW = [
    "--runner=DataflowRunner",
    "--no_auth",
    "--sdk_location=container",
    "--project=test-project",
    "--region=us-central1",
    "--temp_location=gs://some-bucket/tmp",
    "--staging_location=gs://some-bucket/stg",
]
ONE_CONTAINER = "no_use_multiple_sdk_containers"


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ([], "LOOPBACK"),
        (["--runner=FnApiRunner"], "LOOPBACK"),
        (["--runner=PrismRunner"], "LOOPBACK"),
        (["--runner=PrismRunner", "--environment_type=DOCKER"], "DOCKER"),
        (["--runner=FlinkRunner"], "LOOPBACK"),
        (["--runner=FlinkRunner", "--flink_master=flink:8081"], "DOCKER"),
        (["--runner=SparkRunner"], "LOOPBACK"),
        (["--runner=SparkRunner", "--spark_master_url=spark://host:7077"], "DOCKER"),
        (["--runner=PortableRunner"], "DOCKER"),
        (["--runner=PortableRunner", "--environment_type=LOOPBACK"], "LOOPBACK"),
        (["--runner=PortableRunner", "--environment_type=EXTERNAL"], "EXTERNAL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_where_workers_run(options, environment):
    parsed = beam_options(options)
    assert engine.environment_of(parsed) == environment
    assert engine.has_remote_workers(parsed) == (environment != "LOOPBACK")


UNSEEN = "workers in containers do not see this machine's files; name a place such as gs://..."


@pytest.mark.parametrize(
    ("options", "unseen"),
    [
        (["--output=out", "--source=cc3m=gs://b/cc3m.tsv"], "--output out"),
        (["--output=gs://b/out", f"--source=cc3m={LIST}"], str(LIST)),
        (["--output=gs://b/out", "--source=cc3m=gs://b/cc3m.tsv", "--exclude=coco.hashes"], "coco.hashes"),
    ],
    ids=["output", "list", "list of excluded images"],
)
def test_local_places_are_refused_for_workers_in_containers(options, unseen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        build_dataset.main([*options, "--runner=FlinkRunner", "--flink_master=http://127.0.0.1:1"])
    assert str(refused.value) == f"{unseen}: {UNSEEN}"
    assert not any(tmp_path.iterdir())


def test_local_places_are_refused_for_dataflow():
    pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs the extra gcp")
    options = beam_options(DATAFLOW)
    engine.check_places(options, "gs://b/out", ["gs://b/*.tsv"])
    with pytest.raises(UserError, match=r"^--output out: Dataflow's workers do not see this machine's files"):
        engine.check_places(options, "out", ["gs://b/*.tsv"])
    with pytest.raises(UserError, match=r"^lists/\*\.tsv: Dataflow's workers do not see"):
        engine.check_places(options, "gs://b/out", ["gs://b/*.tsv", "lists/*.tsv"])
    engine.check_places(beam_options([*DATAFLOW, "--dry_run=True"]), "out", [])


def test_a_worker_that_does_not_see_the_output(tmp_path):
    with pytest.raises(UserError, match=r"does not see this folder; name one that all machines share"):
        engine.check_worker(str(tmp_path), {})
    (tmp_path / "_work").mkdir()
    (tmp_path / "_work" / "settings.json").write_text("{}")
    engine.check_worker(str(tmp_path), {})


def test_a_worker_of_other_versions():
    """Of packages that both have."""
    versions = decisive_versions()
    engine.check_worker("gs://bucket/out", versions | {"ftfy": versions["ftfy"]})
    with pytest.raises(
        UserError, match=r"has ftfy [\d.]+ \(here 0\.1\), pillow [\d.]+ \(here 9\), so its bytes may differ"
    ):
        engine.check_worker("gs://bucket/out", versions | {"pillow": "9", "ftfy": "0.1", "not installed": "1"})


def test_an_option_of_the_engines_own_module_is_known():
    """Beam defines the options of some runners in the runner's module."""
    options = beam_options(["--runner=apache_beam.runners.render.RenderRunner", "--render_output=graph.png"])
    assert options.get_all_options()["render_output"] == ["graph.png"]
    with pytest.raises(UserError, match=r"--render_outpt=graph\.png: not an option of pairmill"):
        beam_options(["--runner=apache_beam.runners.render.RenderRunner", "--render_outpt=graph.png"])


COMPLETE = {"project": "some-project", "region": "us-central1", "temp_location": "gs://some-bucket/tmp"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"project": ""}, "--project is missing; name it."),
        ({"region": ""}, "--region is missing; name it."),
        ({"temp_location": ""}, "--temp_location is missing; give one such as gs://BUCKET/tmp."),
        ({"temp_location": "/tmp"}, "Invalid GCS path (/tmp), given for the option: temp_location."),
    ],
    ids=str,
)
def test_an_option_that_dataflow_needs_is_missed_at_once(given, said, monkeypatch, capsys):
    """Beam would ask Google's storage first: for minutes where there is no network, and with a traceback."""
    pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs the extra gcp")

    def ask(*_):
        raise AssertionError("asked Google's storage")

    for name in ("_create_default_gcs_bucket", "_warn_if_soft_delete_policy_enabled"):
        monkeypatch.setattr(GoogleCloudOptions, name, ask)
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)
    monkeypatch.setenv("PATH", "")  # no gcloud that knows a region
    options = [f"--{name}={value}" for name, value in (COMPLETE | given).items() if value]
    select = ["select", f"--source=cc3m={ROOT}/sample/sources/cc3m.tsv", "--output=gs://some-bucket/out"]
    assert cli.main([*select, "--runner=DataflowRunner", *options]) == 2
    assert capsys.readouterr().err == f"pairmill: --runner DataflowRunner: {said}\n"


def test_a_graph_that_dataflow_refuses(monkeypatch):
    options = beam_options(["--runner=FnApiRunner"])
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([random.Random(0).randbytes(110_000)])
    monkeypatch.setattr(engine, "MAX_DATAFLOW_GRAPH_BYTES", 100_000)
    engine.check_graph(pipeline, options)
    monkeypatch.setattr(engine, "environment_of", lambda options: engine.DATAFLOW)
    with pytest.raises(UserError, match=r"graph has \d+\.\d MB, of which Dataflow takes 10; name fewer files"):
        engine.check_graph(pipeline, options)
    engine.check_graph(pipeline, beam_options(["--runner=FnApiRunner", "--experiments=upload_graph"]))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ([], 1),
        ([*DATAFLOW, "--max_num_workers=10", "--machine_type=n1-standard-4"], 40),
        ([*DATAFLOW, "--max_num_workers=10", "--machine_type=n2-custom-8-16384", f"--experiments={ONE_CONTAINER}"], 10),
        ([*DATAFLOW, "--max_num_workers=10", "--machine_type=a2-highgpu-1g"], None),
        ([*DATAFLOW, "--machine_type=n1-standard-4"], None),
        (["--runner=FlinkRunner", "--flink_master=flink:8081", "--max_num_workers=10"], 10),
    ],
    ids=lambda value: " ".join(value[7:]) if isinstance(value, list) else value,
)
def test_into_how_many_parts_the_limits_of_hosts_are_divided(options, parts, capsys):
    """Into one, with a warning, where that is unknown; --machines tells."""
    if DATAFLOW[0] in options:
        pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs the extra gcp")
    args = argparse.Namespace(machines=None, part=None)
    assert fetching_machines(args, beam_options(options)) == (parts or 1)
    assert ("--machines N divides them" in capsys.readouterr().err) == (parts is None)
    assert fetching_machines(argparse.Namespace(machines=3, part=None), beam_options(options)) == 3
