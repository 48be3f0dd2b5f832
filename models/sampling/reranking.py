"""Ranks images by how well they fit a caption, with a contrastive model of the user's (section 2.6: of 512 images).

The model is a folder in the layout of open_clip: `open_clip_config.json` and the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from models.errors import UserError

CONFIG = "open_clip_config.json"
BATCH = 16  # images


class ImageTextModel(Protocol):
    """The methods of an open_clip model that ranking needs. Embeddings are float [B, M]."""

    def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor: ...

    def encode_image(self, images: torch.Tensor, normalize: bool = False) -> torch.Tensor: ...


class Ranker(NamedTuple):
    """An image-text model with its preprocessing."""

    model: ImageTextModel
    tokenize: Callable[[list[str]], torch.Tensor]
    preprocess: Callable[[Image.Image], torch.Tensor]

    @torch.inference_mode()
    def scores(self, caption: str, images: Sequence[np.ndarray]) -> list[float]:
        """The cosine similarity of the caption and each image, uint8 [H, W, 3]; in the order of the images."""
        text_1M = self.model.encode_text(self.tokenize([caption]), normalize=True)
        cosines: list[float] = []
        for first in range(0, len(images), BATCH):
            batch = [self.preprocess(Image.fromarray(image)) for image in images[first : first + BATCH]]
            cosines += (self.model.encode_image(torch.stack(batch), normalize=True) @ text_1M[0]).tolist()
        return cosines


class Ranking(NamedTuple):
    """What ranks a prompt's images, and how many of them are kept."""

    ranker: Ranker
    keep: int  # number of best images to keep


def load_ranker(directory: Path) -> Ranker:
    """Reads an open_clip folder; needs no network.

    Raises UserError for another kind of folder, and when open_clip is not installed.
    """
    if not (directory / CONFIG).is_file():
        raise UserError(f"--rank-model {directory} holds no {CONFIG}: give the folder of an open_clip model")
    try:
        import open_clip  # only for this: it brings torchvision and timm
    except ImportError as error:
        raise UserError(f"--rank needs open_clip ({error}): pip install 'open_clip_torch>=3'") from None
    name = f"local-dir:{directory.resolve()}"
    try:
        model, preprocess = open_clip.create_model_from_pretrained(name)  # other loaders fall back to random weights
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip's, torch's, safetensors', pickle's or a missing package's
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2]).partition(". ")[0]
        raise UserError(f"--rank-model {directory} cannot be read: {reason or type(error).__name__}") from None
    return Ranker(model.eval(), tokenize, preprocess)
