"""`pairmill encode`: pictures in img2dataset's layout to a dataset, whatever the tokenizer, workers and batch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from beam_jobs import encode_shards
from models import pixels
from models.data.format import read_manifest
from models.tokenizers.info import square
from models.tokenizers.text import BUNDLED_BPE
from models.tokenizers.vqgan import VQGAN, from_taming
from pipeline.dataset import exclusion_list
from pipeline.inspection import faults
from tests.support.images import encoded
from tests.support.img2dataset_output import image_row, write_output
from tests.support.paths import ROOT, files_of

SAMPLE = ROOT / "sample" / "images"


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


def test_near_duplicates_are_the_same_whoever_works(tiny_dvae, tmp_path):
    """Photographs, a smaller copy of each, and a list of one that is to be left out."""
    rows = [image_row(number, caption=f"A boat at sea, number {number}") for number in range(8)]
    names = sorted(path.name for path in SAMPLE.glob("*.jpg"))[:4]
    photos = {f"{number:09d}": (SAMPLE / name).read_bytes() for number, name in enumerate(names)}
    copies = {f"{4 + number:09d}": smaller(data) for number, data in enumerate(photos.values())}
    folder = write_output(tmp_path / "images", "webdataset", rows, photos | copies)
    assert exclusion_list.main([str(SAMPLE / names[0]), "--output", str(tmp_path / "list")]) == 0
    options = ["--near-duplicates", f"--exclude={tmp_path / 'list'}"]
    one = encode(folder, tmp_path / "one", tiny_dvae, *options, "--direct_num_workers=1")
    two = encode(folder, tmp_path / "two", tiny_dvae, *options, "--direct_num_workers=2")
    assert files_of(one) == files_of(two)
    reasons = pq.read_table(one / "rejects")["reason"].to_pylist()
    assert sorted(reasons) == ["duplicate_image"] * 3 + ["excluded"] * 2


def smaller(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data))
    return encoded(image.resize((image.width * 2 // 3, image.height * 2 // 3)), "JPEG", quality=80)


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
    assert (info.shape, info.vocabulary, info.image_size, info.spec) == (square(4), 300, 64, spec)
