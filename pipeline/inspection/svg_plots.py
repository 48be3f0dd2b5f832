"""Numbers to small inline SVG plots; colours and type come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT, AXIS = 360, 132, 22  # units of the view box; the axis is the part below the bars
HISTOGRAM_BINS = 28
TAIL = 99  # percentile beyond which the whole numbers of a long range share the last bar
CURVE_POINTS = 180


class HistogramBin(NamedTuple):
    low: float  # included
    high: float  # not included, but in the last bin
    values: int  # how many values fall into the bin


class Tick(NamedTuple):
    value: float
    label: str


# --- bins ------------------------------------------------------------------------------------------------------------


def whole_bins(values: np.ndarray) -> list[HistogramBin]:
    """Bins of whole numbers, equally wide; of a long range, the last one takes the tail."""
    if not len(values):
        return []
    low, high = int(values.min()), int(values.max())
    if high - low >= HISTOGRAM_BINS:
        high = int(np.percentile(values, TAIL))
    width = -(-(high - low + 1) // HISTOGRAM_BINS)
    starts = list(range(low, high + 1, width))
    counts = np.bincount(np.minimum((values - low) // width, len(starts) - 1), minlength=len(starts))
    return [HistogramBin(start, start + width, int(count)) for start, count in zip(starts, counts, strict=True)]


def log_bins(values: np.ndarray, low: float, high: float, bins: int = HISTOGRAM_BINS) -> list[HistogramBin]:
    """Bins whose edges have a constant ratio, from `low` to `high`; what lies outside goes to the outermost."""
    edges = np.geomspace(low, high, bins + 1)
    counts, _ = np.histogram(np.clip(values, low, high), edges)
    return [HistogramBin(float(edges[i]), float(edges[i + 1]), int(count)) for i, count in enumerate(counts)]


# --- plots -----------------------------------------------------------------------------------------------------------


def whole_histogram(values: np.ndarray, unit: str) -> str:
    """A histogram of whole numbers: words, tokens."""
    bins = whole_bins(values)
    if not bins:
        return ""
    first, last = bins[0].low, bins[-1].low
    step = _round_step((last - first) / 5)
    ticks = [Tick(value, f"{value:,}") for value in range(-(-int(first) // step) * step, int(last) + 1, step)]
    width = bins[0].high - bins[0].low

    def name(i: int, bar: HistogramBin) -> str:
        last_value = int(values.max()) if i == len(bins) - 1 else int(bar.high) - 1
        return f"{int(bar.low):,}" + (f" to {last_value:,}" if last_value > bar.low else "") + f" {unit}"

    def position(value: float) -> float:
        return (value - first + width / 2) / (width * len(bins))

    return histogram(bins, name, [(position(tick.value), tick.label) for tick in ticks])


def log_histogram(values: np.ndarray, low: float, high: float, ticks: Sequence[Tick], unit: str) -> str:
    """A histogram on a logarithmic axis from `low` to `high`: sizes, ratios."""
    bins = log_bins(values, low, high)
    form = "{:.2f} to {:.2f}" if high < 100 else "{:,.0f} to {:,.0f}"
    shown = [
        (math.log(tick.value / low) / math.log(high / low), tick.label) for tick in ticks if low <= tick.value <= high
    ]
    return histogram(bins, lambda i, bar: f"{form.format(bar.low, bar.high)} {unit}".strip(), shown)


def histogram(
    bins: list[HistogramBin],
    name: Callable[[int, HistogramBin], str],
    ticks: list[tuple[float, str]],
    line: float | None = None,
) -> str:
    """Bars over an axis. `name` says in words what a bar stands for; ticks are (position in 0..1, label); `line` is
    the position of a dashed line across the bars."""
    tallest = max(1, max(bar.values for bar in bins))
    plot_height, step = HEIGHT - AXIS, WIDTH / len(bins)
    gap = min(2.0, step / 5)
    bars = []
    for i, bar in enumerate(bins):
        # A bar of a single pair among millions must still be seen.
        tall = max(1.5, bar.values / tallest * (plot_height - 4)) if bar.values else 0
        bars.append(
            f'<rect x="{i * step + gap / 2:.1f}" y="{plot_height - tall:.1f}" width="{step - gap:.1f}" '
            f'height="{tall:.1f}" rx="1"><title>{escape(name(i, bar))}: {bar.values:,}</title></rect>'
        )
    across = "" if line is None else _upright(line * WIDTH, plot_height)
    return _svg(f'<g class="bars">{"".join(bars)}</g>{across}{_axis(ticks)}')


def _upright(x: float, height: float) -> str:
    return f'<line class="even" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>'


def frequency_curve(counts: np.ndarray, vocabulary: int | None = None) -> str:
    """How often each code occurs, most frequent first, on a logarithmic scale; the dashed line is even use. Of a
    `vocabulary` (default: as many codes as counts), those that do not occur may be left out of the counts."""
    ordered, total = np.sort(counts)[::-1], vocabulary or len(counts)
    used = int((ordered > 0).sum())
    if not used:
        return ""
    plot_height, top = HEIGHT - AXIS, math.log1p(float(ordered[0]))

    def height(count: float) -> float:
        return plot_height - math.log1p(count) / top * (plot_height - 6)

    ranks = np.unique(np.linspace(0, used - 1, min(used, CURVE_POINTS)).astype(int))
    points = [f"{rank / total * WIDTH:.1f},{height(float(ordered[rank])):.1f}" for rank in ranks]
    end = used / total * WIDTH
    last = f"{end:.1f},{height(float(ordered[used - 1])):.1f}"
    path = f"M0,{plot_height} L{' L'.join(points)} L{last} L{end:.1f},{plot_height} Z"
    even = height(float(ordered.sum()) / total)
    ticks = [(share, f"{max(1, round(share * total)):,}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return _svg(
        f'<path class="area" d="{path}"/>'
        f'<line class="even" x1="0" x2="{WIDTH}" y1="{even:.1f}" y2="{even:.1f}"/>{_axis(ticks)}'
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _svg(inside: str) -> str:
    """The figure's caption says what it shows: to a screen reader the bars add nothing."""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{inside}</svg>'


def _axis(ticks: list[tuple[float, str]]) -> str:
    plot_height = HEIGHT - AXIS
    parts = [f'<line class="axis" x1="0" x2="{WIDTH}" y1="{plot_height}" y2="{plot_height}"/>']
    for position, label in ticks:
        anchor = "start" if position < 0.03 else "end" if position > 0.97 else "middle"
        parts.append(f'<text x="{position * WIDTH:.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}">{escape(label)}</text>')
    return "".join(parts)


def _round_step(rough: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    if rough <= 1:
        return 1
    power = 10 ** math.floor(math.log10(rough))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= rough))
