"""Images that a checkpoint samples for the captions of a split, beside the split's own images.

The split's images are those that its codes give back: what the image tokenizer loses is measured by itself (see
`models.evaluation.reconstruction`), and the split's own numbers are what a perfect transformer would reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.evaluation.agreement import clip_score, normalised, recall
from models.evaluation.judges import ImageFeatures, Judges
from models.evaluation.measured_pairs import MeasuredPairs, require_same_tokenizers
from models.progress import Progress, ProgressLine
from models.sampling.checkpoint import ImageGenerator, read_config
from models.sampling.sampler import BATCH_SIZE, ImageRequest, SamplingConfig, image_seed, sample_codes


class Sampler(NamedTuple):
    """A checkpoint and how images are sampled from it."""

    checkpoint: Path
    generator: ImageGenerator
    sampling: SamplingConfig
    seed: int  # caption i has the seed that image i of `generate` has

    def images(self, captions: Sequence[str], first: int) -> list[np.ndarray]:
        """An image, uint8 [H, W, 3], for each caption; `first` is the number of the first one."""
        tokenizer = self.generator.text_tokenizer
        requests = [
            ImageRequest(tokenizer.encode(caption), image_seed(self.seed, first + i), self.sampling)
            for i, caption in enumerate(captions)
        ]
        codes_BN = sample_codes(self.generator.model, requests)
        return [self.generator.image_tokenizer.decode(codes_N) for codes_N in codes_BN.cpu().numpy()]


def compare_samples(sampler: Sampler, pairs: MeasuredPairs, judges: Judges, line: ProgressLine) -> dict[str, Any]:
    """Samples one image for each caption of the pairs.

    Returns the distances between the two sets by each judge, and with a contrastive model under "sampled" and "split"
    how well their images fit the captions. Raises UserError for a dataset of other tokenizers.
    """
    stream = pairs.open(BATCH_SIZE)
    require_same_tokenizers(sampler.checkpoint, pairs.dataset, read_config(sampler.checkpoint), stream.manifest)
    sampled, own = ImageFeatures(judges), ImageFeatures(judges)
    captions: list[str] = []
    total = pairs.count(stream)
    for batch in pairs.batches(stream):
        assert batch.captions is not None  # requested
        texts = [first for first, *_ in batch.captions]
        sampled.add(sampler.images(texts, len(captions)))
        own.add([sampler.generator.image_tokenizer.decode(codes_N) for codes_N in batch.codes_BN.numpy()])
        captions += texts
        line.show(Progress(len(captions), "images", total, "samples"))
    report: dict[str, Any] = {"images": len(captions), "seed": sampler.seed, "sampling": sampler.sampling._asdict()}
    if judges.contrastive:
        text_BE = normalised(judges.contrastive.captions(captions))
        for name, features in (("sampled", sampled), ("split", own)):
            report[name] = agreement(normalised(features.of("clip")), text_BE, captions)
    return report | sampled.distances(own)


def agreement(image_BE: np.ndarray, text_BE: np.ndarray, captions: Sequence[str]) -> dict[str, Any]:
    """CLIP score and recall in both directions of images and their captions, by embeddings [B, E] of length 1."""
    return {
        "clip_score": clip_score(image_BE, text_BE),
        "captions_by_image": recall(image_BE, text_BE, captions),
        "images_by_caption": recall(text_BE, image_BE, captions),
    }
