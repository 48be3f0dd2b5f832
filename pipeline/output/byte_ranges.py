"""A range of bytes of a file on any file system, by one request.

Beam's readers of object stores ask for the file's size first, and then for more than was wanted: S3's for all up to the
file's end, Google's for a buffer of 16 MB."""

from __future__ import annotations

import functools
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.output import files

_NO_OPTIONS = PipelineOptions([])


def read_range(path: str, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a file, which are not none. Raises OSError if it is shorter or missing."""
    read = _READERS.get(FileSystems.get_scheme(path), _read_opened)
    data = read(path, start, stop)
    if len(data) != stop - start:
        raise OSError(f"{path} ends after {start + len(data)} bytes")
    return data


def _read_opened(path: str, start: int, stop: int) -> bytes:
    with files.open_read(path) as file:
        file = getattr(file, "raw", file)
        file.seek(start)
        data = bytearray()
        while len(data) < stop - start and (more := file.read(stop - start - len(data))):
            data += more
    return bytes(data)


def _read_s3(path: str, start: int, stop: int) -> bytes:
    from apache_beam.io.aws import s3io  # of the extra `s3`

    bucket, name = s3io.parse_s3_path(path)
    client = s3_client(FileSystems._pipeline_options or _NO_OPTIONS)
    return client.get_object(Bucket=bucket, Key=name, Range=f"bytes={start}-{stop - 1}")["Body"].read()


def _read_gs(path: str, start: int, stop: int) -> bytes:
    from apache_beam.io.gcp import gcsio  # of the extra `gcp`

    bucket, name = gcsio.parse_gcs_path(path)
    client = gs_client(FileSystems._pipeline_options or _NO_OPTIONS)
    return client.bucket(bucket).blob(name).download_as_bytes(start=start, end=stop - 1)


@functools.lru_cache(maxsize=1)  # it takes longer to make than a request
def s3_client(options: PipelineOptions) -> Any:
    """boto3's client with the credentials and the endpoint that Beam uses."""
    from apache_beam.io.aws import s3io

    return s3io.S3IO(options=options).client.client


@functools.lru_cache(maxsize=1)
def gs_client(options: PipelineOptions) -> Any:
    """google.cloud.storage's client with the credentials that Beam uses."""
    from apache_beam.io.gcp import gcsio

    return gcsio.GcsIO(pipeline_options=options).client


_READERS = {"s3": _read_s3, "gs": _read_gs}
