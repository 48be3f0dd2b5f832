"""The scores of images as one HTML file: how each is distributed, with images of both ends and of what lies between.

This module computes what `score_page.html.jinja` shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from models.errors import UserError
from models.progress import track
from pipeline.fetch import stored_shards
from pipeline.images.validate import ANY_IMAGE
from pipeline.inspection import svg_plots
from pipeline.inspection.html_page import POLICY, page_style, page_template
from pipeline.inspection.svg_plots import HistogramBin
from pipeline.records import Pair, Rejected
from pipeline.scores.distribution import Distribution, Strip, distribution, read_numbers, short, strips
from pipeline.scores.score_files import KEY, Scores
from pipeline.version import VERSION

THUMBNAIL, QUALITY = 144, 70  # px of the longer side, of WebP
TICKS = 5


class Example(NamedTuple):
    """A pair that shows what a number means."""

    key: str
    value: str
    caption: str
    image: str  # WebP in base64; "" if it is not among the images


class ShownScore(NamedTuple):
    name: str
    summary: str
    svg: str
    strips: list[tuple[str, list[Example]]]


def score_page(name: str, scores: Scores, images: str, thresholds: Mapping[str, float]) -> str:
    """The text of the HTML file. Raises UserError for a threshold of a score that there is not, for damaged files, and
    if the images are not those that were scored."""
    if unknown := sorted(thresholds.keys() - set(scores.names)):
        raise UserError(f"--threshold {unknown[0]}: the scores are {', '.join(scores.names)}")
    found: dict[str, tuple[Distribution, list[Strip], dict[int, float]]] = {}
    for score in scores.names:
        numbers_P = read_numbers(scores, score)
        chosen = strips(numbers_P, thresholds.get(score))
        values = {position: float(numbers_P[position]) for strip in chosen for position in strip.positions}
        found[score] = distribution(numbers_P), chosen, values
    keys = _keys_at(scores, {position for _, _, values in found.values() for position in values})
    shown = _thumbnails(images, set(keys.values()))
    if keys and not shown:
        raise UserError(f"--images {images}: has none of the images that were scored; give the folder that was scored")
    return page_template("score_page.html.jinja").render(
        name=name,
        policy=POLICY,
        style=page_style(),
        version=VERSION,
        pairs=max((each.pairs for each, _, _ in found.values()), default=0),
        scores=[_shown(score, *each, thresholds.get(score), keys, shown) for score, each in found.items()],
    )


def _keys_at(scores: Scores, positions: set[int]) -> dict[int, str]:
    """The keys of positions in the order of all keys."""
    keys: dict[int, str] = {}
    wanted, first = np.array(sorted(positions), np.int64), 0
    for table in scores.tables([KEY]):
        here = wanted[(wanted >= first) & (wanted < first + len(table))]
        keys.update(zip(here.tolist(), table[KEY].take(pa.array(here - first)).to_pylist(), strict=True))
        first += len(table)
    return keys


def _thumbnails(images: str, keys: set[str]) -> dict[str, tuple[str, str]]:
    """Key -> caption and image of those that are found, as WebP in base64."""
    found: dict[str, tuple[str, str]] = {}
    paths = stored_shards.find_image_shards(images)
    for path in track(paths, "show", "image shards", len(paths)):
        pairs = [
            row for row in stored_shards.list_rows(path) if isinstance(row, Pair) and row.key in keys - found.keys()
        ]
        for image in stored_shards.read_images(path, pairs, ANY_IMAGE) if pairs else ():
            if not isinstance(image, Rejected):
                found.setdefault(image.pair.key, (image.pair.caption, _thumbnail(image.rgb_HWC)))
    return found


def _thumbnail(rgb_HWC: np.ndarray) -> str:
    image, buffer = Image.fromarray(rgb_HWC), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _shown(
    name: str,
    found: Distribution,
    chosen: list[Strip],
    values: dict[int, float],
    threshold: float | None,
    keys: Mapping[int, str],
    shown: Mapping[str, tuple[str, str]],
) -> ShownScore:
    def example(place: int) -> Example:
        caption, image = shown.get(keys[place], ("", ""))
        return Example(keys[place], short(values[place]), caption, image)

    examples = [(strip.title, [example(place) for place in strip.positions]) for strip in chosen]
    return ShownScore(name, _summary(found), _histogram(found, threshold), examples)


def _summary(found: Distribution) -> str:
    if not found.quantiles:
        return "no pair has this score"
    shown = {name: short(value) for name, value in found.quantiles.items()}
    missing = f"; {found.missing:,} pairs lack it" if found.missing else ""
    return (
        f"median {shown['median']}, nine tenths from {shown['p5']} to {shown['p95']}, at most {shown['max']}{missing}"
    )


def _histogram(found: Distribution, threshold: float | None) -> str:
    """The bins side by side, all of one width, although the outermost reach farther."""
    edges = found.edges
    if not found.counts:
        return ""
    bins = [HistogramBin._make(each) for each in zip(edges[:-1], edges[1:], found.counts, strict=True)]
    ticks = [(place / len(bins), short(edges[place])) for place in range(0, len(bins) + 1, max(1, len(bins) // TICKS))]
    line = float(np.interp(threshold, edges, np.linspace(0, 1, len(edges)))) if threshold is not None else None
    return svg_plots.histogram(bins, lambda _, bar: f"{short(bar.low)} to {short(bar.high)}", ticks, line)
