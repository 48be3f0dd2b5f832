"""A dataset as one HTML file that needs no network, no script and no other file.

This module computes what `page.html.jinja` shows."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
from importlib import resources
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

import jinja2
import numpy as np
from PIL import Image

from models.data.format import Manifest
from pipeline.inspection import svg_plots
from pipeline.inspection.show_rows import REJECTS_PER_REASON
from pipeline.inspection.stats import Measures
from pipeline.inspection.svg_plots import Tick
from pipeline.records import Stage
from pipeline.version import VERSION

IMAGE_BYTES = 3_500_000  # of all images, as WebP; base64 makes 4.7 MB of it
QUALITIES = ((82, 256), (60, 224), (45, 160), (30, 96))  # WebP quality and px a side: the first that fits
MAX_CARDS = 200  # so many images of any content fit at the last quality
MAX_TEXT = 600  # characters of a text that is shown
MAX_SETTINGS = 100_000  # characters of all settings
MAX_LINK = 2000
LICENCES = 8
SIDE_TICKS = tuple(Tick(side, f"{side:,}") for side in (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384))
RATIO_TICKS = (
    Tick(1 / 4, "1:4"),
    Tick(1 / 2, "1:2"),
    Tick(2 / 3, "2:3"),
    Tick(1, "1:1"),
    Tick(3 / 2, "3:2"),
    Tick(2, "2:1"),
    Tick(4, "4:1"),
)
STAGES = tuple(stage.value for stage in Stage)
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Card(NamedTuple):
    """One pair with its images."""

    row: dict[str, Any]  # of the index
    decoded: np.ndarray  # uint8 [size, size, 3], from the codes of draw 0
    original: np.ndarray | str | None  # the crop that became the codes; why it is missing; None if not requested


class Report(NamedTuple):
    name: str
    manifest: Manifest
    stats: dict[str, Any]  # of stats.summary
    measures: Measures
    cards: list[Card]
    selection: str  # how the cards were chosen, in words
    rejects: list[dict[str, Any]]
    rejects_source: Optional[str] = None  # the one source to which the sample rows are narrowed


def render(page: Report) -> str:
    """The text of the HTML file."""
    return page_template("page.html.jinja").render(
        name=page.name,
        policy=POLICY,
        style=page_style(),
        version=VERSION,
        stages=STAGES,
        figures=key_figures(page.stats),
        counts=ledger_counts(page.stats["sources"]),
        reasons=reasons_by_stage(page.stats["rejects_by_reason"]),
        plots=distributions(page.stats, page.measures),
        selection=page.selection,
        with_originals=any(card.original is not None for card in page.cards),
        cards=shown_cards(page.cards),
        rejects=rejects_by_stage(page.rejects),
        rejects_source=page.rejects_source,
        rejects_per_reason=REJECTS_PER_REASON,
        **fingerprints_and_settings(page.manifest),
    )


@functools.cache
def page_template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cut": cut, "visible": visible, "number": number, "plural": plural}
    return environment.from_string(_resource(name))


def page_style() -> str:
    return _resource("page.css")


def _resource(name: str) -> str:
    return resources.files("pipeline.inspection").joinpath(name).read_text(encoding="utf-8")


# --- words and numbers -----------------------------------------------------------------------------------------------


def cut(text: str, max_length: int = MAX_TEXT) -> str:
    """The text, shortened to `max_length` characters."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def visible(text: str) -> str:
    """The text with control and bidi characters as escapes: a raw caption must not turn the direction of the page."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def is_safe_link(url: str) -> bool:
    """Whether a browser may follow the URL."""
    try:
        return urlsplit(url).scheme in ("http", "https") and len(url) <= MAX_LINK
    except ValueError:
        return False


def size(n_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:,.1f} {unit}"
    return f"{n_bytes} bytes"


def percent(part: int, total: int) -> str:
    return f"{100 * part / total:.1f} %" if total else "0 %"


def number(value: int) -> str:
    return f"{value:,}"


def plural(value: int, word: str) -> str:
    return f"{value:,} {word}{'s' * (value != 1)}"


# --- head ------------------------------------------------------------------------------------------------------------


class KeyFigure(NamedTuple):
    name: str
    value: str
    note: str


def key_figures(stats: dict[str, Any]) -> list[KeyFigure]:
    shards, read = stats["shards"], sum(counts["read"] for counts in stats["sources"].values())
    pairs = sum(stats["pairs"].values())
    return [
        KeyFigure("Pairs", f"{pairs:,}", " · ".join(f"{count:,} {split}" for split, count in stats["pairs"].items())),
        KeyFigure("Kept", percent(pairs, read), f"of {plural(read, 'row')}"),
        KeyFigure("Sources", f"{len(stats['sources']):,}", ", ".join(sorted(stats["sources"]))),
        KeyFigure("Shards", f"{shards['number']:,}", f"{size(shards['bytes'])} in all"),
        KeyFigure("Bytes a pair", f"{shards['bytes_per_pair']:,.0f}", "codes, tokens, caption"),
        KeyFigure("Draws", f"{stats['draws']:,}", f"of {stats['codes_per_picture']:,} codes a picture"),
    ]


# --- account of rows -------------------------------------------------------------------------------------------------


class SourceCounts(NamedTuple):
    name: str
    read: int
    kept: int
    rejected_by_stage: dict[str, int]

    @property
    def rejected(self) -> int:
        return sum(self.rejected_by_stage.values())

    @property
    def parts(self) -> list[tuple[str, int]]:
        """The parts of the rows read, for a bar."""
        return [("kept", self.kept), *((stage, self.rejected_by_stage.get(stage, 0)) for stage in STAGES)]


class LedgerCounts(NamedTuple):
    sources: list[SourceCounts]
    total: SourceCounts


def ledger_counts(by_source: dict[str, Any]) -> LedgerCounts:
    sources = [
        SourceCounts(
            name,
            rows["read"],
            rows["kept"],
            {stage: sum(reasons.values()) for stage, reasons in rows["rejected"].items()},
        )
        for name, rows in sorted(by_source.items())
    ]
    rejected = {stage: sum(source.rejected_by_stage.get(stage, 0) for source in sources) for stage in STAGES}
    read, kept = sum(source.read for source in sources), sum(source.kept for source in sources)
    return LedgerCounts(sources, SourceCounts("all", read, kept, rejected))


class StageReasons(NamedTuple):
    stage: str
    rows: int
    reasons: list[tuple[str, int]]  # (reason, rows)
    largest: int  # rows of the most frequent reason of all stages


def reasons_by_stage(rejects: dict[str, dict[str, int]]) -> list[StageReasons]:
    largest = max((rows for reasons in rejects.values() for rows in reasons.values()), default=1)
    return [
        StageReasons(stage, sum(rejects[stage].values()), list(rejects[stage].items()), largest)
        for stage in STAGES
        if stage in rejects
    ]


# --- distributions ---------------------------------------------------------------------------------------------------


class Plot(NamedTuple):
    """A figure: a plot, or a table with bars."""

    title: str
    summary: str
    svg: str = ""
    bars: Optional[list[tuple[str, int]]] = None  # (name, pairs)
    colour: str = ""  # class of the bars
    longest: int = 1  # pairs of a bar of the full width


def distributions(stats: dict[str, Any], measures: Measures) -> list[Plot]:
    captions, images = stats["captions"], stats["pictures"]
    return [
        _spread("Caption words", captions["words"], svg_plots.whole_histogram(measures.words, "words")),
        _spread("Caption tokens", captions["tokens"], svg_plots.whole_histogram(measures.tokens, "tokens")),
        _spread("Shorter side, px", images["shorter_side_px"], _side_histogram(measures)),
        _spread("Width to height", images["ratio"], _ratio_histogram(measures)),
        Plot(
            "Image codes by rank",
            _code_usage(stats["codes"]),
            svg_plots.frequency_curve(measures.codes, stats["codes"]["vocabulary"]),
        ),
        Plot("Caption tokens by rank", _token_usage(stats["text"]), svg_plots.frequency_curve(measures.token_counts)),
        duplicates(stats["duplicates_left"], len(measures.words)),
        licences(stats["licences"]),
    ]


def _side_histogram(measures: Measures) -> str:
    side = np.minimum(measures.width, measures.height)
    low, high = max(1, int(side.min(initial=64))), int(side.max(initial=256))
    return svg_plots.log_histogram(side, low, max(high, 2 * low), SIDE_TICKS, "px")


def _ratio_histogram(measures: Measures) -> str:
    """Symmetric about the square, so that wide and tall images can be compared."""
    ratio = measures.width / np.maximum(measures.height, 1)
    reach = max(2.0, float(ratio.max(initial=1)), 1 / float(ratio.min(initial=1)))
    return svg_plots.log_histogram(ratio, 1 / reach, reach, RATIO_TICKS, "")


def _code_usage(usage: dict[str, Any]) -> str:
    return (
        f"{usage['used']:,} of {usage['vocabulary']:,} used, {usage['entropy_bits']:.1f} of {usage['most_bits']:.1f} "
        f"bits, Zipf exponent {usage['zipf_exponent']:.2f}; dashed: even use"
    )


def _token_usage(usage: dict[str, Any]) -> str:
    return (
        f"{usage['used']:,} of {usage['vocabulary']:,} used, Zipf exponent {usage['zipf_exponent']:.2f}; "
        "dashed: even use"
    )


def _spread(title: str, spread: dict[str, float], svg: str) -> Plot:
    shown = {name: f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for name, value in spread.items()}
    summary = (
        f"median {shown['median']}, nine tenths from {shown['p5']} to {shown['p95']}, at most {shown['max']}"
        if shown
        else "no pairs"
    )
    return Plot(title, summary, svg)


def duplicates(left: dict[str, int], pairs: int) -> Plot:
    """How many pairs share something with an earlier one."""
    summary = "pairs that share it with an earlier one; the bar is all pairs"
    bars = [(name.replace("_", " "), shared) for name, shared in left.items()]
    return Plot("Duplicates left", summary, bars=bars, colour="encode", longest=max(1, pairs))


def licences(counts: dict[str, int]) -> Plot:
    """The most frequent licences, then the number of all others."""
    shown = dict(list(counts.items())[:LICENCES])
    if remaining := sum(counts.values()) - sum(shown.values()):
        shown[f"{len(counts) - LICENCES:,} others"] = remaining
    longest = max(shown.values(), default=1)
    return Plot("Licences", "as the sources state them", bars=list(shown.items()), colour="kept", longest=longest)


# --- pairs -----------------------------------------------------------------------------------------------------------


class ShownCard(NamedTuple):
    row: dict[str, Any]
    images: list[tuple[str, str]]  # (alternative text, WebP in base64)
    missing: Optional[str]  # why the original is
    links: list[tuple[str, str]]  # (text, URL)


def shown_cards(cards: list[Card]) -> list[ShownCard]:
    images = [image for card in cards for image in (card.original, card.decoded) if isinstance(image, np.ndarray)]
    encoded = (base64.b64encode(data).decode() for data in encode_images(images))
    return [
        ShownCard(
            row=card.row,
            images=[
                (alt, next(encoded))
                for alt, image in (("Original crop", card.original), ("Decoded from the codes", card.decoded))
                if isinstance(image, np.ndarray)
            ],
            missing=card.original if isinstance(card.original, str) else None,
            links=[
                (text, card.row[column])
                for text, column in (("page", "page_url"), ("picture", "url"))
                if is_safe_link(card.row[column])
            ],
        )
        for card in cards
    ]


def encode_images(images: list[np.ndarray]) -> list[bytes]:
    """WebP files that together have at most IMAGE_BYTES, at the best of QUALITIES that allows it."""
    for quality, side in QUALITIES:
        encoded = [_webp(image, quality, side) for image in images]
        if sum(map(len, encoded)) <= IMAGE_BYTES:
            break
    return encoded


def _webp(rgb_HWC: np.ndarray, quality: int, side: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(rgb_HWC)
    if image.width > side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


# --- rejected rows, settings -----------------------------------------------------------------------------------------


def rejects_by_stage(rows: list[dict[str, Any]]) -> list[tuple[str, list[tuple[str, list[dict[str, Any]]]]]]:
    """(stage, (reason, rows) of it) in the order of stages."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        groups.setdefault(row["stage"], {}).setdefault(row["reason"], []).append(row)
    return [(stage, list(groups[stage].items())) for stage in STAGES if stage in groups]


def fingerprints_and_settings(manifest: Manifest) -> dict[str, Any]:
    settings = json.dumps(manifest.settings, indent=2, sort_keys=True, ensure_ascii=False)
    return {
        "image": manifest.image_tokenizer,
        "text": manifest.text_tokenizer,
        "draws": manifest.draws,
        "crop_recipe": manifest.settings.get("encode", {}).get("crop_recipe", ""),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())),
        "settings": settings[:MAX_SETTINGS],
    }
