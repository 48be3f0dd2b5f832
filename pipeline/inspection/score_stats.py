"""The scores of `pairmill score` and `pairmill cluster`, as numbers and as a table."""

from __future__ import annotations

from typing import Any

from models.text_table import table
from pipeline.scores.distribution import distribution, read_numbers, short
from pipeline.scores.score_files import open_scores

SHOWN = ("min", "p5", "median", "p95", "max")


def score_stats(folder: str) -> dict[str, Any]:
    """Quantiles and a histogram of each score. Holds the numbers of one score at a time, 4 bytes a pair."""
    scores = open_scores(folder)
    return {name: distribution(read_numbers(scores, name)).to_json() for name in scores.names}


def score_table(stats: dict[str, Any]) -> str:
    rows = [
        (name, each["pairs"] - each["missing"], *(_shown(each["quantiles"].get(quantile)) for quantile in SHOWN))
        for name, each in stats.items()
    ]
    return table(["score", "pairs", *SHOWN], rows)


def _shown(value: float | None) -> str:
    return "" if value is None else short(value)
