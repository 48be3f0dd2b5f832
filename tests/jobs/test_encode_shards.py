"""`pairmill encode`: pictures in img2dataset's layout to a dataset, whatever the tokenizer, workers and batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

from beam_jobs import encode_shards
from models import pixels
from models.data.format import read_manifest
from models.tokenizers.text import BUNDLED_BPE
from models.tokenizers.vqgan import VQGAN, from_taming
from pipeline.inspection import faults
from tests.conftest import files_of


def encode(images: Path, output: Path, tokenizer: str, *options: str) -> Path:
    assert (
        encode_shards.main(
            [
                f"--images={images}/*.tar",
                f"--output={output}",
                f"--image-tokenizer={tokenizer}",
                f"--text-tokenizer={BUNDLED_BPE}",
                "--draws=2",
                *options,
            ]
        )
        == 0
    )
    assert faults.verify(str(output), workers=1) == []
    return output


def test_workers_and_batch_size_change_nothing(images, tiny_dvae, tmp_path):
    one = encode(images, tmp_path / "one", tiny_dvae, "--batch-size=1", "--direct_num_workers=1")
    two = encode(images, tmp_path / "two", tiny_dvae, "--batch-size=5", "--direct_num_workers=2")
    assert read_manifest(one).pairs("train") + read_manifest(one).pairs("val") == 29
    assert files_of(one) == files_of(two)


def test_the_first_draw_can_be_the_centre(images, tiny_dvae, tmp_path):
    output = encode(images, tmp_path / "out", tiny_dvae, "--centre-first", "--direct_num_workers=1")
    second_draws = []
    for row in pq.read_table(output / "index").to_pylist():
        first, second = (pixels.CropBox(*box) for box in np.array(row["crop_boxes"]).tolist())
        assert first == pixels.centre_crop(row["width"], row["height"], 64)
        second_draws.append(second == first)
    assert not all(second_draws)
    assert read_manifest(output).settings["encode"]["centre_first"] is True


def test_another_grid_and_vocabulary_flow_through(images, tmp_path):
    """A VQGAN f16: 4 x 4 codes of a 64-px picture."""
    network = {
        "double_z": False,
        "z_channels": 32,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [4],
        "dropout": 0.0,
    }
    described = {
        "target": "taming.models.vqgan.VQModel",
        "params": {"embed_dim": 8, "n_embed": 300, "ddconfig": network},
    }
    torch.manual_seed(0)
    torch.save({"state_dict": VQGAN(from_taming(described)).state_dict()}, tmp_path / "last.ckpt")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": described}))
    spec = f"taming:{tmp_path / 'model.yaml'},{tmp_path / 'last.ckpt'}"
    manifest = read_manifest(encode(images, tmp_path / "out", spec, "--direct_num_workers=1"))
    info = manifest.image_tokenizer
    assert (info.grid, info.vocabulary, info.image_size, info.spec) == (4, 300, 64, spec)
