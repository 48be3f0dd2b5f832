"""A dataset on a remote file system, through a cache of bounded size."""

from __future__ import annotations

import itertools

import pytest
import torch

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


def test_what_is_wrong_with_a_remote_dataset(remote_dataset, tmp_path):
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
