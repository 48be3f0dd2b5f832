"""Samples image codes from a transformer, one position at a time, with a KV cache.

Shape letters: B images sampled together, T text positions, N codes, V codes in the vocabulary.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.data.batch import NO_TOKEN
from models.hashing import stable_hash
from models.transformer.model import Transformer

BATCH_SIZE = 4  # images sampled together, always: a matrix product's last bits may depend on its number of rows


class SamplingConfig(NamedTuple):
    """How a code is sampled from its logits. The paper samples at temperature 1 from all codes (section 2.6)."""

    temperature: float = 1.0
    top_k: int = 0  # sample among the k most likely codes; 0 for all
    top_p: float = 1.0  # sample among the most likely codes that hold this share of the probability
    guidance: float = 1.0  # logits = without caption + guidance * (with - without); 1 computes only those with it

    @property
    def is_valid(self) -> bool:
        """Whether each value is inside its range."""
        return (
            0 < self.temperature < math.inf
            and self.top_k >= 0
            and 0 < self.top_p <= 1
            and 0 <= self.guidance < math.inf
        )


PAPER_SAMPLING = SamplingConfig()


class ImageRequest(NamedTuple):
    """One image to sample."""

    tokens: Sequence[int]  # of the caption; cut to the model's text length
    seed: int
    sampling: SamplingConfig = PAPER_SAMPLING
    prefix_codes: Sequence[int] = ()  # fixed codes that the image starts with, in raster order


def image_seed(seed: int, index: int) -> int:
    """The 63-bit seed of image number `index` of a command."""
    return stable_hash(f"{seed}/{index}") >> 1


def sample_codes(model: Transformer, requests: Sequence[ImageRequest]) -> torch.Tensor:
    """Samples any number of images: their codes, int64 [B, N].

    Raises ValueError when only some of the requests have guidance.
    """
    groups = (requests[first : first + BATCH_SIZE] for first in range(0, len(requests), BATCH_SIZE))
    return torch.cat([deque(sample_steps(model, group), maxlen=1).pop() for group in groups])


@torch.inference_mode()
def sample_steps(model: Transformer, requests: Sequence[ImageRequest]) -> Iterator[torch.Tensor]:
    """Yields the codes so far after each new one: int64 [B, 1], [B, 2], ... [B, N].

    Takes at most BATCH_SIZE requests, all with guidance or all without; raises ValueError otherwise. Matrix products
    always have the rows of a full batch, since their last bits may depend on the number of rows.
    """
    guided = requests[0].sampling.guidance != 1
    if len(requests) > BATCH_SIZE or any((request.sampling.guidance != 1) != guided for request in requests):
        raise ValueError(
            f"{len(requests)} requests: give at most {BATCH_SIZE} images, all with guidance or all without"
        )
    count, config, device = len(requests), model.config, model.start.weight.device
    used_rows = 2 * count if guided else count  # the others only fill the batch up
    size = 2 * BATCH_SIZE if guided else BATCH_SIZE
    text_BT = torch.stack([_text(request.tokens, config.text_length) for request in requests])
    if guided:
        text_BT = torch.cat([text_BT, torch.full_like(text_BT, NO_TOKEN)])
    text_BT = F.pad(text_BT, (0, 0, 0, size - used_rows), value=NO_TOKEN)
    uniforms_BN = torch.stack(
        [torch.rand(config.codes, generator=torch.Generator().manual_seed(request.seed)) for request in requests]
    ).to(device)
    prefix_BN = torch.stack([_padded(request.prefix_codes, config.codes, NO_TOKEN) for request in requests]).to(device)
    settings = SamplingTensors.of([request.sampling for request in requests], config.image_vocabulary, device)
    caches, logits_BV = model.prefill(text_BT.to(device), used_rows)
    codes_BN = torch.empty_like(prefix_BN)
    for position in range(config.codes):
        if position:
            codes_B = codes_BN[:, position - 1]
            codes_B = F.pad(codes_B.repeat(2) if guided else codes_B, (0, size - used_rows))
            logits_BV = model.decode_one(codes_B, position - 1, caches)
        cond_BV = logits_BV[:count]
        if guided:
            uncond_BV = logits_BV[count:used_rows]
            cond_BV = uncond_BV + settings.guidance_B1 * (cond_BV - uncond_BV)
        sampled_B = sample_next(cond_BV, uniforms_BN[:, position], settings)
        codes_BN[:, position] = torch.where(prefix_BN[:, position] >= 0, prefix_BN[:, position], sampled_B)
        yield codes_BN[:, : position + 1]


def _text(tokens: Sequence[int], length: int) -> torch.Tensor:
    return _padded(tokens[:length], length, NO_TOKEN)


def _padded(values: Sequence[int], length: int, filler: int) -> torch.Tensor:
    padded = torch.full((length,), filler)
    padded[: len(values)] = torch.as_tensor(values, dtype=torch.int64)
    return padded


class SamplingTensors(NamedTuple):
    """The sampling configurations of a batch as tensors [B, 1], one row an image."""

    temperature_B1: torch.Tensor
    top_k_B1: torch.Tensor
    top_p_B1: torch.Tensor
    guidance_B1: torch.Tensor
    limited: bool  # whether any row has top-k or top-p

    @classmethod
    def of(
        cls, samplings: Sequence[SamplingConfig], vocabulary: int, device: torch.device | str = "cpu"
    ) -> SamplingTensors:
        """Stacks configurations, in their order, for a vocabulary of so many codes."""
        temperature, top_p = (
            torch.tensor([[getattr(sampling, name)] for sampling in samplings], dtype=torch.float64)
            for name in ("temperature", "top_p")
        )
        top_k = torch.tensor([[min(sampling.top_k, vocabulary) or vocabulary] for sampling in samplings])
        guidance = torch.tensor([[sampling.guidance] for sampling in samplings], dtype=torch.float32)
        limited = any(sampling.top_k or sampling.top_p < 1 for sampling in samplings)
        return cls(
            temperature_B1=temperature.to(device),
            top_k_B1=top_k.to(device),
            top_p_B1=top_p.to(device),
            guidance_B1=guidance.to(device),
            limited=limited,
        )


def sample_next(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, settings: SamplingTensors) -> torch.Tensor:
    """Samples a code for each row, int64 [B], by inverting the cumulative distribution at `uniforms_B` in [0, 1).

    Probabilities are summed in the order of the codes: sorted by likelihood, a last bit could swap two codes and change
    the image.
    """
    logits_BV = logits_BV.double()
    logits_BV = (logits_BV - logits_BV.amax(dim=1, keepdim=True)) / settings.temperature_B1
    probabilities_BV = logits_BV.softmax(dim=1)
    if settings.limited:
        probabilities_BV = probabilities_BV.masked_fill(
            probabilities_BV < _min_kept_probability(probabilities_BV, settings), 0
        )
    sums_BV = probabilities_BV.cumsum(dim=1)
    target_B1 = uniforms_B[:, None].double() * sums_BV[:, -1:]
    return torch.searchsorted(sums_BV, target_B1, right=True)[:, 0]


def _min_kept_probability(probabilities_BV: torch.Tensor, settings: SamplingTensors) -> torch.Tensor:
    """The probability [B, 1] of the least likely code kept by top-k, then by top-p among those."""
    vocabulary = probabilities_BV.shape[1]
    likeliest_BV = probabilities_BV.sort(dim=1, descending=True).values
    within_k_BV = torch.arange(vocabulary, device=likeliest_BV.device) < settings.top_k_B1
    sums_BV = (likeliest_BV * within_k_BV).cumsum(dim=1)
    # Top-p keeps the codes up to and including the one whose sum reaches that share.
    before_B1 = (sums_BV < settings.top_p_B1 * sums_BV[:, -1:]).sum(dim=1, keepdim=True)
    min_B1 = likeliest_BV.gather(1, torch.minimum(before_B1, settings.top_k_B1 - 1))
    unlimited_B1 = (settings.top_k_B1 == vocabulary) & (settings.top_p_B1 == 1)  # drops no code, not even by rounding
    return min_B1.masked_fill(unlimited_B1, 0)
