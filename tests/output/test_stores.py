"""Many files deleted at once, from a store of S3's interface and from one of Google's."""

from __future__ import annotations

import random

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.object_store import ObjectStore, serving
from models.errors import UserError
from pipeline.output import files, stores
from pipeline.output.byte_ranges import read_range


@pytest.fixture
def serve(monkeypatch):
    """A function that makes an ObjectStore with files of these names the one behind s3://."""
    pytest.importorskip("boto3", reason="needs S3's client: make peers")
    stack = []

    def start(names: list[str], **options) -> ObjectStore:
        store = ObjectStore(**options)
        store.objects = {name: b"x" for name in names}
        context = serving(store)
        for name, value in (
            ("ENDPOINT_URL", context.__enter__()),
            ("ACCESS_KEY_ID", "a"),
            ("SECRET_ACCESS_KEY", "b"),
            ("DEFAULT_REGION", "us-east-1"),
            ("REQUEST_CHECKSUM_CALCULATION", "when_required"),
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([]))
        stack.append(context)
        return store

    yield start
    for context in stack:
        context.__exit__(None, None, None)


def names(number: int) -> list[str]:
    return [f"out/_work/units/{row:05d}.msgpack" for row in range(number)]


def test_deletes_go_in_batches_and_many_at_once(serve):
    store = serve([*names(9_500), "out/manifest.json"], delay_s=0.2)
    files.delete("s3://bucket/out/_work", files.list_files("s3://bucket/out/_work"))
    assert set(store.objects) == {"out/manifest.json"}
    assert store.requests == {"GET list-type": 10, "POST delete": 10} and store.most_at_once > 2


def test_what_a_busy_store_did_not_delete_is_tried_again(serve, monkeypatch):
    monkeypatch.setattr(stores, "PAUSES_S", (0.0, 0.0))
    store = serve(names(3), busy_deletes=2)
    files.delete("s3://bucket", names(3))
    assert not store.objects and store.requests["POST delete"] == 3
    store = serve(names(3), busy_deletes=9)
    with pytest.raises(UserError, match=r"can't delete s3://bucket/out/_work/units/00000.msgpack"):
        files.delete("s3://bucket", names(3))


def test_a_large_file_is_written_whole_and_read_in_ranges(serve):
    """Beyond 8 MB S3's client copies a file in parts, several at once."""
    store = serve([])
    data = random.Random(1).randbytes(20 << 20)
    files.write_atomically("s3://bucket/out/rows.arrow", data)
    assert store.objects == {"out/rows.arrow": data}
    store.requests.clear()
    assert read_range("s3://bucket/out/rows.arrow", 5, 9_000_000) == data[5:9_000_000]
    assert store.requests == {"GET": 1} and store.answered_requests[-1].sent == 9_000_000 - 5
    with pytest.raises(OSError, match=r"rows\.arrow"):
        read_range("s3://bucket/out/rows.arrow", len(data) - 1, len(data) + 1)
