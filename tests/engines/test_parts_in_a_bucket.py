"""Parts of a job that share an object store."""

from __future__ import annotations

import pytest

from beam_jobs import encode_shards
from pipeline.output import files as output_files
from tests.support.paths import files_of


def test_parts_in_a_bucket_make_the_same_files(s3, images, tiny_dvae, tmp_path, exhaustive):
    if not exhaustive:
        pytest.skip("only with --exhaustive: the store that stands in for S3 is slow")
    options = [f"--images={images}/0000[012].tar", f"--image-tokenizer={tiny_dvae}", "--direct_num_workers=1"]
    assert encode_shards.main([*options, f"--output={tmp_path / 'whole'}"]) == 0
    for part in ("2/2", "1/2"):
        assert encode_shards.main([*options, f"--output={s3.url}/out", f"--part={part}"]) == 0
    names = output_files.list_files(f"{s3.url}/out")
    assert {name: output_files.read(f"{s3.url}/out/{name}") for name in names} == files_of(tmp_path / "whole")
    assert encode_shards.main([*options, f"--output={s3.url}/out", "--part=1/2"]) == 0
