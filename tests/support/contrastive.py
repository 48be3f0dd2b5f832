"""A small CLIP with random weights, in a folder as open_clip writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from models.scoring.model_folder import OPEN_CLIP_CONFIG, TOKENIZER

MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 12, "vocab_size": 60, "width": 32, "heads": 2, "layers": 2},
}
SIZE = 32


def word_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Ids of words in their order, then those of unknown words, of the start and of the end."""
    vocabulary = {word: number for number, word in enumerate([*words, "<unk>", "<start>", "<end>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(name, vocabulary[name]) for name in ("<start>", "<end>")]
    )
    return tokenizer


def random_weights(width: int = 64, text_width: int = 32, embedding: int = 16) -> dict[str, torch.Tensor]:
    """The weights of MODEL under open_clip's names."""
    torch.manual_seed(0)
    weights = {
        "visual.conv1.weight": torch.randn(width, 3, 16, 16) * 0.05,
        "visual.class_embedding": torch.randn(width),
        "visual.positional_embedding": torch.randn(5, width),
        "visual.proj": torch.randn(width, embedding),
        "token_embedding.weight": torch.randn(60, text_width),
        "positional_embedding": torch.randn(12, text_width),
        "text_projection": torch.randn(text_width, embedding),
        "logit_scale": torch.tensor(2.0),
    }
    for name, of in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text_width)):
        weights |= {f"{name}.weight": torch.ones(of), f"{name}.bias": torch.zeros(of)}
    for prefix, of in (("visual.transformer", width), ("transformer", text_width)):
        for layer in range(2):
            weights |= {f"{prefix}.resblocks.{layer}.{name}": weight for name, weight in _block(of).items()}
    return weights


def _block(width: int) -> dict[str, torch.Tensor]:
    shapes = {"attn.in_proj_": (3 * width, width), "attn.out_proj.": (width, width)}
    shapes |= {"mlp.c_fc.": (4 * width, width), "mlp.c_proj.": (width, 4 * width)}
    linear = {f"{name}weight": torch.randn(shape) * 0.2 for name, shape in shapes.items()}
    linear |= {f"{name}bias": torch.randn(shape[0]) * 0.1 for name, shape in shapes.items()}
    norms = {f"ln_{number}.{kind}": torch.ones(width) for number in (1, 2) for kind in ("weight", "bias")}
    return linear | norms


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / OPEN_CLIP_CONFIG).write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": {}}))
    save_file(random_weights(), folder / "open_clip_model.safetensors")
    word_tokenizer(["a", "red", "cat", "dog", "in", "the", "snow", ",", "number"]).save(str(folder / TOKENIZER))
    return folder
