"""Beam's job servers: looked for before a job is built, and followed for as long as a job takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability import portable_runner

from models.errors import UserError

CONNECTION_S = 10.0  # within which a job server accepts a connection
ANSWER_S = 60  # within which it answers a request, unless the user gives --job_server_timeout
JOB_S = 366 * 86400
EMBEDDED = "embed"  # in place of an address: Beam's own job server, within the launcher


class PatientJobServiceHandle(portable_runner.JobServiceHandle):
    """Lets a job take a year: Beam takes `job_server_timeout`, by default 300 s, not only as the time for an answer,
    but also as that of the whole stream by which the launcher follows a job. With a year for both, a launcher would
    wait that long for a server that has died."""

    def run(
        self, preparation_id: str
    ) -> tuple[str, Iterator[beam_job_api_pb2.JobStateEvent], Iterator[beam_job_api_pb2.JobMessagesResponse]]:
        self.timeout = JOB_S
        return super().run(preparation_id)


portable_runner.JobServiceHandle = PatientJobServiceHandle  # type: ignore[misc]  # all portable runners take it


def check_job_server(options: PipelineOptions) -> None:
    """Raises UserError if no job server listens at --job_endpoint; Beam would try for minutes."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or endpoint == EMBEDDED:
        return
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECTION_S):
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            f"--job_endpoint {endpoint}: no job server answers there ({error}); start it, or give its HOST:PORT"
        ) from None
    if "job_server_timeout" not in options.get_all_options(drop_default=True):
        options.view_as(PortableOptions).job_server_timeout = ANSWER_S
