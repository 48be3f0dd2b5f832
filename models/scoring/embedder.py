"""Images and captions to embeddings, the same numbers for any number of workers and threads.

A batch of another size may round differently, so that batches are of one fixed size, filled up, and hold what their
caller gives in its order; each is computed by one thread. Several batches at once use the cores.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from models.scoring.model_folder import LoadedModel

BATCH = 8
"""Images or captions of a batch on a CPU, where more are no faster."""
ACCELERATOR_BATCH = 128


class Embeddings(NamedTuple):
    """Embeddings of images and of their captions, row by row."""

    image_BE: np.ndarray  # float16 [B, E], of length 1
    text_BE: np.ndarray


class Embedder:
    """A loaded model on a device, with threads of its own."""

    def __init__(self, model: LoadedModel, device: str = "cpu", threads: int = 1):
        self._model, self._device = model, torch.device(device)
        model.network.to(self._device)
        on_cpu = self._device.type == "cpu"
        if on_cpu:
            torch.set_num_threads(1)
        self.batch_size = BATCH if on_cpu else ACCELERATOR_BATCH
        self._threads = threads if on_cpu else 1
        self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, "embed")

    @property
    def width(self) -> int:
        """E, the numbers of an embedding."""
        return self._model.network.config.embedding

    def prepare(self, rgb_HWC: np.ndarray, caption: str) -> tuple[np.ndarray, np.ndarray]:
        """Reduces an image, uint8 [H, W, 3], and a caption to what the model takes: float32 [3, S, S], int64 [N]."""
        return self._model.images.prepare(rgb_HWC), self._model.texts.prepare(caption)

    def embed(self, prepared: Sequence[tuple[np.ndarray, np.ndarray]]) -> Embeddings:
        """Embeds prepared pairs, in order. The numbers depend on the pairs and their order alone."""
        images, texts = zip(*prepared, strict=True)
        network = self._model.network
        return Embeddings(self._run(network.embed_images, images), self._run(network.embed_texts, texts))

    def _run(self, embed: Callable[[torch.Tensor], torch.Tensor], inputs: Sequence[np.ndarray]) -> np.ndarray:
        batches = self._pool.map(lambda batch: self._run_batch(embed, batch), _batches(inputs, self.batch_size))
        return np.concatenate(list(batches))[: len(inputs)]

    @torch.inference_mode()
    def _run_batch(self, embed: Callable[[torch.Tensor], torch.Tensor], batch: np.ndarray) -> np.ndarray:
        return embed(torch.from_numpy(batch).to(self._device)).cpu().numpy().astype(np.float16)


def _batches(inputs: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Stacks of `size` inputs; the last is filled up with zeros."""
    for first in range(0, len(inputs), size):
        stacked = np.stack(inputs[first : first + size])
        missing = size - len(stacked)
        yield np.concatenate([stacked, np.zeros((missing, *stacked.shape[1:]), stacked.dtype)]) if missing else stacked


def cosines(embeddings: Embeddings) -> np.ndarray:
    """The cosine similarity of each image and its caption, float32 [B], from the embeddings as they are stored."""
    image_BE, text_BE = (each.astype(np.float64) for each in embeddings)
    return (image_BE * text_BE).sum(axis=1).astype(np.float32)
