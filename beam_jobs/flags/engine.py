"""Where an engine's workers run, and what follows for the files that a job names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from apache_beam.options.pipeline_options import (
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
from pipeline.output.files import is_local

DATAFLOW, DOCKER, LOOPBACK = "DATAFLOW", "DOCKER", "LOOPBACK"


def environment_of(options: PipelineOptions) -> str:
    """Where the workers of an engine run: Beam's name of the environment, LOOPBACK for this machine, or DATAFLOW."""
    runner = create_runner(options.view_as(StandardOptions).runner)
    if type(runner).__name__ == "DataflowRunner":  # its module needs the extra `gcp`
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
