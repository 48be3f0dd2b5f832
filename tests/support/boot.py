"""Starts one worker of Beam as the `boot` of its container images does: with the options of the job, which a pool by
itself does not hand on, so that workers could open no store.

python boot.py --id=ID --logging_endpoint=URL --provision_endpoint=URL --control_endpoint=URL ...
"""

from __future__ import annotations

import os
import sys

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from google.protobuf import json_format

given = dict(option.removeprefix("--").split("=", 1) for option in sys.argv[1:])
channel = grpc.insecure_channel(given["provision_endpoint"])
service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
found = service.GetProvisionInfo(
    beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=[("worker_id", given["id"])], timeout=60
)
environment = {
    "WORKER_ID": given["id"],
    "PIPELINE_OPTIONS": json_format.MessageToJson(found.info.pipeline_options),
    "RUNNER_CAPABILITIES": " ".join(found.info.runner_capabilities),
    "LOGGING_API_SERVICE_DESCRIPTOR": f'url: "{given["logging_endpoint"]}"',
    "CONTROL_API_SERVICE_DESCRIPTOR": f'url: "{given["control_endpoint"]}"',
}
module = "apache_beam.runners.worker.sdk_worker_main"
os.execve(sys.executable, [sys.executable, "-m", module], {**os.environ, **environment})
