"""A dataset on a remote file system, through a cache of bounded size."""

from __future__ import annotations

import http.server
import itertools
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from models.data import retry
from models.data.format import read_manifest
from models.data.stream import Stream
from models.errors import UserError
from tests.support.streams import PAIRS, first_keys


@pytest.fixture
def remote_dataset(stream_dataset):
    """The dataset in fsspec's memory."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(str(stream_dataset) + "/", "/lake/dataset", recursive=True)
    yield "memory://lake/dataset"
    files.rm("/lake", recursive=True)


def test_a_remote_dataset_gives_the_same_batches_within_the_cache(stream_dataset, remote_dataset, tmp_path):
    most = max(path.stat().st_size for path in stream_dataset.glob("train/*.tar"))
    sizes = []
    stream = Stream(remote_dataset, "train", 4, lanes=2, buffer=4, cache=tmp_path / "cache", cache_bytes=3 * most)
    local = Stream(stream_dataset, "train", 4, lanes=2, buffer=4)
    for here, there in itertools.islice(zip(local, stream, strict=False), 2 * PAIRS // 4):
        assert here.keys == there.keys and torch.equal(here.codes_BN, there.codes_BN)
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()))
    assert most < max(sizes) <= 3 * most


@pytest.fixture
def no_waits(monkeypatch):
    waits_s: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waits_s.append)
    return waits_s


class FaultyHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files; requests of a shard or the manifest first meet a busy server, then a body that is cut."""

    faults: dict[str, list[str]]

    def do_GET(self) -> None:
        fault = self.faults.setdefault(self.path, ["busy", "", "cut"]).pop(0) if self.is_faulty() else ""
        self.faults.setdefault(self.path, []).append("")
        if fault == "busy":
            self.send_error(503)
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        self.close_connection = True

    def is_faulty(self) -> bool:
        return self.path.endswith((".tar", "manifest.json"))

    def do_HEAD(self) -> None:
        self.send_error(405)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def faulty_server(stream_dataset, monkeypatch):
    monkeypatch.setattr(FaultyHandler, "faults", {}, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(FaultyHandler, directory=stream_dataset))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_busy_server_and_cut_bodies_are_asked_again(stream_dataset, faulty_server, tmp_path, no_waits):
    pytest.importorskip("aiohttp")
    stream = Stream(faulty_server, "train", 4, cache=tmp_path / "cache")
    assert first_keys(stream, PAIRS) == first_keys(Stream(stream_dataset, "train", 4), PAIRS)
    assert no_waits.count(1.0) == no_waits.count(4.0) == len(stream.shards) + 1  # and the manifest


def test_a_server_that_stays_busy_ends_the_run(faulty_server, tmp_path, no_waits, monkeypatch):
    pytest.importorskip("aiohttp")
    stream = Stream(faulty_server, "train", 4, cache=tmp_path / "cache")
    monkeypatch.setattr(FaultyHandler, "faults", {f"/{shard.path}": ["busy"] * 9 for shard in stream.shards})
    with pytest.raises(UserError, match=r"train/.*\.tar cannot be fetched into .*503"):
        next(iter(stream))


def test_a_damaged_copy_in_the_cache_is_fetched_again(stream_dataset, remote_dataset, tmp_path):
    expected = first_keys(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache"), PAIRS)
    for path in (tmp_path / "cache").glob("*.tar"):
        data = bytearray(path.read_bytes())
        data[600] ^= 1
        path.write_bytes(data)
    assert first_keys(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache"), PAIRS) == expected


def test_what_is_wrong_with_a_remote_dataset(remote_dataset, tmp_path, no_waits):
    import fsspec

    with pytest.raises(UserError, match="give a local folder"):
        Stream(remote_dataset, "train", 4)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache .*file.*give a writable folder"):
        Stream(remote_dataset, "train", 4, cache=tmp_path / "file")
    with pytest.raises(UserError, match="the cache at most 100; give it more"):
        next(iter(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache", cache_bytes=100)))
    with pytest.raises(UserError, match=r"memory://nowhere/manifest\.json does not exist"):
        Stream("memory://nowhere", "train", 4, cache=tmp_path / "cache")
    with pytest.raises(UserError, match="no-such-scheme"):
        Stream("no-such-scheme://x/y", "train", 4, cache=tmp_path / "cache")
    name = read_manifest(remote_dataset).shards[0].path
    fsspec.filesystem("memory").pipe(f"/lake/dataset/{name}", b"other")
    with pytest.raises(UserError, match=rf"memory://lake/dataset/{name} is not the file that the manifest names"):
        first_keys(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache"), PAIRS)
    fsspec.filesystem("memory").rm(f"/lake/dataset/{name}")
    with pytest.raises(UserError, match=rf"memory://lake/dataset/{name} is missing"):
        first_keys(Stream(remote_dataset, "train", 4, cache=tmp_path / "cache"), PAIRS)
