"""The recipe `modern`: equal to the formulas of its parts, drawn with a cache as it is trained, without biases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torch.utils.flop_counter
from torch import nn

from models.data.batch import NO_TOKEN
from models.sampling.sampler import ImageRequest, SamplingConfig, sample_codes
from models.transformer.model import (
    NORM_EPSILON,
    SIZES,
    Transformer,
    TransformerBlock,
    TransformerConfig,
    block_parameters,
    rotary_angles,
    training_flops,
)
from tests.support.narrowing import instance

CONFIG = TransformerConfig(
    3, 2, 16, 11, 7, text_length=6, grid=4, full_attention=True, rotary=True, recipe="modern", dropout=0.1
)
TEXT_BT = torch.tensor([[3, 1, 4, NO_TOKEN, NO_TOKEN, NO_TOKEN], [10, 0, 2, 5, 6, 7]])
CODES_BN = torch.randint(0, 7, (2, 16), generator=torch.Generator().manual_seed(1))


def make_model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def rms_norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return gain * x / (x.square().mean(dim=-1, keepdim=True) + NORM_EPSILON).sqrt()


def gain(norm: nn.Module) -> torch.Tensor:
    return instance(norm, nn.RMSNorm).weight


def turned(x_BHLD: torch.Tensor) -> torch.Tensor:
    """Rotary positions by complex numbers: number i and number i + D / 2 of a head are one of them."""
    angles = rotary_angles(CONFIG)
    real, imaginary = x_BHLD.chunk(2, dim=-1)
    product = torch.complex(real, imaginary) * torch.complex(angles.cos, angles.sin)
    return torch.cat([product.real, product.imag], dim=-1)


def reference_block(block: TransformerBlock, x_BLM: torch.Tensor) -> torch.Tensor:
    """The formulas of Llama's block, with the masked softmax of torch's nn.MultiheadAttention."""
    attention = nn.MultiheadAttention(16, 2, bias=False, batch_first=True)
    q, k, v = block.qkv.weight.chunk(3)
    h_BLM = rms_norm(x_BLM, gain(block.attention_norm))
    q_BHLD, k_BHLD = (
        turned(rms_norm((h_BLM @ weight.T).unflatten(2, (2, 8)).transpose(1, 2), gain(norm)))
        for weight, norm in ((q, block.q_norm), (k, block.k_norm))
    )
    with torch.no_grad():  # the products with q and k are done: both halves are one to one
        attention.in_proj_weight.copy_(torch.cat([torch.eye(16), torch.eye(16), v]))
        attention.out_proj.weight.copy_(block.attention_out.weight)
    query, key = (x_BHLD.transpose(1, 2).flatten(2) for x_BHLD in (q_BHLD, k_BHLD))
    mask = torch.ones(x_BLM.shape[1], x_BLM.shape[1], dtype=torch.bool).triu(1)
    x_BLM = x_BLM + attention(query, key, h_BLM, attn_mask=mask, need_weights=False)[0]
    gate, up = block.feed_in.weight.chunk(2)
    h_BLM = rms_norm(x_BLM, gain(block.feed_norm))
    return x_BLM + (F.silu(h_BLM @ gate.T) * (h_BLM @ up.T)) @ block.feed_out.weight.T


def test_states_equal_the_formulas():
    model = make_model()
    start, image = model.start.weight
    real_BT1 = (TEXT_BT != NO_TOKEN)[:, :, None]
    text_BTM = torch.where(real_BT1, model.text_token.weight[TEXT_BT.clamp(min=0)], model.text_padding.weight)
    first, last = (vector.expand(2, 1, 16) for vector in (start, image))
    x_BLM = torch.cat([first, text_BTM, last, model.code.weight[CODES_BN]], dim=1)
    for block in model.blocks:
        x_BLM = reference_block(instance(block, TransformerBlock), x_BLM)
    found = model.states(TEXT_BT, CODES_BN)
    torch.testing.assert_close(found, rms_norm(x_BLM, gain(model.norm)), atol=1e-4, rtol=1e-4)


def test_cached_drawing_equals_uncached_logits():
    model = make_model()
    with torch.inference_mode():
        uncached = model.image_head(model.states(TEXT_BT, CODES_BN))[:, CONFIG.prefix - 1 : -1]
        caches, logits = model.prefill(TEXT_BT)
        cached = [logits] + [model.decode_one(CODES_BN[:, position], position, caches) for position in range(15)]
    torch.testing.assert_close(torch.stack(cached, dim=1), uncached, atol=1e-4, rtol=0)
    assert uncached.std() > 0.1


def test_draws_the_same_alone_and_among_others():
    model, guided = make_model(), SamplingConfig(guidance=2.0)
    requests = [ImageRequest([3, seed], seed, guided) for seed in range(3)]
    together = sample_codes(model, requests)
    assert torch.equal(together[1:2], sample_codes(model, requests[1:2]))


def test_has_no_biases_and_no_learned_positions():
    names = dict(make_model().named_parameters())
    assert not [name for name in names if name.endswith("bias") or "position" in name or name in ("row", "column")]


def test_dropout_is_of_training_alone():
    model = make_model()
    assert torch.equal(model.loss(TEXT_BT, CODES_BN).total, model.loss(TEXT_BT, CODES_BN).total)
    model.train()
    assert model.loss(TEXT_BT, CODES_BN).total != model.loss(TEXT_BT, CODES_BN).total


@pytest.mark.parametrize("size", ["3m", "300m", "12b"])
def test_a_size_has_as_many_parameters_as_the_papers(size):
    shape = SIZES[size]
    with torch.device("meta"):
        modern = Transformer(TransformerConfig(*shape, 16384, 8192, rotary=True, recipe="modern"))
        paper = Transformer(TransformerConfig(*shape, 16384, 8192))
    assert block_parameters(modern) == pytest.approx(block_parameters(paper), rel=0.02)


def test_needs_rotary_positions():
    with pytest.raises(ValueError, match="modern needs rotary positions"):
        TransformerConfig(3, 2, 16, 11, 7, recipe="modern")


def test_training_flops_are_those_that_torch_counts():
    model = make_model()
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model.loss(torch.zeros(1, 6, dtype=torch.int64), CODES_BN[:1]).total.backward()
    positions = CONFIG.prefix + CONFIG.codes
    attention = 3 * 2 * 2 * CONFIG.width * CONFIG.layers * positions * (positions + 1) / 2
    assert training_flops(model) == pytest.approx(counter.get_total_flops() + attention, rel=1e-3)
