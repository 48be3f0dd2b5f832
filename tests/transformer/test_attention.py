"""The masks against a slow definition written from the paper's words, and the fast path against plain attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.transformer import attention
from models.transformer.attention import (
    KINDS,
    cached_attention,
    code_mask,
    layer_kinds,
    lines,
    masked_attention,
    visible_codes,
)
from tests.support.attention import sequence_mask

GRIDS = (1, 2, 3, 5, 8, 13)


def sees(kind: str, grid: int, query: int, key: int) -> bool:
    """Walks the grid cell by cell: a step past the end of a row goes on in the next one, and backwards."""
    if key > query:
        return False
    (row, column), (key_row, key_column) = divmod(query, grid), divmod(key, grid)
    if kind == "row":
        return key_row == row or (key_row == row - 1 and key_column >= column)
    if kind == "column":
        return key_column == column
    if kind == "convolution":
        return (key_row, key_column) in {
            wrapped(row + down, column + right, grid) for down in range(-5, 6) for right in range(-5, 6)
        }
    return True


def wrapped(row: int, column: int, grid: int) -> tuple[int, int]:
    while column < 0:
        row, column = row - 1, column + grid
    while column >= grid:
        row, column = row + 1, column - grid
    return row, column


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_masks_equal_the_slow_definition(kind, grid):
    codes = range(grid**2)
    assert code_mask(kind, grid).tolist() == [[sees(kind, grid, query, key) for key in codes] for query in codes]


@pytest.mark.parametrize("kind", KINDS)
def test_codes_see_the_whole_prefix_and_the_prefix_is_causal(kind):
    mask = sequence_mask(kind, grid=3, prefix=4)
    assert mask[4:, :4].all() and not mask[:4, 4:].any()
    assert torch.equal(mask[:4, :4], torch.ones(4, 4).tril().bool())
    assert torch.equal(mask[4:, 4:], code_mask(kind, 3))


# Figure 11 shows a 4 x 4 grid and, for the convolution, a 3 x 3 kernel: the last rows of its masks.
@pytest.mark.parametrize(
    "kind, query, seen",
    [
        ("row", 0, "#..............."),
        ("row", 3, "####............"),
        ("row", 9, ".....#####......"),
        ("row", 15, "...........#####"),
        ("column", 9, ".#...#...#......"),
        ("column", 15, "...#...#...#...#"),
        ("convolution", 4, "##.##..........."),
        ("convolution", 15, "..........###.##"),
    ],
)
def test_masks_equal_the_papers_figure(monkeypatch, kind, query, seen):
    monkeypatch.setattr(attention, "KERNEL", 3)
    assert "".join(".#"[visible] for visible in code_mask(kind, 4)[query].tolist()) == seen


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="diagonal"):
        code_mask("diagonal", 4)


def test_layer_kinds_are_the_papers():
    kinds = layer_kinds(64)
    assert [i for i, kind in enumerate(kinds, 1) if kind == "column"] == list(range(2, 64, 4))
    assert kinds[-1] == "convolution" and kinds.count("row") == 64 - 16 - 1
    assert layer_kinds(1) == ("convolution",)
    assert layer_kinds(4) == ("row", "column", "row", "convolution")


@pytest.mark.parametrize("kind, keys", [("row", 64), ("column", 32), ("convolution", 7 * 32)])
def test_windows_are_no_larger_than_they_must_be(kind, keys):
    assert lines(kind, 32).hidden_GSW.shape == (32, 32, keys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_attend_equals_plain_masked_attention(kind, grid):
    """Values and gradients."""
    generator = torch.Generator().manual_seed(grid)
    prefix, mask = 5, sequence_mask(kind, grid, 5)
    qkv = torch.randn(3, 2, 3, prefix + grid**2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, prefix + grid**2, 4, generator=generator, dtype=torch.float64)
    plain = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask)
    fast = masked_attention(qkv[0], qkv[1], qkv[2], kind, grid)
    torch.testing.assert_close(fast, plain)
    gradients = [torch.autograd.grad((out * weights).sum(), qkv)[0] for out in (fast, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (7, 2), (1, 6), (6, 1)])
def test_grids_that_are_not_square(kind, rows, columns):
    codes, prefix = range(rows * columns), 4
    mask = sequence_mask(kind, columns, prefix, rows)
    assert mask[prefix:, prefix:].tolist() == [[sees(kind, columns, query, key) for key in codes] for query in codes]
    qkv = torch.randn(3, 2, 3, prefix + len(codes), 4, generator=torch.Generator().manual_seed(0))
    plain = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask)
    torch.testing.assert_close(masked_attention(qkv[0], qkv[1], qkv[2], kind, columns, rows), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_one_code_at_a_time_equals_all_at_once(kind):
    generator = torch.Generator().manual_seed(0)
    grid, prefix = 7, 5
    q, k, v = torch.randn(3, 2, 3, prefix + grid**2, 4, generator=generator)
    at_once = masked_attention(q, k, v, kind, grid)[:, :, prefix:]
    for position, codes in enumerate(visible_codes(kind, grid)):
        one = cached_attention(q[:, :, prefix + position], k, v, prefix, codes)
        torch.testing.assert_close(one, at_once[:, :, position])
