"""A dataset as one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable
from html import escape
from importlib import resources
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

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
    sections = [
        ("account", "Account of rows", ledger_section(page.stats)),
        ("distributions", "Distributions", distributions(page.stats, page.measures)),
        ("pairs", "Pairs", pairs(page)),
        ("rejected", "Rejected rows", rejected(page)),
        ("made", "Fingerprints and settings", settings_section(page.manifest)),
    ]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{inside}</section>\n'
        for name, title, inside in sections
    )
    style = resources.files("pipeline.inspection").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape_text(page.name)} · pairmill</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#pairs">Skip to the pairs</a>
<header>
<p class="kind">Image-caption dataset</p>
<h1>{escape_text(page.name)}</h1>
{key_figures(page.stats)}
<nav aria-label="On this page"><ul>{links}</ul></nav>
</header>
<main>
{body}</main>
<footer><p>Made by <code>pairmill show</code> {VERSION}</p></footer>
</body>
</html>
"""


# --- words and numbers -----------------------------------------------------------------------------------------------


def escape_text(value: str, max_length: int = MAX_TEXT) -> str:
    """The text, escaped and shortened to `max_length` characters."""
    return escape(value if len(value) <= max_length else value[: max_length - 1] + "…")


def visible(text: str) -> str:
    """The text with control and bidi characters as escapes: a raw caption must not turn the direction of the page."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def link(url: str, text: str) -> str:
    """A link if a browser may safely follow the URL, else an empty string."""
    try:
        safe = urlsplit(url).scheme in ("http", "https") and len(url) <= MAX_LINK
    except ValueError:
        safe = False
    return f'<a href="{escape(url)}" rel="noopener noreferrer">{text}</a>' if safe else ""


def size(number: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number} bytes"


def percent(part: int, total: int) -> str:
    return f"{100 * part / total:.1f} %" if total else "0 %"


def bar(parts: Iterable[tuple[str, int]], total: int) -> str:
    """A horizontal bar of (class, number) parts; the numbers stand beside it."""
    spans = "".join(
        f'<i class="{name}" style="width:{100 * number / total:.2f}%"></i>' for name, number in parts if number
    )
    return f'<span class="bar" aria-hidden="true">{spans}</span>'


def plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


# --- head ------------------------------------------------------------------------------------------------------------


def key_figures(stats: dict[str, Any]) -> str:
    shards, read = stats["shards"], sum(counts["read"] for counts in stats["sources"].values())
    number = sum(stats["pairs"].values())
    codes = stats["image_tokenizer"]["grid"] ** 2
    figures = [
        ("Pairs", f"{number:,}", " · ".join(f"{count:,} {split}" for split, count in stats["pairs"].items())),
        ("Kept", percent(number, read), f"of {plural(read, 'row')}"),
        ("Sources", f"{len(stats['sources']):,}", ", ".join(sorted(stats["sources"]))),
        ("Shards", f"{shards['number']:,}", f"{size(shards['bytes'])} in all"),
        ("Bytes a pair", f"{shards['bytes_per_pair']:,.0f}", "codes, tokens, caption"),
        ("Draws", f"{stats['draws']:,}", f"of {codes:,} codes a picture"),
    ]
    return (
        '<dl class="figures">'
        + "".join(
            f"<div><dt>{name}</dt><dd><strong>{value}</strong> <span>{escape_text(note)}</span></dd></div>"
            for name, value, note in figures
        )
        + "</dl>"
    )


def settings_section(manifest: Manifest) -> str:
    image, text = manifest.image_tokenizer, manifest.text_tokenizer
    recipe = manifest.settings.get("encode", {}).get("crop_recipe", "")
    entries = [
        (
            "Image tokenizer",
            f"{escape_text(image.spec)} <span>{image.vocabulary:,} codes, {image.grid} × {image.grid} of "
            f"them for {image.image_size} px</span><code>{escape_text(image.fingerprint)}</code>",
        ),
        (
            "Text tokenizer",
            f"BPE <span>{text.vocabulary:,} tokens, at most {text.max_tokens:,} a caption</span>"
            f"<code>{escape_text(text.fingerprint)}</code>",
        ),
        ("Crops", f"{escape_text(recipe)} <span>{plural(manifest.draws, 'stored draw')} a picture</span>"),
        (
            "Versions",
            escape_text(", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))),
        ),
    ]
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in entries)
    settings = escape(json.dumps(manifest.settings, indent=2, sort_keys=True, ensure_ascii=False)[:100_000])
    return (
        f'<dl class="made">{rows}</dl><details><summary>All settings</summary>'
        f'<pre tabindex="0" role="region" aria-label="All settings">{settings}</pre></details>'
    )


# --- account of rows -------------------------------------------------------------------------------------------------


def ledger_section(stats: dict[str, Any]) -> str:
    sources = [
        (
            name,
            each["read"],
            each["kept"],
            {stage: sum(reasons.values()) for stage, reasons in each["rejected"].items()},
        )
        for name, each in sorted(stats["sources"].items())
    ]
    stages = [stage.value for stage in Stage]
    by_stage = {stage: sum(rejected.get(stage, 0) for *_, rejected in sources) for stage in stages}
    total = ("all", sum(each[1] for each in sources), sum(each[2] for each in sources), by_stage)
    legend = "".join(
        f'<li><i class="{name}"></i>{words}</li>'
        for name, words in (("kept", "kept"), *((stage, f"rejected in {stage}") for stage in stages))
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Source", "Read", "Kept", "Rejected"))
    return (
        f'<p>Every row read is either kept as a pair or rejected with a reason.</p><ul class="legend">{legend}</ul>'
        f'<table class="account"><thead><tr>{head}<td></td></tr></thead>'
        f"<tbody>{''.join(_source_row(*each) for each in sources)}</tbody>"
        f"<tfoot>{_source_row(*total)}</tfoot></table>{reasons_by_stage(stats['rejects_by_reason'])}"
    )


def _source_row(name: str, read: int, kept: int, rejected: dict[str, int]) -> str:
    parts = [("kept", kept), *((stage.value, rejected.get(stage.value, 0)) for stage in Stage)]
    return (
        f'<tr><th scope="row">{escape_text(name)}</th><td>{read:,}</td><td>{kept:,}</td>'
        f"<td>{sum(rejected.values()):,}</td><td>{bar(parts, max(1, read))}</td></tr>"
    )


def reasons_by_stage(rejects: dict[str, dict[str, int]]) -> str:
    largest = max((number for reasons in rejects.values() for number in reasons.values()), default=1)
    tables = []
    for stage in (stage.value for stage in Stage if stage.value in rejects):
        rows = "".join(
            f'<tr><th scope="row"><a href="#{stage}-{escape_text(reason)}">{escape_text(reason)}</a></th>'
            f"<td>{number:,}</td>"
            f"<td>{bar([(stage, number)], largest)}</td></tr>"
            for reason, number in rejects[stage].items()
        )
        head = f"Rejected in {stage} <span>{plural(sum(rejects[stage].values()), 'row')}</span>"
        tables.append(f'<table class="reasons"><caption>{head}</caption><tbody>{rows}</tbody></table>')
    return f'<div class="stages">{"".join(tables)}</div>'


# --- distributions ---------------------------------------------------------------------------------------------------


def distributions(stats: dict[str, Any], measures: Measures) -> str:
    side = np.minimum(measures.width, measures.height)
    ratio = measures.width / np.maximum(measures.height, 1)
    # Symmetric about the square, so that wide and tall images can be compared.
    reach = max(2.0, float(ratio.max(initial=1)), 1 / float(ratio.min(initial=1)))
    low, high = max(1, int(side.min(initial=64))), int(side.max(initial=256))
    codes, text_use = stats["codes"], stats["text"]
    figures = [
        _spread("Caption words", stats["captions"]["words"], svg_plots.whole_histogram(measures.words, "words")),
        _spread("Caption tokens", stats["captions"]["tokens"], svg_plots.whole_histogram(measures.tokens, "tokens")),
        _spread(
            "Shorter side, px",
            stats["pictures"]["shorter_side_px"],
            svg_plots.log_histogram(side, low, max(high, 2 * low), SIDE_TICKS, "px"),
        ),
        _spread(
            "Width to height",
            stats["pictures"]["ratio"],
            svg_plots.log_histogram(ratio, 1 / reach, reach, RATIO_TICKS, ""),
        ),
        _figure(
            "Image codes by rank",
            f"{codes['used']:,} of {codes['vocabulary']:,} used, "
            f"{codes['entropy_bits']:.1f} of {codes['most_bits']:.1f} bits, Zipf exponent "
            f"{codes['zipf_exponent']:.2f}; dashed: even use",
            svg_plots.frequency_curve(measures.codes),
        ),
        _figure(
            "Caption tokens by rank",
            f"{text_use['used']:,} of {text_use['vocabulary']:,} used, Zipf exponent "
            f"{text_use['zipf_exponent']:.2f}; dashed: even use",
            svg_plots.frequency_curve(measures.token_counts),
        ),
        duplicates(stats["duplicates_left"], len(measures.words)),
        licences(stats["licences"]),
    ]
    return f'<div class="plots">{"".join(figures)}</div>'


def _spread(title: str, spread: dict[str, float], svg: str) -> str:
    shown = {name: f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for name, value in spread.items()}
    summary = (
        f"median {shown['median']}, nine tenths from {shown['p5']} to {shown['p95']}, at most {shown['max']}"
        if shown
        else "no pairs"
    )
    return _figure(title, summary, svg)


def _figure(title: str, summary: str, inside: str) -> str:
    return f"<figure><figcaption><h3>{title}</h3><p>{summary}</p></figcaption>{inside}</figure>"


def duplicates(left: dict[str, int], pairs: int) -> str:
    """How many pairs share something with an earlier one."""
    rows = "".join(
        f'<tr><th scope="row">{name.replace("_", " ")}</th><td>{number:,}</td>'
        f"<td>{bar([('encode', number)], max(1, pairs))}</td></tr>"
        for name, number in left.items()
    )
    return _figure(
        "Duplicates left",
        "pairs that share it with an earlier one; the bar is all pairs",
        f'<table class="reasons licences"><tbody>{rows}</tbody></table>',
    )


def licences(counts: dict[str, int]) -> str:
    """The most frequent licences, then the number of all others."""
    shown = dict(list(counts.items())[:LICENCES])
    if remaining := sum(counts.values()) - sum(shown.values()):
        shown[f"{len(counts) - LICENCES:,} others"] = remaining
    largest = max(shown.values(), default=1)
    rows = "".join(
        f'<tr><th scope="row">{escape_text(name, 80)}</th><td>{number:,}</td>'
        f"<td>{bar([('kept', number)], largest)}</td></tr>"
        for name, number in shown.items()
    )
    return _figure(
        "Licences", "as the sources state them", f'<table class="reasons licences"><tbody>{rows}</tbody></table>'
    )


# --- pairs -----------------------------------------------------------------------------------------------------------


def pairs(page: Report) -> str:
    images = [image for card in page.cards for image in (card.original, card.decoded) if isinstance(image, np.ndarray)]
    encoded = iter(encode_images(images))
    with_originals = any(card.original is not None for card in page.cards)
    legend = (
        "Left the crop that became the codes, fetched again; right the picture decoded from the codes."
        if with_originals
        else "Each picture is decoded from its stored codes."
    )
    items = []
    for card in page.cards:
        original = next(encoded) if isinstance(card.original, np.ndarray) else card.original
        items.append(f"<li>{_card(card.row, original, next(encoded))}</li>\n")
    wide = " both" if with_originals else ""
    return f'<p>{escape_text(page.selection)} {legend}</p><ul class="cards{wide}">{"".join(items)}</ul>'


def _card(row: dict[str, Any], original: bytes | str | None, decoded: bytes) -> str:
    frames = _image(decoded, "Decoded from the codes")
    if isinstance(original, bytes):
        frames = _image(original, "Original crop") + frames
    elif original is not None:
        frames = f'<p class="missing">original not to be had: {escape_text(original)}</p>' + frames
    links = " · ".join(filter(None, (link(row["page_url"], "page"), link(row["url"], "picture"))))
    return (
        f'<article id="pair-{escape_text(row["key"])}"><div class="pictures">{frames}</div>'
        f'<h3 dir="auto">{escape_text(row["caption"])}</h3>'
        f"<p>{_origin(row)} · {row['width']:,} × {row['height']:,} px</p>"
        f"<p>{escape_text(row['licence'] or 'licence not stated', 120)}{' · ' if links else ''}{links}</p>"
        f"<p><code>{escape_text(row['key'])}</code></p></article>"
    )


def _origin(row: dict[str, Any]) -> str:
    return f"<b>{escape_text(row['source'], 40)}</b> {escape_text(row['file'], 80)} row {row['row']:,}"


def _image(data: bytes, alt: str) -> str:
    return f'<img src="data:image/webp;base64,{base64.b64encode(data).decode()}" alt="{alt}" width="256" height="256">'


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


# --- rejected rows ---------------------------------------------------------------------------------------------------


def rejected(page: Report) -> str:
    if not page.rejects:
        return "<p>None.</p>"
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in page.rejects:
        groups.setdefault((row["stage"], row["reason"]), []).append(row)
    blocks = []
    for stage in (stage.value for stage in Stage):
        items = "".join(
            f'<li id="{stage}-{escape_text(reason)}"><h4><i class="{stage}"></i>{escape_text(reason)}</h4>'
            f"<ul>{''.join(map(_rejected_row, rows))}</ul></li>"
            for (row_stage, reason), rows in groups.items()
            if row_stage == stage
        )
        if items:
            blocks.append(f'<h3>In {stage}</h3><ul class="rejects">{items}</ul>')
    whose = f" of {escape_text(page.rejects_source)}" if page.rejects_source else ""
    return f"<p>Up to {REJECTS_PER_REASON} rows{whose} for each reason.</p>{''.join(blocks)}"


def _rejected_row(row: dict[str, Any]) -> str:
    """URLs are not links here: some were rejected because of their target."""
    detail = f" <span>{escape_text(visible(row['detail']), 300)}</span>" if row["detail"] else ""
    url = f"<code>{escape_text(row['url'], 160)}</code>" if row["url"] else ""
    caption = f'<q dir="auto">{escape_text(visible(row["raw_caption"]), 300)}</q>' if row["raw_caption"] else ""
    return f"<li>{_origin(row)}{detail}{caption}{url}</li>"
