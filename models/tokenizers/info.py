"""What a manifest says of an image tokenizer and of a text tokenizer."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ImageTokenizerInfo:
    spec: str
    fingerprint: str  # SHA-256 of weights and configuration
    vocabulary: int
    grid: int  # codes a side
    image_size: int  # px a side


@dataclasses.dataclass(frozen=True)
class TextTokenizerInfo:
    fingerprint: str  # SHA-256 of the tokenizer.json
    vocabulary: int
    max_tokens: int
