"""A name or a file -> a frozen image tokenizer with a fingerprint.

SPEC is `bundled` (the small dVAE in the package) or `dvae:FILE.safetensors` (made by `pairmill train-dvae`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from models import pixels
from models.dataset import ImageTokenizerInfo
from models.dvae import DVAE, load_dvae
from models.errors import UserError

BUNDLED = Path(__file__).parent / "bundled" / "dvae.safetensors"
BATCH = 8  # pictures at once, always: a fixed shape keeps the arithmetic, and so the codes, the same for every picture


class ImageTokenizer:
    """Pictures to codes and back, in batches of one fixed size."""

    def __init__(self, model: DVAE, spec: str, fingerprint: str):
        self._model = model.to(memory_format=torch.channels_last).eval()
        config = model.config
        self.info = ImageTokenizerInfo(spec, fingerprint, config.vocabulary, config.grid, config.image_size)

    @torch.inference_mode()
    def encode(self, views_BHWC: np.ndarray) -> np.ndarray:
        """uint8 [B, size, size, 3] to codes, uint16 [B, grid * grid], row by row."""
        codes = [self._model.encode(pixels.to_tensor(batch)).flatten(1).numpy()[:filled].astype(np.uint16)
                 for batch, filled in _padded(views_BHWC)]
        return np.concatenate(codes) if codes else np.zeros((0, self.info.grid**2), np.uint16)

    @torch.inference_mode()
    def decode(self, codes_BN: np.ndarray) -> np.ndarray:
        """Codes [B, grid * grid] to pictures, uint8 [B, size, size, 3]. Raises ValueError for codes out of range."""
        if codes_BN.size and int(codes_BN.max()) >= self.info.vocabulary:
            raise ValueError(f"code {int(codes_BN.max())} is not in a vocabulary of {self.info.vocabulary}")
        pictures = [self._decode_batch(batch)[:filled] for batch, filled in _padded(codes_BN)]
        return np.concatenate(pictures) if pictures else np.zeros((0, *[self.info.image_size] * 2, 3), np.uint8)

    def _decode_batch(self, codes_BN: np.ndarray) -> np.ndarray:
        codes_Bhw = torch.from_numpy(codes_BN.astype(np.int64)).view(-1, self.info.grid, self.info.grid)
        return pixels.to_uint8(self._model.decode(codes_Bhw))


def _padded(array: np.ndarray):
    """Slices of exactly BATCH rows (the last filled up with zeros), each with its number of real rows."""
    for start in range(0, len(array), BATCH):
        batch = array[start : start + BATCH]
        filled = len(batch)
        if filled < BATCH:
            batch = np.concatenate([batch, np.zeros((BATCH - filled, *array.shape[1:]), array.dtype)])
        yield batch, filled


def load_image_tokenizer(spec: str) -> ImageTokenizer:
    """Raises UserError for an unknown SPEC or an unreadable file."""
    kind, _, file = spec.partition(":")
    if spec == "bundled":
        file = str(BUNDLED)
    elif kind != "dvae" or not file:
        raise UserError(f"image tokenizer {spec!r}: give `bundled` or `dvae:FILE.safetensors`")
    if not Path(file).is_file():
        raise UserError(f"image tokenizer {spec!r}: {file} does not exist")
    try:
        model = load_dvae(file)
    except ValueError as error:
        raise UserError(f"image tokenizer {spec!r}: {error}") from None
    # The safetensors header holds the configuration: the file's own hash covers both.
    return ImageTokenizer(model, spec, hashlib.sha256(Path(file).read_bytes()).hexdigest())
