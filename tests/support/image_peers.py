"""Codes and images of an image tokenizer beside those of its peer's own class, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from models import pixels
from models.tokenizers.dalle_pytorch_vae import DiscreteVAE
from models.tokenizers.dvae import DVAE
from models.tokenizers.image import load_image_tokenizer
from models.tokenizers.vqgan import VQGAN

Network = TypeVar("Network", bound=nn.Module)


def installed(peer: Callable, command: str = "make peers"):
    try:
        return peer()
    except ImportError as error:
        pytest.skip(f"{error}; {command} installs it")


def views(size: int) -> np.ndarray:
    """Some uint8 [B, size, size, 3]: smooth, so that codes vary within an image."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1 if size == 256 else 4, 3, 8, 8), np.float32))
    return pixels.to_uint8(nn.functional.interpolate(coarse, size=(size, size), mode="bicubic"))


def agree(spec: str, their_logits: Callable, their_image: Callable, sign: int = 1) -> None:
    """Codes, logits and decoded images of the SPEC equal the peer's, whose functions take 0..1 [B, 3, H, W] and
    codes [B, h, w]. `sign` -1: the peer gives distances."""
    tokenizer = load_image_tokenizer(spec)
    x_BCHW = pixels.to_tensor(views(tokenizer.info.image_size)).contiguous()
    with torch.no_grad():
        logits_BVhw = sign * their_logits(x_BCHW)
        assert logits_BVhw.shape[1:] == (tokenizer.info.vocabulary, *tokenizer.info.shape.dimensions)
        model = tokenizer._model
        assert isinstance(model, DVAE | VQGAN | DiscreteVAE)
        torch.testing.assert_close(model.logits(x_BCHW), logits_BVhw, rtol=1e-4, atol=1e-4)
    agree_on_codes(spec, lambda _: logits_BVhw.argmax(1), their_image)


def agree_on_codes(spec: str, their_codes: Callable, their_image: Callable) -> None:
    """Codes and decoded images of the SPEC equal the peer's, whose functions take 0..1 [B, 3, H, W] and codes
    [B, *dimensions]."""
    tokenizer = load_image_tokenizer(spec)
    views_BHWC = views(tokenizer.info.image_size)
    codes_BN = np.stack([tokenizer.encode(view) for view in views_BHWC])
    assert len(np.unique(codes_BN)) > 3, "the same code everywhere proves little"
    with torch.no_grad():
        differ = their_codes(pixels.to_tensor(views_BHWC).contiguous()).flatten(1).numpy() != codes_BN
        assert differ.mean() <= 1e-4, f"{differ.sum()} of {differ.size} codes differ"
        codes = torch.from_numpy(codes_BN.astype(np.int64)).view(-1, *tokenizer.info.shape.dimensions)
        torch.testing.assert_close(tokenizer._model.decode(codes), their_image(codes), rtol=1e-4, atol=1e-4)


def spread(model: Network) -> Network:
    """Random weights that carry the image through to the codes: those of a new network say the same everywhere."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight)
    return model.eval()
