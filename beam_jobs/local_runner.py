"""Beam's local runner with a worker process for each core, without its two faults: lost rows, and workers that take a
terminal's Ctrl-C for themselves.

Beam's `DirectRunner` would first try to download and start Prism, a Go program; this is its `FnApiRunner`.
"""

from __future__ import annotations

import shlex
import sys

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult

# Beam's local runner flushes the buffers of its streams every second, from a thread of its own: in the middle of an
# element, and what is written during the flush is lost (TimeBasedBufferingClosableOutputStream; so in 2.45 to 2.77).
# With 0 it flushes by size, between elements, as everywhere else in Beam.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0

# Ctrl-C reaches every process of the terminal: only the launcher acts on it. The shell that Beam starts clears the mask
# of blocked signals, but a signal that it ignores stays ignored. Beam itself does not quote the interpreter's path.
WORKER_COMMAND = f"trap '' INT; exec {shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"


class LocalRunner(FnApiRunner):
    """FnApiRunner whose worker processes start by WORKER_COMMAND."""

    def run_via_runner_api(
        self, pipeline_proto: beam_runner_api_pb2.Pipeline, options: PipelineOptions
    ) -> RunnerResult:
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                environment.payload = WORKER_COMMAND.encode()
        return super().run_via_runner_api(pipeline_proto, options)
