"""A lookup-free image tokenizer of 2^18 codes with random weights, in files as Open-MAGVIT2 writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from models.tokenizers.open_magvit2 import OpenMAGVIT2, from_yaml


def settings(**changes: Any) -> dict[str, Any]:
    """A configuration of 32-px images with 8 x 8 codes; `changes` are to `init_args`."""
    network = {"z_channels": 18, "resolution": 64, "ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1}
    arguments = {"ddconfig": network, "n_embed": 1 << 18, "embed_dim": 18, "use_ema": False} | changes
    return {
        "model": {"class_path": "src.Open_MAGVIT2.models.lfqgan.VQModel", "init_args": arguments},
        "data": {"init_args": {"validation": {"params": {"config": {"size": 32}}}}},
    }


def write_files(folder: Path, described: dict[str, Any] | None = None) -> str:
    """Writes configuration and checkpoint; returns the SPEC."""
    torch.manual_seed(0)
    model = OpenMAGVIT2(from_yaml(settings()))
    torch.save({"state_dict": model.state_dict()}, folder / "lookup_free.ckpt")
    (folder / "lookup_free.yaml").write_text(yaml.safe_dump(described or settings()))
    return f"open-magvit2:{folder / 'lookup_free.yaml'},{folder / 'lookup_free.ckpt'}"
