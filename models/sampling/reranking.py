"""Which picture fits a caption best, by an image-text model of the user's (section 2.6: the paper ranks 512 so).

The model is a folder in open_clip's form: `open_clip_config.json` and its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from models.errors import UserError

CONFIG = "open_clip_config.json"
BATCH = 16  # images


class Ranker(NamedTuple):
    model: torch.nn.Module
    tokenize: Callable[[list[str]], torch.Tensor]
    preprocess: Callable[[Image.Image], torch.Tensor]

    @torch.inference_mode()
    def scores(self, caption: str, images: Sequence[np.ndarray]) -> list[float]:
        """The cosine between the caption and each picture, uint8 [H, W, 3]."""
        text_1M = self.model.encode_text(self.tokenize([caption]), normalize=True)
        found = []
        for first in range(0, len(images), BATCH):
            batch = [self.preprocess(Image.fromarray(image)) for image in images[first : first + BATCH]]
            found += (self.model.encode_image(torch.stack(batch), normalize=True) @ text_1M[0]).tolist()
        return found


class Ranking(NamedTuple):
    ranker: Ranker
    keep: int  # the best so many


def load_ranker(directory: Path) -> Ranker:
    """Reads an open_clip folder, without a network. Raises UserError for another one, or without open_clip."""
    if not (directory / CONFIG).is_file():
        raise UserError(f"--rank-model {directory} holds no {CONFIG}: give the folder of an open_clip model")
    try:
        import open_clip  # only for this: it brings torchvision and timm
    except ImportError as error:
        raise UserError(f"--rank needs open_clip ({error}): pip install 'open_clip_torch>=3'") from None
    name = f"local-dir:{directory.resolve()}"
    try:
        model, preprocess = open_clip.create_model_from_pretrained(name)  # others take random weights where none are
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # the library's own, torch's, safetensors', pickle's, those of missing packages
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2]).partition(". ")[0]
        raise UserError(f"--rank-model {directory} cannot be read: {reason or type(error).__name__}") from None
    return Ranker(model.eval(), tokenize, preprocess)
