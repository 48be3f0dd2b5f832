"""What object stores do better than Beam's file systems ask of them: many files deleted at once."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

FILES_PER_REQUEST = {"s3": 1000, "gs": 100}
"""What a store deletes by one request, at most."""
OTHER_FILES_PER_REQUEST = 100
REQUESTS_AT_ONCE = 64
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Before files are tried again that a store did not delete: S3 and Google ask for a slower pace that way."""


def delete_files(paths: list[str]) -> dict[str, Any]:
    """Deletes files of one file system, many by each request and many requests at once. A missing file is no error of a
    store. Returns the files that are still there, each with its error."""
    if not paths:
        return {}
    scheme = FileSystems.get_scheme(paths[0]) or ""
    size = FILES_PER_REQUEST.get(scheme, OTHER_FILES_PER_REQUEST)
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    delete = _DELETES.get(scheme, lambda: _beam_delete)()
    with concurrent.futures.ThreadPoolExecutor(min(REQUESTS_AT_ONCE, len(batches)), "delete") as pool:
        failed = pool.map(partial(_delete_patiently, delete), batches)
    return {path: error for batch in failed for path, error in batch.items()}


def _delete_patiently(delete: Callable[[list[str]], dict[str, Any]], paths: list[str]) -> dict[str, Any]:
    failed = delete(paths)
    for pause_s in PAUSES_S:
        if not failed:
            break
        time.sleep(pause_s)
        failed = delete(list(failed))
    return failed


def _beam_delete(paths: list[str]) -> dict[str, Any]:
    """Deletes files as Beam does; returns the errors."""
    try:
        FileSystems.delete(paths)
    except BeamIOError as error:
        return dict(error.exception_details or {}) or dict.fromkeys(paths, error)
    return {}


def _s3_delete() -> Callable[[list[str]], dict[str, Any]]:
    """Beam's file system would make a client for each request, which takes longer than the request."""
    from apache_beam.io.aws.s3io import S3IO  # only needed for s3://

    client = S3IO(options=FileSystems._pipeline_options)  # threads may share it
    return lambda paths: {path: error for path, error in client.delete_files(paths) if error}


def _google_delete() -> Callable[[list[str]], dict[str, Any]]:
    """Beam's file system would look each file up and delete it alone."""
    from apache_beam.io.gcp.gcsio import GcsIO  # only needed for gs://

    def delete(paths: list[str]) -> dict[str, Any]:
        client = GcsIO(pipeline_options=FileSystems._pipeline_options)
        return {path: f"HTTP status {error}" for path, error in client.delete_batch(paths) if error}

    return delete


_DELETES = {"s3": _s3_delete, "gs": _google_delete}
"""Each makes a function that deletes files, at most FILES_PER_REQUEST, and returns the errors."""
