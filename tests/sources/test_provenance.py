"""What a manifest says of the files that a dataset was made of."""

from __future__ import annotations

import gzip
import hashlib

from pipeline.sources import provenance


def test_files_are_described_as_they_lie_on_disk(tmp_path):
    """Names without folders, in the order given; bytes and hash of the whole file, not of what it unpacks to."""
    contents = {
        "b.tsv": bytes(range(256)) * 9000,  # more than two blocks are read
        "a.tsv.gz": gzip.compress(b"a cat\thttp://a.org/cat.jpg\n", mtime=0),
        "empty.tsv": b"",
    }
    assert len(contents["b.tsv"]) > 2 * provenance.BLOCK
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    assert provenance.describe_files(str(tmp_path / name) for name in contents) == [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
    ]


def test_one_changed_byte_at_the_end_changes_the_hash(tmp_path):
    path = tmp_path / "list.tsv"
    path.write_bytes(bytes(provenance.BLOCK) + b"a")
    before = provenance.describe_file(str(path))
    path.write_bytes(bytes(provenance.BLOCK) + b"b")
    after = provenance.describe_file(str(path))
    assert before["bytes"] == after["bytes"] and before["sha256"] != after["sha256"]
