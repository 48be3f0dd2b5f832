"""Logistic rules of the detector `best`: what they look at, and their weights.

There are two rules: the first goes without py3langid, which takes most of the time.

Fitted by `python -m benchmarks.language FILE --fit`."""

from __future__ import annotations

import operator
from typing import NamedTuple, Optional

from pipeline.text import word_odds
from pipeline.text.frames import Frame, count_kinds, is_of_names

FEATURES = (
    # of the text: fastText's odds; shares of words that only English has, or English among others; letters
    "fasttext", "function_words", "shared_function_words", "accents", "other_scripts", "length",
    # shares of its words in the lists of `frames`, all in lower case
    "english", "foreign", "shared", "unknown",
    # of its frame
    "strong", "semi", "ambiguous", "small", "capitals", "only_names", "foreign_small", "foreign_capitals", "particles",
    "conjunctions", "unknown_small", "species", "year", "given", "places", "begins_english", "titled",
    # what the frame says by itself: `frames.judge`, `frames.is_of_names`
    "judged_english", "judged_foreign", "of_names",
    # how much each of its words speaks for English
    *word_odds.FEATURES,
)  # fmt: skip
DETECTOR_FEATURES = ("py3langid",)


class Rules(NamedTuple):
    """Two rules, each a bias and then a weight for each feature."""

    first: tuple[float, ...]  # of FEATURES
    second: tuple[float, ...]  # of FEATURES and DETECTOR_FEATURES
    low: float  # below it, and above `high`, the first rule alone decides
    high: float


RULES = Rules(
    (
        0.22, 0.13, 4.54, -1.22, 0.23, -1.81, -0.44, 2.75, -1.46, -1.58, -0.32, 1.85, 1.61, 0.48, 1.00, -0.27, -0.19,
        -1.82, -0.77, -0.69, -4.65, -0.56, -2.62, -0.17, 0.84, 0.60, -0.60, 0.28, 1.26, -0.68, 1.33, 0.62, 0.27, 0.32,
        0.50, -0.15, 0.52, -0.13, 0.15, -2.19, -3.91, -0.27, -0.48, -0.74, 0.29, 0.25, -0.40, -0.43, 0.70, 4.97, -0.89,
        2.84, -0.00, -0.67, -1.49,
    ),
    (
        0.96, 0.10, 4.22, -1.18, 0.70, -1.95, -0.16, 2.54, -1.30, -1.83, -0.11, 1.76, 1.35, 0.44, 0.34, -0.44, -0.07,
        -1.74, -0.66, -0.54, -5.09, -0.61, -2.38, -0.33, 0.75, 0.53, -0.54, 0.38, 1.32, -0.82, 1.13, 0.49, 0.21, 0.16,
        0.42, -0.13, 0.52, -0.14, 0.19, -2.29, -4.03, -0.32, -0.44, -0.89, 0.32, 0.32, -0.28, -0.22, 0.65, 3.71, -0.83,
        2.66, -0.03, -0.29, -1.98, 0.34,
    ),
    -2.0,
    2.9,
)  # fmt: skip


def logit(features: tuple[float, ...], rule: tuple[float, ...]) -> float:
    """The logarithm of the odds for English."""
    return rule[0] + sum(map(operator.mul, features, rule[1:]))


def word_features(words: list[str]) -> tuple[float, ...]:
    """Shares of English, foreign, shared and unknown words. words: in lower case."""
    total = len(words) or 1
    english, foreign, shared = count_kinds(words)
    return english / total, foreign / total, shared / total, (total - english - foreign - shared) / total


def frame_features(frame: Frame, judged: Optional[bool]) -> tuple[float, ...]:
    """Counts, each up to a maximum: a further word of a kind says less than the first. judged: by `frames.judge`."""
    total = frame.words or 1
    return (
        min(frame.strong, 2),
        min(frame.semi, 2),
        min(frame.ambiguous, 1),
        (frame.english + frame.strong + frame.semi) / total,
        min(frame.english_capitals, 3),
        float(frame.names == frame.words),
        min(frame.foreign, 3),
        min(frame.foreign_capitals, 2),
        min(frame.particles, 3),
        min(frame.conjunctions, 1),
        min(frame.unknown, 3),
        min(frame.species, 1),
        float(frame.has_year),
        min(frame.given, 2),
        min(frame.places, 1),
        float(frame.begins_english),
        min(frame.titled, 3),
        float(judged is True),
        float(judged is False),
        float(is_of_names(frame)),
    )
