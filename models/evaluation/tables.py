"""A report of `pairmill evaluate` as tables for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.text_table import table

# Name in the report: name, unit and direction in the table.
MEASURES = {
    "clip_score": "CLIP score (more is better)",
    "fid": "FID (less is better)",
    "clip_fid": "CLIP-FID (less is better)",
    "psnr": "PSNR, dB (more is better)",
    "ssim": "SSIM (more is better)",
    "lpips": "LPIPS (less is better)",
    "rfid": "rFID (less is better)",
    "clip_rfid": "CLIP-rFID (less is better)",
    "codes_used": "codes used",
    "perplexity": "perplexity of the codes",
}
DIRECTIONS = {"captions_by_image": "captions by image", "images_by_caption": "images by caption"}


def report_tables(report: Mapping[str, Any]) -> str:
    """The tables of all parts, with an empty line between them."""
    parts = {"loss": _loss, "samples": _samples, "reconstruction": _reconstruction}
    return "\n\n".join(of(report[name]) for name, of in parts.items() if name in report)


def _loss(loss: Mapping[str, Any]) -> str:
    rows = {f"{loss['dataset']}: {loss['split']}": loss} | loss["by_source"]
    columns = ("total", "text", "image")
    cells = ((name, row["pairs"], *(_number(row[column]) for column in columns)) for name, row in rows.items())
    return table(["loss, nats a token", "pairs", *columns], cells)


def _samples(samples: Mapping[str, Any]) -> str:
    header = [f"{samples['images']:,} images", "sampled", "split"]
    if "sampled" not in samples:
        return table(header[:2], _named(samples))
    both = [samples["sampled"], samples["split"]]
    rows: list[tuple[Any, ...]] = [
        (MEASURES["clip_score"], *(_number(each["clip_score"]) for each in both)),
        *(
            (f"{text}, {name}", *(_number(each[direction][name]) for each in both))
            for direction, text in DIRECTIONS.items()
            for name in both[0][direction]
        ),
        *((name, value, "") for name, value in _named(samples)),
    ]
    return table(header, rows)


def _reconstruction(found: Mapping[str, Any]) -> str:
    return table([f"{found['images']:,} images", found["image_tokenizer"]["spec"]], _named(found))


def _named(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(text, _number(values[name])) for name, text in MEASURES.items() if name in values]


def _number(value: float | None) -> float | int | str:
    """As a table has it; "-" for what is unknown."""
    if value is None:
        return "-"
    return value if isinstance(value, int) else round(value, 4)
