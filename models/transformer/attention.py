"""The paper's attention patterns (section 2.2, appendix B.1, figure 11) as masks, and an exact way to compute attention
that multiplies little more than they allow.

A sequence is a prefix (the text with its start tokens) and the codes of an image, `rows` rows (default: as many as a
row has codes) of `grid` codes in raster order. The
prefix is causal; a code sees the full prefix and, of the codes up to itself, those of its layer's kind:

    row          back to the same column of the row above, wrapping: grid + 1 codes with itself
    column       its own column from the top
    convolution  an 11 x 11 window, wrapping as `row` does: fixed distances in raster order
    full         all of them

Shape letters: B images, H heads, L positions = prefix P + codes N, D width of a head, G lines (rows, or columns) of S
codes, W keys of a line's window.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F

KINDS = ("row", "column", "convolution", "full")
KERNEL = 11


def layer_kinds(layers: int) -> tuple[str, ...]:
    """The kinds of layers 1, 2, ...: column if (i - 2) mod 4 = 0, else row; convolution in the last layer."""
    return *("column" if (i - 2) % 4 == 0 else "row" for i in range(1, layers)), "convolution"


def code_mask(kind: str, grid: int, rows: int | None = None) -> torch.Tensor:
    """The mask of codes, bool [N queries, N keys]: True where the query sees the key. Raises ValueError."""
    position = torch.arange((rows or grid) * grid, device="cpu")  # also while a model is built on the meta device
    distance = position[:, None] - position[None, :]  # of the key behind the query, in raster order
    if kind == "row":
        return (distance >= 0) & (distance <= grid)
    if kind == "column":
        return (distance >= 0) & (distance % grid == 0)
    if kind == "convolution":
        reach = KERNEL // 2
        window = [down * grid + right for down in range(reach + 1) for right in range(-reach, reach + 1)]
        return (distance >= 0) & torch.isin(distance, torch.tensor(window, device="cpu"))
    if kind == "full":
        return distance >= 0
    raise ValueError(f"attention kind {kind!r} is unknown; give one of {', '.join(KINDS)}")


# --- all positions at once (training) --------------------------------------------------------------------------------


class LineWindows(NamedTuple):
    """A mask cut into G lines of S codes, each with the window of the few lines that its keys come from."""

    by_column: bool  # whether lines are columns instead of rows
    neighbours: torch.Tensor  # int64 [G, lines in a window]
    hidden_GSW: torch.Tensor  # bool [line, query, key]: True where the query does not see the key


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # training cannot use a tensor that was made in inference mode
def lines(kind: str, grid: int, rows: int | None = None) -> LineWindows:
    """Cuts a kind's mask into lines and finds how many lines back its keys reach. Columns are transposed, as in the
    paper."""
    shape = (rows or grid, grid) * 2
    mask_GSGS = code_mask(kind, grid, rows).view(shape)  # line and offset of the query, then of the key
    if by_column := kind == "column":
        mask_GSGS = mask_GSGS.permute(1, 0, 3, 2)
    line = torch.arange(len(mask_GSGS), device="cpu")
    reach = int((line[:, None] - line[None, :])[mask_GSGS.any(3).any(1)].max())
    neighbours = line[:, None] - torch.arange(reach, -1, -1, device="cpu")
    window = mask_GSGS.transpose(1, 2)[line[:, None], neighbours.clamp(min=0)]  # [line, neighbour, query, key]
    window = window & (neighbours >= 0)[:, :, None, None]  # no line lies above the first
    return LineWindows(by_column, neighbours.clamp(min=0), ~window.transpose(1, 2).flatten(2))


def masked_attention(
    q_BHLD: torch.Tensor,
    k_BHLD: torch.Tensor,
    v_BHLD: torch.Tensor,
    kind: str,
    grid: int,
    rows: int | None = None,
    pattern: LineWindows | None = None,
) -> torch.Tensor:
    """Masked attention [B, H, L, D] of a full sequence, with one softmax over prefix and codes.

    `pattern` is lines(kind, grid, rows) on the device of the queries; by default it is copied there.
    """
    if kind == "full":
        return F.scaled_dot_product_attention(q_BHLD, k_BHLD, v_BHLD, is_causal=True)
    codes = (rows or grid) * grid
    prefix = q_BHLD.shape[2] - codes
    (q_text, q), (k_text, k), (v_text, v) = (x.split([prefix, codes], dim=2) for x in (q_BHLD, k_BHLD, v_BHLD))
    text_BHPD = F.scaled_dot_product_attention(q_text, k_text, v_text, is_causal=True)
    pattern = pattern or lines(kind, grid, rows)
    return torch.cat([text_BHPD, _attend_codes(q, k, v, k_text, v_text, pattern)], dim=2)


def _attend_codes(
    q_BHND: torch.Tensor,
    k_BHND: torch.Tensor,
    v_BHND: torch.Tensor,
    k_BHPD: torch.Tensor,
    v_BHPD: torch.Tensor,
    lines: LineWindows,
) -> torch.Tensor:
    """Attention [B, H, N, D] of the codes. A query takes P + W products instead of the P + N of a full masked product:
    for the paper's sizes 322 (row), 290 (column) and 482 (convolution) instead of 1,282."""
    B, H, N, D = q_BHND.shape
    P, G = k_BHPD.shape[2], lines.neighbours.shape[0]
    q_BHGSD, k_BHGSD, v_BHGSD = (_to_lines(x, G, lines.by_column) for x in (q_BHND * D**-0.5, k_BHND, v_BHND))
    scores_text = q_BHGSD.reshape(B, H, N, D) @ k_BHPD.transpose(2, 3)
    scores_codes = q_BHGSD @ _windows(k_BHGSD, lines.neighbours).transpose(3, 4)
    scores_codes = scores_codes.masked_fill(lines.hidden_GSW.to(scores_codes.device), float("-inf"))
    weights = torch.cat([scores_text.view(B, H, G, N // G, P), scores_codes], dim=4).softmax(dim=4)
    out_text = weights[..., :P].reshape(B, H, N, P) @ v_BHPD
    out_codes = weights[..., P:] @ _windows(v_BHGSD, lines.neighbours)
    out_BHGSD = out_text.view(B, H, G, N // G, D) + out_codes
    return (out_BHGSD.transpose(2, 3) if lines.by_column else out_BHGSD).reshape(B, H, N, D)


def _to_lines(x_BHND: torch.Tensor, lines: int, by_column: bool) -> torch.Tensor:
    if by_column:
        return x_BHND.unflatten(2, (-1, lines)).transpose(2, 3)
    return x_BHND.unflatten(2, (lines, -1))


def _windows(x_BHGSD: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """The window of each line: the lines of its keys, one after the other, [B, H, G, W, D]."""
    if neighbours.shape[1] == 1:
        return x_BHGSD
    B, H, G, _, D = x_BHGSD.shape
    picked = x_BHGSD.flatten(3).index_select(2, neighbours.flatten().to(x_BHGSD.device))
    return picked.view(B, H, G, -1, D)


# --- one position at a time (sampling) -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def visible_codes(
    kind: str, grid: int, device: torch.device | str = "cpu", rows: int | None = None
) -> tuple[torch.Tensor, ...]:
    """For each of the N codes the codes that it sees, itself included, int64 of varying length."""
    return tuple(torch.nonzero(seen)[:, 0].to(device) for seen in code_mask(kind, grid, rows))


def cached_attention(
    q_BHD: torch.Tensor, k_BHLD: torch.Tensor, v_BHLD: torch.Tensor, prefix: int, codes: torch.Tensor
) -> torch.Tensor:
    """Attention [B, H, D] of one code over the cached prefix and those of the cached codes that it sees, `codes`."""
    q_BH1D = (q_BHD * q_BHD.shape[-1] ** -0.5)[:, :, None]
    k_text, v_text = k_BHLD[:, :, :prefix], v_BHLD[:, :, :prefix]
    k_codes, v_codes = (x[:, :, prefix:].index_select(2, codes) for x in (k_BHLD, v_BHLD))
    scores = torch.cat([q_BH1D @ k_text.transpose(2, 3), q_BH1D @ k_codes.transpose(2, 3)], dim=3)
    weights_text, weights_codes = scores.softmax(dim=3).split([prefix, len(codes)], dim=3)
    return (weights_text @ v_text + weights_codes @ v_codes)[:, :, 0]
