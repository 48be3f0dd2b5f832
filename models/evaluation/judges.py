"""Networks that look at images and captions, from the user's own files: CLIP or SigLIP, and the Inception of FID."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from models import pixels
from models.evaluation.frechet import frechet_distance, moments
from models.evaluation.inception import load_inception
from models.evaluation.perceptual import LPIPS
from models.files import sha256_of
from models.scoring.model_folder import fingerprint, load_model, model_files

BATCH = 16  # images or captions that a network takes at once
DISTANCES = {"inception": "fid", "clip": "clip_fid"}  # a judge: the Fréchet distance by its features

ImageJudge = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Images, each uint8 [H, W, 3], to features, float32 [B, F]."""


class ContrastiveJudge:
    """A CLIP or SigLIP model in a folder as open_clip or transformers publish them. Features are what it embeds images
    and captions as, before their length is made 1. Raises UserError for another kind of folder."""

    def __init__(self, folder: Path, device: str):
        files = model_files(folder)
        self._model, self._device = load_model(files), device
        self._model.network.to(device)
        self.description = {"model": str(folder), "fingerprint": fingerprint(files)}

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images, each uint8 [H, W, 3], to float32 [B, E]."""
        prepare, tower = self._model.images.prepare, self._model.network.image
        return _run(tower, ([prepare(image) for image in group] for group in _groups(images)), self._device)

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        """Captions to float32 [B, E]."""
        prepare, tower = self._model.texts.prepare, self._model.network.text
        return _run(tower, ([prepare(caption) for caption in group] for group in _groups(captions)), self._device)


class InceptionJudge:
    """The network of FID, whose weights are in a file. Raises UserError for another kind of file."""

    def __init__(self, path: Path, device: str):
        self._network, self._device = load_inception(path).to(device), device
        self.description = {"weights": str(path), "fingerprint": sha256_of(path)}

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images, each uint8 [H, W, 3] and all of one size, to float32 [B, 2048]."""
        groups = (255 * pixels.to_tensor(np.stack(group)).contiguous() for group in _groups(images))
        return _run(self._network, groups, self._device)


def _groups(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


@torch.inference_mode()
def _run(network: Callable[[torch.Tensor], torch.Tensor], groups: Iterator[Any], device: str) -> np.ndarray:
    tensors = (torch.as_tensor(group if isinstance(group, torch.Tensor) else np.stack(group)) for group in groups)
    return np.concatenate([network(tensor.to(device)).float().cpu().numpy() for tensor in tensors])


class Judges(NamedTuple):
    """The judges that a user has given."""

    contrastive: ContrastiveJudge | None = None
    inception: InceptionJudge | None = None
    lpips: LPIPS | None = None

    def of_images(self) -> dict[str, ImageJudge]:
        """Those whose features a Fréchet distance compares, by their names in DISTANCES."""
        named = {"clip": self.contrastive, "inception": self.inception}
        return {name: judge.images for name, judge in named.items() if judge}

    def descriptions(self) -> dict[str, Any]:
        """The files of these, and their fingerprints."""
        named = {"clip": self.contrastive, "inception": self.inception}
        return {name: judge.description for name, judge in named.items() if judge}


class ImageFeatures:
    """The features of a set of images that comes in parts, by each judge."""

    def __init__(self, judges: Judges):
        self._judges = judges.of_images()
        self._parts: dict[str, list[np.ndarray]] = collections.defaultdict(list)

    def add(self, images: Sequence[np.ndarray]) -> None:
        """Takes further images, each uint8 [H, W, 3]."""
        for name, judge in self._judges.items():
            self._parts[name].append(judge(images))

    def of(self, judge: str) -> np.ndarray:
        """The features by one judge, float32 [B, F], in the order in which the images came."""
        return np.concatenate(self._parts[judge])

    def distances(self, other: ImageFeatures) -> dict[str, float]:
        """The Fréchet distance to another set of at least 2 images by each judge, under the names of DISTANCES."""
        return {
            DISTANCES[name]: frechet_distance(moments(self.of(name)), moments(other.of(name))) for name in self._judges
        }
