"""Image tokenizers of one's own: `--image-tokenizer python:MODULE:FACTORY` calls FACTORY() of a module that Python can
import, here and on every worker.

Shape letters: B images, C channels, H W pixels (both `image_size`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from models.errors import UserError
from models.tokenizers.info import MAX_VOCABULARY, CodeShape, FixedConfig


class OwnTokenizer(Protocol):
    """What FACTORY returns. If it is an nn.Module, it is moved to the device that computes and set to evaluation.

    A code may depend on nothing but its image. On a processor, several threads call `encode`, each with one image.
    """

    identity: str  # tells these weights and settings from all others, such as the SHA-256 of their file
    vocabulary: int  # number of codes, up to 2^32
    shape: CodeShape  # CodeShape(grid=(rows, columns)), CodeShape(sequence=n) or CodeShape(scales=((1, 1), ...))
    image_size: int  # px a side

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels, float32 in 0..1, RGB, to codes of any integer type: [B, rows, columns] of a grid, else [B, codes]."""

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """Codes as `encode` shapes them, int64, to pixels in 0..1, [B, 3, H, W]."""


FIELDS = ("identity", "vocabulary", "shape", "image_size", "encode", "decode")


class OwnModel(nn.Module):
    """An OwnTokenizer, checked, in the form of the other models."""

    def __init__(self, made: OwnTokenizer, name: str):
        """Raises ValueError for an object that is not an OwnTokenizer; `name` is how the message calls it."""
        super().__init__()
        if missing := [field for field in FIELDS if not hasattr(made, field)]:
            raise ValueError(f"{name} returns {type(made).__name__}, which lacks {', '.join(missing)}")
        if not isinstance(made.shape, CodeShape):
            raise ValueError(f"{name}: shape is {made.shape!r}; give a CodeShape of models.tokenizers.info")
        for field, most in (("vocabulary", MAX_VOCABULARY), ("image_size", 1 << 16)):
            if type(value := getattr(made, field)) is not int or not 1 <= value <= most:
                raise ValueError(f"{name}: {field} is {value!r}; give an integer from 1 to {most:,}")
        if not isinstance(made.identity, str) or not made.identity:
            raise ValueError(f"{name}: identity is {made.identity!r}; give a text, such as the weights' SHA-256")
        self.made, self._name = made, name
        self.config = FixedConfig(made.vocabulary, made.shape, made.image_size)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the tokenizer says of itself."""
        fields = [self.made.identity, self.config.vocabulary, self.config.shape.to_json(), self.config.image_size]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()

    def encode(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels to codes, int64 [B, *dimensions]. Raises UserError for codes that the tokenizer did not announce."""
        codes, shape = self.made.encode(x_BCHW), (len(x_BCHW), *self.config.shape.dimensions)
        if tuple(codes.shape) != shape or codes.is_floating_point() or codes.dtype is torch.bool:
            found = f"{codes.dtype} of shape {list(codes.shape)}"
            raise UserError(f"{self._name}: encode gives {found}, expected integers {list(shape)}")
        codes = codes.long()
        if int(codes.min()) < 0 or int(codes.max()) >= self.config.vocabulary:
            found = f"{int(codes.min())} to {int(codes.max())}"
            raise UserError(f"{self._name}: encode gives codes {found} of a vocabulary of {self.config.vocabulary:,}")
        return codes

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor:
        """Codes to pixels, [B, 3, H, W]. Raises UserError for pixels of another shape."""
        x_BCHW, size = self.made.decode(codes_Bhw), self.config.image_size
        if tuple(x_BCHW.shape) != (len(codes_Bhw), 3, size, size):
            expected = [len(codes_Bhw), 3, size, size]
            raise UserError(f"{self._name}: decode gives {list(x_BCHW.shape)}, expected {expected}")
        return x_BCHW


def no_files(location: str) -> list[Path]:
    """The module is code: it is installed, not copied."""
    return []


def load_own(location: str) -> OwnModel:
    """Imports MODULE and calls FACTORY. Raises ValueError if either is missing or its result is no OwnTokenizer."""
    module_name, _, factory_name = location.partition(":")
    if not module_name or not factory_name:
        raise ValueError("give `python:MODULE:FACTORY`")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        fix = "install it or put its folder into PYTHONPATH, here and on all workers"
        raise ValueError(f"the module cannot be imported ({error}); {fix}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise ValueError(f"{module.__file__} has no function or class {factory_name}")
    return OwnModel(factory(), location)
