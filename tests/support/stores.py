"""Buckets of S3 and of Google's store, on servers of their interfaces; fixtures of all tests."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import NamedTuple

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions


class Store(NamedTuple):
    url: str  # of a bucket
    put: Callable[[str, bytes], None]


@pytest.fixture
def s3(monkeypatch):
    server = pytest.importorskip("moto.server", reason="needs a server of S3's interface: make peers")
    boto3, s3fs = pytest.importorskip("boto3"), pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in (
        ("ENDPOINT_URL", f"http://{host}:{port}"),
        ("ACCESS_KEY_ID", "a"),
        ("SECRET_ACCESS_KEY", "b"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([]))
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="lists")
    yield Store("s3://lists", lambda name, data: client.put_object(Bucket="lists", Key=name, Body=data))
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", b"").close()  # moto keeps its buckets in the process
    running.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def gs(monkeypatch):
    reason = "needs a server of Google Cloud Storage's interface, and its client: make peers"
    server = pytest.importorskip("gcp_storage_emulator.server", reason=reason)
    google = pytest.importorskip("google.cloud.storage", reason=reason)
    pytest.importorskip("apache_beam.io.gcp.gcsio", reason=reason)
    running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="lists")
    running.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{running._api._httpd.server_port}")
    monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions(["--no_auth"]))
    bucket = google.Client.create_anonymous_client().bucket("lists")
    yield Store("gs://lists", lambda name, data: bucket.blob(name).upload_from_string(data))
    running.stop()


@pytest.fixture(params=["s3", "gs"])
def store(request) -> Store:
    return request.getfixturevalue(request.param)
