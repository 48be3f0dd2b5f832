"""Where an engine's workers run, and what follows for the files that a job names."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
    TestOptions,
)
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.spark_runner import LOCAL_MASTER_PATTERN
from apache_beam.runners.runner import create_runner

from models.errors import UserError
from pipeline.output.files import exists, is_local, join
from pipeline.output.names import SETTINGS_FILE, WORK_FOLDER
from pipeline.version import decisive_versions

DATAFLOW, DOCKER = "DATAFLOW", "DOCKER"
LOOPBACK = "LOOPBACK"  # workers within the launcher
DATAFLOW_RUNNER = "DataflowRunner"


def environment_of(options: PipelineOptions) -> str:
    """Where the workers of an engine run: Beam's name of the environment, LOOPBACK for this machine, or DATAFLOW."""
    runner = create_runner(options.view_as(StandardOptions).runner)
    if type(runner).__name__ == DATAFLOW_RUNNER:  # its module needs the extra `gcp`
        return DATAFLOW
    if not isinstance(runner, PortableRunner):
        return LOOPBACK
    return options.view_as(PortableOptions).environment_type or _default_environment(runner, options)


def _default_environment(runner: PortableRunner, options: PipelineOptions) -> str:
    """As each runner's `default_environment` decides, which would also look up all packages to ship."""
    starts_workers_here = {
        "PrismRunner": True,
        "FlinkRunner": options.view_as(FlinkRunnerOptions).flink_master in MAGIC_HOST_NAMES,
        "SparkRunner": bool(re.match(LOCAL_MASTER_PATTERN, options.view_as(SparkRunnerOptions).spark_master_url)),
    }
    return LOOPBACK if starts_workers_here.get(type(runner).__name__) else DOCKER


def has_remote_workers(options: PipelineOptions) -> bool:
    """Whether workers may run on other machines than this one."""
    return environment_of(options) != LOOPBACK


def check_places(options: PipelineOptions, output: str, inputs: Iterable[str]) -> None:
    """Raises UserError for a local output or input where no worker can see this machine's disk. Workers of other
    environments may share it; they check that themselves."""
    environment = environment_of(options)
    if options.view_as(TestOptions).dry_run or not (environment == DATAFLOW or "docker" in environment.lower()):
        return
    for what, path in (("--output ", output), *(("", path) for path in inputs)):
        if is_local(path):
            workers = "Dataflow's workers" if environment == DATAFLOW else "workers in containers"
            raise UserError(f"{what}{path}: {workers} do not see this machine's files; name a place such as gs://...")


class CheckWorker(beam.PTransform):
    """Fails a job whose workers can't do what the launcher promises: `check_worker` says how."""

    def __init__(self, output: str):
        self._output = output

    def expand(self, start):
        return (
            start
            | "Launcher" >> beam.Create([(self._output, decisive_versions())])
            | "Fits" >> beam.MapTuple(check_worker)
        )


def check_worker(output: str, versions: dict[str, str]) -> None:
    """Raises UserError if this process, a worker, does not see what the launcher wrote to a local output, or has other
    versions of the packages that decide the bytes, which the manifest names. It may lack those that it does not need.
    """
    if is_local(output) and not exists(join(output, WORK_FOLDER, SETTINGS_FILE)):
        raise UserError(
            f"--output {output}: a worker on {socket.gethostname()} does not see this folder; name one that all "
            "machines share, or a place such as s3://... or gs://..."
        )
    own = decisive_versions()
    if other := [name for name in versions.keys() & own.keys() if versions[name] != own[name]]:
        found = ", ".join(f"{name} {own[name]} (here {versions[name]})" for name in sorted(other))
        raise UserError(
            f"a worker on {socket.gethostname()} has {found}, so its bytes may differ; give workers the versions of "
            "this machine, as an image that docker/ builds from constraints.txt does"
        )


def check_job(pipeline: beam.Pipeline, options: PipelineOptions, output: str) -> None:
    """Raises UserError for a graph that the engine would refuse. Workers elsewhere will be checked first."""
    if has_remote_workers(options):
        _ = pipeline | "Check worker" >> CheckWorker(output)
    check_graph(pipeline, options)


MAX_DATAFLOW_GRAPH_BYTES = 10_000_000


def check_graph(pipeline: beam.Pipeline, options: PipelineOptions) -> None:
    """Raises UserError for a graph that the engine would refuse, after minutes of staging."""
    if environment_of(options) != DATAFLOW or options.view_as(DebugOptions).lookup_experiment("upload_graph"):
        return
    if (size := pipeline.to_runner_api().ByteSize()) > MAX_DATAFLOW_GRAPH_BYTES:
        raise UserError(
            f"--runner DataflowRunner: the job's graph has {size / 1e6:.1f} MB, of which Dataflow takes 10; name fewer "
            "files in one job, or give --experiments=upload_graph"
        )
