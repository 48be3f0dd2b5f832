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


class ImageTokenizer:
    """Pictures to codes and back, one at a time: on a processor that is 1.5 times as fast as eight at once, since a
    picture's activations stay in the cache, and no code can depend on its neighbours in a batch."""

    def __init__(self, model: DVAE, spec: str, fingerprint: str):
        self._model = model.to(memory_format=torch.channels_last).eval()
        config = model.config
        self.info = ImageTokenizerInfo(spec, fingerprint, config.vocabulary, config.grid, config.image_size)

    @torch.inference_mode()
    def encode(self, view_HWC: np.ndarray) -> np.ndarray:
        """uint8 [size, size, 3] to codes, uint16 [grid * grid], row by row."""
        return self._model.encode(pixels.to_tensor(view_HWC[None])).flatten().numpy().astype(np.uint16)

    @torch.inference_mode()
    def decode(self, codes_N: np.ndarray) -> np.ndarray:
        """Codes [grid * grid] to a picture, uint8 [size, size, 3]. Raises ValueError for codes out of range."""
        if int(codes_N.max()) >= self.info.vocabulary:
            raise ValueError(f"code {int(codes_N.max())} is not in a vocabulary of {self.info.vocabulary}")
        codes_1hw = torch.from_numpy(codes_N.astype(np.int64)).view(1, self.info.grid, self.info.grid)
        return pixels.to_uint8(self._model.decode(codes_1hw))[0]


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
