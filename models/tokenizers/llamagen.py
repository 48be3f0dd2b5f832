"""The VQ tokenizers of LlamaGen (Sun et al., arXiv 2406.06525), f8 and f16: the network of taming-transformers under
other names, with codes compared by direction. A checkpoint holds no configuration: its weights' sizes say all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from models.tokenizers.untrusted_weights import extract_tensors, load_checked, read_checkpoint
from models.tokenizers.vqgan import VQGAN, VQGANConfig

SECTIONS = ("ema", "model", "state_dict")  # of a checkpoint, the first that it has, as LlamaGen's own scripts do


def load_llamagen(path: Path) -> VQGAN:
    """Loads a checkpoint of LlamaGen's vq_train.py. Raises ValueError for another or a damaged file."""
    loaded = read_checkpoint(path)
    found = [loaded[name] for name in SECTIONS if name in loaded] if isinstance(loaded, Mapping) else []
    weights = extract_tensors(found[0] if found else loaded)
    try:
        config = config_from(weights)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of LlamaGen's image tokenizer: no {error}") from None
    return load_checked(VQGAN(config), renamed(weights, len(config.widths)), path)


def config_from(weights: Mapping[str, torch.Tensor]) -> VQGANConfig:
    """Infers the sizes from the weights by name. Raises KeyError for a weight that is missing."""
    convolution = r"encoder\.conv_blocks\.{}\.res\.{}\.conv1\.weight"
    levels, blocks = (
        sum(re.fullmatch(convolution.format(*numbers), name) is not None for name in weights)
        for numbers in ((r"\d+", "0"), ("0", r"\d+"))
    )
    vocabulary, code_width = weights["quantize.embedding.weight"].shape
    at_the_end = (False,) * (levels - 1) + (True,)
    return VQGANConfig(
        vocabulary=vocabulary,
        code_width=code_width,
        latent=weights["quant_conv.weight"].shape[1],
        input_width=weights["encoder.conv_in.weight"].shape[0],
        widths=tuple(weights[f"encoder.conv_blocks.{i}.res.0.conv1.weight"].shape[0] for i in range(levels)),
        blocks=blocks,
        encoder_attention=at_the_end,
        decoder_attention=at_the_end,
        normalised=True,
    )


def renamed(weights: Mapping[str, torch.Tensor], levels: int) -> dict[str, torch.Tensor]:
    """Renames the weights to the names of models.tokenizers.vqgan, whose decoder numbers its levels from the largest
    resolution."""
    middle = {"0": "block_1", "1": "attn_1", "2": "block_2"}

    def level(found: re.Match) -> str:
        part, number = found[1], int(found[2])
        return f"{part}.{'down' if part == 'encoder' else 'up'}.{number if part == 'encoder' else levels - 1 - number}."

    names = {}
    for name in weights:
        new = re.sub(r"^(encoder|decoder)\.conv_blocks\.(\d+)\.", level, name)
        new = re.sub(r"\.mid\.(\d)\.", lambda found: f".mid.{middle.get(found[1], found[1])}.", new)
        names[name] = re.sub(r"\.res\.(\d+)\.", r".block.\1.", new)
    return {names[name]: value for name, value in weights.items()}
