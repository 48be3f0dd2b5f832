"""What a manifest records about the tokenizers, and the check that two tokenizers are the same."""

from __future__ import annotations

import dataclasses

from models.errors import UserError

TEXT_TOKENIZER_FILE = "text_tokenizer.json"
"""Name of a byte-pair encoding's file, in a dataset, a checkpoint and the package."""


@dataclasses.dataclass(frozen=True)
class ImageTokenizerInfo:
    """Identifies an image tokenizer by its weights and describes its codes."""

    spec: str
    fingerprint: str  # SHA-256 of weights and configuration
    vocabulary: int  # number of codes
    grid: int  # codes a side
    image_size: int  # px a side


@dataclasses.dataclass(frozen=True)
class TextTokenizerInfo:
    """Identifies a text tokenizer by its file and describes its tokens."""

    fingerprint: str  # SHA-256 of the tokenizer.json
    vocabulary: int  # number of tokens
    max_tokens: int  # of a caption


def require_same_tokenizer(actual: str, expected: str, problem: str, fix: str) -> None:
    """Raises UserError "PROBLEM (expected ..., got ...); FIX" unless both fingerprints are the same."""
    if actual != expected:
        raise UserError(f"{problem} (expected {expected[:12]}, got {actual[:12]}); {fix}")
