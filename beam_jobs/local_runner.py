"""Beam's local runner with a worker process for each core, without its four faults: lost rows, workers that take a
terminal's Ctrl-C for themselves, jobs that wait for ever for a worker that was killed, and tracebacks of users' errors.

Beam's `DirectRunner` would first try to download and start Prism, a Go program; this is its `FnApiRunner`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import RunnerResult
from apache_beam.runners.worker import sdk_worker
from google.protobuf import json_format, text_format

from beam_jobs.fork_server import ForkServer, Worker
from models.errors import UserError, WriteError

# Beam's local runner flushes the buffers of its streams every second, from a thread of its own: in the middle of an
# element, and what is written during the flush is lost (TimeBasedBufferingClosableOutputStream; so in 2.45 to 2.77).
# With 0 it flushes by size, between elements, as everywhere else in Beam.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0

_USER_ERRORS = tuple(f"{kind.__module__}.{kind.__qualname__}: " for kind in (UserError, WriteError))


def _print_unless_user_error(text: str, **options: Any) -> None:
    """In place of `print` in Beam's worker, which prints the traceback of whatever fails there. The launcher gets it as
    well, and makes one line of a UserError."""
    if not any(kind in text for kind in _USER_ERRORS):
        print(text, **options)


sdk_worker.print = _print_unless_user_error  # type: ignore[attr-defined]

FORKED_PYTHON = "pairmill:env:forked_python:v1"
FORK_SERVER = ForkServer()


class LocalRunner(FnApiRunner):
    """FnApiRunner whose worker processes are forked by FORK_SERVER."""

    def run_via_runner_api(
        self, pipeline_proto: beam_runner_api_pb2.Pipeline, options: PipelineOptions
    ) -> RunnerResult:
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                environment.urn = FORKED_PYTHON
        with _quiet_streams():
            return super().run_via_runner_api(pipeline_proto, options)


def prepare_workers(options: PipelineOptions) -> None:
    """Imports what workers will need, in another process and meanwhile, if the job will have worker processes."""
    if options.view_as(DirectOptions).direct_running_mode == "multi_processing":
        FORK_SERVER.prepare()
    else:
        FORK_SERVER.stop()


class AbortableFuture(worker_handlers.ControlFuture):
    """A worker's answer; once aborted it is done. Beam's is not, and who waits for the worker's data asks just that."""

    def is_done(self) -> bool:
        return self._exception is not None or super().is_done()


class AbortableConnection(worker_handlers.ControlConnection):
    """The requests to a worker; `abort` fails later ones, too. Beam's would wait for ever for the answer to the first
    request to a worker that has ended before it."""

    def __init__(self) -> None:
        super().__init__()
        self._pushing = threading.Lock()
        self._error: Exception | None = None

    def push(self, request: Any) -> Any:
        if request is worker_handlers.BeamFnControlServicer._DONE_MARKER:  # by `close`, which has a lock of `push`
            return super().push(request)
        with self._pushing:
            future = super().push(request)
            if self._error:
                future.abort(self._error)
            return future

    def abort(self, error: Exception) -> None:
        with self._pushing:
            self._error = error
            super().abort(error)


worker_handlers.ControlFuture = AbortableFuture  # type: ignore[misc]
worker_handlers.ControlConnection = AbortableConnection  # type: ignore[misc]


@worker_handlers.WorkerHandler.register_environment(FORKED_PYTHON, bytes)
class ForkedWorkerHandler(worker_handlers.GrpcWorkerHandler):
    """A worker process, as Beam's SubprocessSdkWorkerHandler has it; if it ends before the job, the job fails."""

    def __init__(
        self,
        payload: bytes,
        state: worker_handlers.StateServicer,
        provision_info: worker_handlers.ExtendedProvisionInfo,
        grpc_server: worker_handlers.GrpcServer,
    ) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._options = json_format.MessageToJson(provision_info.provision_info.pipeline_options)
        self._is_aborted = False
        self._worker: Worker | None = None

    def start_worker(self) -> None:
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        worker = self._worker = FORK_SERVER.start_worker(
            {
                **os.environ,
                "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
                "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.logging_api_service_descriptor()),
                "PIPELINE_OPTIONS": self._options,
                "WORKER_ID": self.worker_id,
            }
        )
        self._watcher = threading.Thread(target=self._watch, args=[worker], name="worker", daemon=True)
        self._watcher.start()
        if self._is_aborted:  # another worker ended meanwhile
            worker.kill()

    def _watch(self, worker: Worker) -> None:
        status = worker.wait()
        if status != 0 and not self._is_aborted:
            for handler in list(self.control_handler._worker_manager._workers_by_id.values()):
                handler.abort(UserError(_failure(status)))

    def abort(self, error: Exception) -> None:
        """Ends the worker; whoever waits for an answer of it gets this error."""
        self._is_aborted = True
        self.control_conn.abort(error)
        if self._worker:
            self._worker.kill()

    def stop_worker(self) -> None:
        self._watcher.join()


def _failure(status: int | None) -> str:
    if status is None:
        return "the process that starts workers has ended; the same command continues with what was not finished"
    if status == -signal.SIGKILL:
        return (
            "a worker process was killed, as the system does when memory is short; the same command continues with "
            "what was not finished; fewer workers (--direct_num_workers) take less memory"
        )
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return f"a worker process ended {how}; the same command continues with what was not finished"


@contextlib.contextmanager
def _quiet_streams() -> Iterator[None]:
    """While the block runs, a stream to a worker that is gone ends without a traceback: its handler tells."""
    hook = threading.excepthook
    threading.excepthook = lambda args: None if issubclass(args.exc_type, grpc.RpcError) else hook(args)
    try:
        yield
    finally:
        threading.excepthook = hook
