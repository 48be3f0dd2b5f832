"""Samples image codes from a transformer, one position at a time, with a KV cache.

Shape letters: B images sampled together, T text positions, N codes, V codes in the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.data.batch import NO_TOKEN
from models.transformer.model import Transformer

BATCH_SIZE = 4  # images drawn together, always: a product's last bits may depend on the number of its rows


class SamplingConfig(NamedTuple):
    """How a code is chosen from its logits; the paper draws at temperature 1 from all (section 2.6)."""

    temperature: float = 1.0
    top_k: int = 0  # the most likely codes to choose among; 0 for all
    top_p: float = 1.0  # the share of the probability to choose among
    guidance: float = 1.0  # logits = without caption + guidance * (with - without); 1 never looks at those without


PAPER_SAMPLING = SamplingConfig()


class ImageRequest(NamedTuple):
    """One picture to draw."""

    tokens: Sequence[int]  # of the caption; cut to what the model reads
    seed: int
    sampling: SamplingConfig = PAPER_SAMPLING
    given: Sequence[int] = ()  # codes that it begins with, row by row


def image_seed(seed: int, index: int) -> int:
    """The seed, 63 bits, of one of the pictures that a command draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8], "big") >> 1


def sample_codes(model: Transformer, orders: Sequence[ImageRequest]) -> torch.Tensor:
    """Each order's codes, int64 [B, N]. All with guidance or all without."""
    groups = (orders[first : first + BATCH_SIZE] for first in range(0, len(orders), BATCH_SIZE))
    return torch.cat([deque(sample_steps(model, group), maxlen=1).pop() for group in groups])


@torch.inference_mode()
def sample_steps(model: Transformer, orders: Sequence[ImageRequest]) -> Iterator[torch.Tensor]:
    """The codes so far, int64 [B, 1], [B, 2], ... [B, N], one code at a time. At most GROUP orders, all with guidance
    or all without. Products always have a group's rows, since their last bits may depend on the rows' number."""
    guided = orders[0].sampling.guidance != 1
    if len(orders) > BATCH_SIZE or any((order.sampling.guidance != 1) != guided for order in orders):
        raise ValueError(f"a group is at most {BATCH_SIZE} pictures, all with guidance or all without")
    count, config, device = len(orders), model.config, model.start.weight.device
    drawn = 2 * count if guided else count  # rows that are looked at; products have those of a whole group
    size = 2 * BATCH_SIZE if guided else BATCH_SIZE
    text_BT = torch.stack([_text(order.tokens, config.text_length) for order in orders])
    if guided:
        text_BT = torch.cat([text_BT, torch.full_like(text_BT, NO_TOKEN)])
    text_BT = F.pad(text_BT, (0, 0, 0, size - drawn), value=NO_TOKEN)
    chances_BN = torch.stack(
        [torch.rand(config.codes, generator=torch.Generator().manual_seed(order.seed)) for order in orders]
    ).to(device)
    given_BN = torch.stack([_padded(order.given, config.codes, NO_TOKEN) for order in orders]).to(device)
    knobs = SamplingTensors.of([order.sampling for order in orders], config.image_vocabulary, device)
    caches, logits_BV = model.start_drawing(text_BT.to(device), drawn)
    codes_BN = torch.empty_like(given_BN)
    for place in range(config.codes):
        if place:
            codes_B = codes_BN[:, place - 1]
            codes_B = F.pad(codes_B.repeat(2) if guided else codes_B, (0, size - drawn))
            logits_BV = model.draw_next(codes_B, place - 1, caches)
        wanted_BV = logits_BV[:count]
        if guided:
            without_BV = logits_BV[count:drawn]
            wanted_BV = without_BV + knobs.guidance_B1 * (wanted_BV - without_BV)
        chosen_B = sample_next(wanted_BV, chances_BN[:, place], knobs)
        codes_BN[:, place] = torch.where(given_BN[:, place] >= 0, given_BN[:, place], chosen_B)
        yield codes_BN[:, : place + 1]


def _text(tokens: Sequence[int], length: int) -> torch.Tensor:
    return _padded(tokens[:length], length, NO_TOKEN)


def _padded(values: Sequence[int], length: int, filler: int) -> torch.Tensor:
    padded = torch.full((length,), filler)
    padded[: len(values)] = torch.as_tensor(values, dtype=torch.int64)
    return padded


class SamplingTensors(NamedTuple):
    """The Samplings of a group, one row a picture: [B, 1] each."""

    temperature_B1: torch.Tensor
    top_k_B1: torch.Tensor
    top_p_B1: torch.Tensor
    guidance_B1: torch.Tensor
    limited: bool  # does any of them limit the choice?

    @classmethod
    def of(
        cls, samplings: Sequence[SamplingConfig], vocabulary: int, device: torch.device | str = "cpu"
    ) -> SamplingTensors:
        temperature, top_p = (
            torch.tensor([[getattr(sampling, name)] for sampling in samplings], dtype=torch.float64)
            for name in ("temperature", "top_p")
        )
        top_k = torch.tensor([[min(sampling.top_k, vocabulary) or vocabulary] for sampling in samplings])
        guidance = torch.tensor([[sampling.guidance] for sampling in samplings], dtype=torch.float32)
        limited = any(sampling.top_k or sampling.top_p < 1 for sampling in samplings)
        return cls(*(knob.to(device) for knob in (temperature, top_k, top_p, guidance)), limited)


def sample_next(logits_BV: torch.Tensor, chances_B: torch.Tensor, knobs: SamplingTensors) -> torch.Tensor:
    """A code for each row, int64 [B]: where the running sum of the probabilities passes a number from [0, 1). Summed
    in the codes' own order, since in the order of likelihood a last bit could swap two codes and change a picture."""
    logits_BV = logits_BV.double()
    logits_BV = (logits_BV - logits_BV.amax(dim=1, keepdim=True)) / knobs.temperature_B1
    probabilities_BV = logits_BV.softmax(dim=1)
    if knobs.limited:
        probabilities_BV = probabilities_BV.masked_fill(
            probabilities_BV < _min_kept_probability(probabilities_BV, knobs), 0
        )
    sums_BV = probabilities_BV.cumsum(dim=1)
    goal_B1 = chances_B[:, None].double() * sums_BV[:, -1:]
    return torch.searchsorted(sums_BV, goal_B1, right=True)[:, 0]


def _min_kept_probability(probabilities_BV: torch.Tensor, knobs: SamplingTensors) -> torch.Tensor:
    """The probability [B, 1] of the least likely code that top-k, and then top-p among those, leave."""
    vocabulary = probabilities_BV.shape[1]
    likeliest_BV = probabilities_BV.sort(dim=1, descending=True).values
    within_k_BV = torch.arange(vocabulary, device=likeliest_BV.device) < knobs.top_k_B1
    sums_BV = (likeliest_BV * within_k_BV).cumsum(dim=1)
    # top-p keeps the codes up to and with the one whose sum reaches that share
    before_B1 = (sums_BV < knobs.top_p_B1 * sums_BV[:, -1:]).sum(dim=1, keepdim=True)
    least_B1 = likeliest_BV.gather(1, torch.minimum(before_B1, knobs.top_k_B1 - 1))
    unlimited_B1 = (knobs.top_k_B1 == vocabulary) & (knobs.top_p_B1 == 1)  # not even by rounding
    return least_B1.masked_fill(unlimited_B1, 0)
