"""Image tokenizers that pairmill knows by name alone, as SPEC `codes:NAME`: their codes were computed elsewhere."""

from __future__ import annotations

import hashlib
import json

from models.errors import UserError
from models.tokenizers.info import CodeShape, ImageTokenizerInfo, require_same_tokenizer

KIND = "codes"
UNKNOWN_SIZE = 0  # px a side, of images that pairmill has not seen


def is_elsewhere(spec: str) -> bool:
    """Whether a SPEC names a tokenizer that can't be loaded."""
    return spec.startswith(f"{KIND}:")


def info_by_name(name: str, vocabulary: int, shape: CodeShape) -> ImageTokenizerInfo:
    """What a manifest says of such a tokenizer; its fingerprint follows from the three."""
    spec = f"{KIND}:{name}"
    fingerprint = hashlib.sha256(json.dumps([spec, vocabulary, shape.to_json()]).encode()).hexdigest()
    return ImageTokenizerInfo(
        spec=spec, fingerprint=fingerprint, vocabulary=vocabulary, shape=shape, image_size=UNKNOWN_SIZE
    )


def require_decoder(own: ImageTokenizerInfo, recorded: ImageTokenizerInfo, problem: str, fix: str) -> None:
    """Raises UserError "PROBLEM (expected ..., got ...); FIX" unless a tokenizer decodes the codes of the recorded one:
    it is the same, or it has codes of the same shape and at least the vocabulary of one that is known by name alone."""
    if not is_elsewhere(recorded.spec):
        require_same_tokenizer(own.fingerprint, recorded.fingerprint, problem, fix)
    elif own.shape != recorded.shape or own.vocabulary < recorded.vocabulary:
        expected, got = (f"{info.vocabulary:,} codes, {info.shape} an image" for info in (recorded, own))
        raise UserError(f"{problem} (expected {expected}; got {got}); {fix}")
