"""Jobs of engines that go on without their launcher: what identifies one, how to find it again, how to look at it."""

from __future__ import annotations

from typing import Any

import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability import portable_runner
from apache_beam.runners.runner import PipelineResult, PipelineState, create_runner

from beam_jobs.flags.common import LOCAL_RUNNER
from beam_jobs.flags.engine import DATAFLOW_RUNNER, LOOPBACK
from beam_jobs.job_server import EMBEDDED
from models.errors import UserError
from pipeline.output import run_record

ANSWER_S = 30.0  # within which a job server answers


def is_remote(options: PipelineOptions) -> bool:
    """Whether a job goes on when its launcher ends."""
    flink = options.view_as(FlinkRunnerOptions).flink_master
    spark = options.view_as(SparkRunnerOptions).spark_master_url
    is_within = flink.startswith("[") and spark.startswith("local")  # the engine is a part of the launcher
    return can_be_found(options) or not (is_within or _has_workers_within(options))


def can_be_found(options: PipelineOptions) -> bool:
    """Whether another launcher can ask for a job: on Dataflow, or by a job server that goes on."""
    runner = options.view_as(StandardOptions).runner
    has_server = options.view_as(PortableOptions).job_endpoint not in (None, EMBEDDED)
    return DATAFLOW_RUNNER in str(runner) or (
        has_server and not _has_workers_within(options) and runner != LOCAL_RUNNER
    )


def _has_workers_within(options: PipelineOptions) -> bool:
    return options.view_as(PortableOptions).environment_type == LOOPBACK


def identify(result: Any, options: PipelineOptions) -> dict[str, str]:
    """What `find` needs for the job of a result; {} if it ends with this process."""
    if isinstance(result, portable_runner.PipelineResult) and is_remote(options):
        endpoint = options.view_as(PortableOptions).job_endpoint
        return {"job": result._job_id} | ({"endpoint": endpoint} if endpoint else {})
    if getattr(result, "has_job", False):  # of Dataflow
        google = options.view_as(GoogleCloudOptions)
        return {"job": result.job_id(), "project": google.project, "region": google.region}
    return {}


def describe(engine: dict[str, str]) -> str:
    """A job's id, and where to look at it."""
    if "endpoint" in engine:
        return f"job {engine['job']} of the job server {engine['endpoint']}"
    if "project" not in engine:
        return f"job {engine['job']}"
    return (
        f"Dataflow's job {engine['job']}, https://console.cloud.google.com/dataflow/jobs/{engine['region']}/"
        f"{engine['job']}?project={engine['project']}"
    )


def find(engine: dict[str, str], options: PipelineOptions) -> PipelineResult:
    """The result of a job that an earlier launcher submitted. Raises LookupError if its engine can't be asked."""
    if "endpoint" in engine:
        return _find_portable(engine)
    if "project" in engine:
        return _find_dataflow(engine, options)
    raise LookupError("without --job_endpoint, only its launcher can ask")


def _find_portable(engine: dict[str, str]) -> PipelineResult:
    channel = grpc.insecure_channel(engine["endpoint"])
    grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
    service = beam_job_api_pb2_grpc.JobServiceStub(channel)
    return portable_runner.PipelineResult(
        service,
        engine["job"],
        service.GetMessageStream(beam_job_api_pb2.JobMessagesRequest(job_id=engine["job"])),
        service.GetStateStream(beam_job_api_pb2.GetJobStateRequest(job_id=engine["job"])),
    )


def _find_dataflow(engine: dict[str, str], options: PipelineOptions) -> PipelineResult:
    from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult  # only needed for Dataflow
    from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient

    google = options.view_as(GoogleCloudOptions)
    google.project, google.region = engine["project"], engine["region"]
    runner: Any = create_runner(DATAFLOW_RUNNER)
    runner.dataflow_client = DataflowApplicationClient(options)
    return DataflowPipelineResult(runner.dataflow_client.get_job(engine["job"]), runner, options)


def state_of(engine: dict[str, str], options: PipelineOptions, output: str) -> str:
    """The state of a job, one of Beam's names. Raises UserError if the engine can't be asked or does not know it."""
    try:
        return find(engine, options).state
    except Exception as error:  # each engine's client has its own
        raise UserError(
            f"--output {output}: {describe(engine)} writes there, or did, but asking its engine failed "
            f"({_cause(error)}); look there; once the job is over, delete {run_record.path_of(output)} and run the "
            "same command"
        ) from None


def cancel(result: PipelineResult, engine: dict[str, str]) -> str:
    """Asks the engine to cancel a job. Returns what came of it, in words."""
    try:
        result.cancel()
        state = result.state
    except Exception as error:  # each engine's client has its own
        return f"it could not be cancelled ({_cause(error)}) and may run on: look at {describe(engine)}"
    if state == PipelineState.CANCELLED:
        return f"{describe(engine)} is cancelled; the same command continues with what was not finished"
    if PipelineState.is_terminal(state):
        return f"{describe(engine)} had ended before ({state}); the same command tells more"
    return f"its engine is asked to cancel it and says {state}: look at {describe(engine)}"


def _cause(error: Exception) -> str:
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    return " ".join(text.split()) or type(error).__name__
