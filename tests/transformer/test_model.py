"""Sizes, the meaning of every position, the loss by hand, and drawing with a cache."""

from __future__ import annotations

import math

import pytest
import torch
import torch.utils.flop_counter

from models.data.batch import NO_TOKEN
from models.transformer.model import (
    SIZES,
    Transformer,
    TransformerConfig,
    apply_rotary,
    block_parameters,
    rotary_angles,
    training_flops,
)

CONFIG = TransformerConfig(layers=3, heads=2, width=16, text_vocabulary=11, image_vocabulary=7, text_length=6, grid=12)


def make_model(config: TransformerConfig = CONFIG, std: float = 0.3) -> Transformer:
    """With larger weights than at the start of a training: every key matters then."""
    torch.manual_seed(0)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=std)
    return model


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    text_BT = torch.tensor([[3, 1, 4, NO_TOKEN, NO_TOKEN, NO_TOKEN], [10, 0, 2, 5, 6, 7]])
    return text_BT, torch.randint(0, 7, (2, 144), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size, billions", [("12b", 12.0), ("5.6b", 5.6), ("2.8b", 2.8), ("1b", 1.0), ("300m", 0.3)])
def test_parameters_are_as_named(size, billions):
    """Within 1 % for the paper's own (2.8 and 5.6 are rounded to a digit there); heads are 64 wide."""
    config = TransformerConfig.named(size, 16384, 8192)
    with torch.device("meta"):
        model = Transformer(config)
    assert block_parameters(model) / 1e9 == pytest.approx(billions, rel=0.01 if size == "12b" else 0.02)
    full = sum(parameter.numel() for parameter in model.parameters())
    assert full - block_parameters(model) == pytest.approx(2 * (16384 + 8192) * config.width, rel=0.03)
    assert config.width == 64 * config.heads


def test_the_papers_size():
    assert SIZES["12b"] == (64, 62, 3968)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("kinds", [("row",) * 3, ("column",) * 3, ("convolution",) * 3, ("full",) * 3, None], ids=str)
def test_cached_drawing_equals_uncached_logits(batch, kinds, rotary, monkeypatch):
    """Each kind by itself, and the paper's mixture."""
    if kinds:
        monkeypatch.setattr(TransformerConfig, "kinds", kinds)
    config = TransformerConfig(**{**vars(CONFIG), "rotary": rotary})
    model, (text_BT, codes_BN) = make_model(config), batch
    with torch.inference_mode():
        uncached = model.image_head(model.states(text_BT, codes_BN))[:, config.prefix - 1 : -1]
        caches, logits = model.prefill(text_BT)
        cached = [logits] + [model.decode_one(codes_BN[:, position], position, caches) for position in range(143)]
    torch.testing.assert_close(torch.stack(cached, dim=1), uncached, atol=1e-4, rtol=0)
    assert uncached.std() > 0.1  # the comparison is of something


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(("rows", "grid"), [(16, 9), (9, 16), (1, 144)])
def test_cached_drawing_of_other_shapes(batch, rows, grid, rotary):
    """A grid that is not square, and a sequence, whose layers see all earlier codes."""
    config = TransformerConfig(**{**vars(CONFIG), "rotary": rotary, "rows": rows, "grid": grid})
    model, (text_BT, codes_BN) = make_model(config), batch
    assert config.codes == 144 and (set(config.kinds) == {"full"}) == (rows == 1)
    with torch.inference_mode():
        uncached = model.image_head(model.states(text_BT, codes_BN))[:, config.prefix - 1 : -1]
        caches, logits = model.prefill(text_BT)
        cached = [logits] + [model.decode_one(codes_BN[:, position], position, caches) for position in range(143)]
    torch.testing.assert_close(torch.stack(cached, dim=1), uncached, atol=1e-4, rtol=0)


def test_rotary_positions_of_a_sequence_differ_between_all_codes():
    config = TransformerConfig(**{**vars(CONFIG), "rotary": True, "rows": 1, "grid": 5})
    angles_LD = torch.atan2(rotary_angles(config).sin, rotary_angles(config).cos)
    by_row, by_column = angles_LD.chunk(2, dim=1)
    assert torch.equal(by_row, by_column) and len(torch.unique(by_row, dim=0)) == config.prefix + 5


def test_no_position_sees_what_comes_after(batch):
    model, (text_BT, codes_BN) = make_model(), batch
    other = codes_BN.clone()
    other[:, 50:] = (other[:, 50:] + 1) % 7
    with torch.inference_mode():
        a, b = model.states(text_BT, codes_BN), model.states(text_BT, other)
    before = CONFIG.prefix + 50
    assert torch.equal(a[:, :before], b[:, :before]) and not torch.equal(a[:, before], b[:, before])


def test_padding_has_an_embedding_by_position_that_codes_see(batch):
    model, (text_BT, codes_BN) = make_model(), batch
    with torch.no_grad():
        before = model.states(text_BT, codes_BN)
        model.text_padding.weight[4] *= -1  # only the first caption is that short
        after = model.states(text_BT, codes_BN)
    start = CONFIG.prefix
    assert (before[0, start:] != after[0, start:]).any(dim=1).all()
    assert torch.equal(before[1], after[1])
    assert torch.equal(before[0, :5], after[0, :5])  # the start and four text positions come before it


def test_loss_equals_a_hand_calculation(batch):
    model, (text_BT, codes_BN) = make_model(), batch
    losses = model.loss(text_BT, codes_BN)
    states = model.states(text_BT, codes_BN).tolist()

    def surprise(head, state, target):
        logits = [
            sum(w * s for w, s in zip(row, state, strict=True)) + b
            for row, b in zip(head.weight.tolist(), head.bias.tolist(), strict=True)
        ]
        return math.log(sum(math.exp(logit) for logit in logits)) - logits[target]

    # The state before a token predicts it: at 0 the start of text, at 7 the start of image.
    text = [
        surprise(model.text_head, states[b][i], token)
        for b, row in enumerate(text_BT.tolist())
        for i, token in enumerate(row)
        if token != NO_TOKEN
    ]
    image = [
        surprise(model.image_head, states[b][7 + i], code)
        for b, row in enumerate(codes_BN.tolist())
        for i, code in enumerate(row)
    ]
    assert len(text) == 9 and len(image) == 288
    assert losses.text.item() == pytest.approx(sum(text) / 9, rel=1e-5)
    assert losses.image.item() == pytest.approx(sum(image) / 288, rel=1e-5)
    assert losses.total.item() == pytest.approx(sum(text) / 9 / 8 + sum(image) / 288 * 7 / 8, rel=1e-5)


def test_captions_without_tokens_leave_a_finite_loss(batch):
    losses = make_model().loss(torch.full_like(batch[0], NO_TOKEN), batch[1])
    assert losses.text.item() == 0 and math.isfinite(losses.total.item())


def test_an_untrained_model_guesses_uniformly(batch):
    torch.manual_seed(0)
    losses = Transformer(CONFIG).loss(*batch)
    assert losses.text.item() == pytest.approx(math.log(11), abs=0.1)
    assert losses.image.item() == pytest.approx(math.log(7), abs=0.05)


def test_rotary_positions_make_a_product_depend_on_the_distance_alone():
    config = TransformerConfig(**{**vars(CONFIG), "rotary": True})
    angles = rotary_angles(config)
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = (apply_rotary(x.expand(1, 1, config.prefix + config.codes, -1), angles)[0, 0] for x in (q, k))
    products = (turned_q @ turned_k.T)[config.prefix :, config.prefix :].view(12, 12, 12, 12)
    torch.testing.assert_close(products[5, 7, 3, 4], products[9, 10, 7, 7])
    torch.testing.assert_close(turned_q.norm(dim=1), q.norm().expand(len(turned_q)))
    assert (products[5, 7, 3, 4] - products[5, 7, 4, 3]).abs() > 1e-3  # rows and columns count apart


def test_losses_of_parts_add_up_to_the_whole(batch):
    model, (text_BT, codes_BN) = make_model(), batch
    full = model.loss(text_BT, codes_BN)
    parts = [model(text_BT[i : i + 1], codes_BN[i : i + 1]).losses(9, 288) for i in range(2)]
    for name in full._fields:
        torch.testing.assert_close(sum(getattr(part, name) for part in parts), getattr(full, name))


def test_recomputing_changes_no_gradient(batch):
    model = make_model().train()
    gradients = []
    for recompute in (False, True):
        model.recompute = recompute
        gradients.append(torch.autograd.grad(model.loss(*batch).total, list(model.parameters())))
    for kept, recomputed in zip(*gradients, strict=True):
        assert torch.equal(kept, recomputed)


def test_training_flops_are_those_that_torch_counts():
    """Torch counts no attention on a processor: that part is added by hand, for layers that see all before them."""
    config = TransformerConfig(**{**vars(CONFIG), "full_attention": True})
    model = make_model(config)
    text_BT = torch.zeros(1, config.text_length, dtype=torch.int64)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model.loss(text_BT, torch.zeros(1, 144, dtype=torch.int64)).total.backward()
    positions = config.prefix + config.codes
    attention = 3 * 2 * 2 * config.width * config.layers * positions * (positions + 1) / 2
    assert training_flops(model) == pytest.approx(counter.get_total_flops() + attention, rel=1e-3)
