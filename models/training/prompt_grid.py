"""Samples images from the same prompts at each validation, to show the progress of a run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from models.data.format import Manifest
from models.errors import UserError
from models.files import PROMPT_GRIDS_FOLDER, write_atomically
from models.image_files import image_grid, png
from models.sampling.checkpoint import load_model
from models.sampling.sampler import ImageRequest, image_seed, sample_codes
from models.tokenizers.image import ImageTokenizer, load_image_tokenizer, require_no_code
from models.tokenizers.info import require_same_tokenizer
from models.tokenizers.text import TextTokenizer

MAX_PROMPTS = 64


class PromptGrid(NamedTuple):
    """The prompts and the tokenizers of the dataset."""

    prompts: list[str]
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer

    def sample(self, output: Path, step: int, device: torch.device) -> np.ndarray:
        """Samples an image for each prompt on `device` from the checkpoint in `output`, with the same seeds each time.
        Writes the grid as `pictures/STEP.png` and returns it, uint8 [H, W, 3]."""
        model, fingerprint = load_model(output)
        model.to(device)
        requests = [
            ImageRequest(self.text_tokenizer.encode(prompt), image_seed(0, index))
            for index, prompt in enumerate(self.prompts)
        ]
        images = [self.image_tokenizer.decode(codes_N) for codes_N in sample_codes(model, requests).cpu().numpy()]
        grid_HWC = image_grid(np.stack(images))
        folder = output / PROMPT_GRIDS_FOLDER
        folder.mkdir(exist_ok=True)
        metadata = {"prompts": "\n".join(self.prompts), "step": str(step), "model": fingerprint}
        write_atomically(folder / f"{step:08d}.png", png(grid_HWC, metadata))
        return grid_HWC


def load_prompt_grid(prompts: Path, manifest: Manifest, tokenizer_json: bytes) -> PromptGrid:
    """Reads a file of prompts, one a line. Raises UserError if it has none or too many, and if the image tokenizer of
    the dataset has changed."""
    try:
        lines = [line.strip() for line in prompts.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {prompts} cannot be read: {error}") from None
    lines = [line for line in lines if line]
    if not 1 <= len(lines) <= MAX_PROMPTS:
        raise UserError(f"--prompts {prompts} has {len(lines)} prompts: give 1 to {MAX_PROMPTS}, one a line")
    spec = require_no_code(manifest.image_tokenizer.spec, "--prompts: the dataset", "train without --prompts")
    image_tokenizer = load_image_tokenizer(spec)
    require_same_tokenizer(
        image_tokenizer.info.fingerprint,
        manifest.image_tokenizer.fingerprint,
        f"--prompts: {manifest.image_tokenizer.spec} is not the image tokenizer of the dataset",
        "restore that one, or train without --prompts",
    )
    return PromptGrid(lines, TextTokenizer(tokenizer_json.decode()), image_tokenizer)
