"""Logistic rules of the detector `best`: what they look at, and their weights.

There are two rules: the first goes without py3langid, which takes most of the time.

Fitted by `python -m benchmarks.language FILE --fit`."""

from __future__ import annotations

import operator
from typing import NamedTuple, Optional

from pipeline.text import known_names, word_odds
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
    # which names are known
    *known_names.FEATURES,
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
        -0.34, 0.12, 3.84, -1.81, 0.08, -2.59, -0.77, 2.49, -0.58, -1.59, -0.35, 2.67, 2.22, 1.25, 0.07, -0.69, -0.70,
        -1.92, -1.29, 0.00, -6.03, -0.72, -2.89, 0.04, -0.13, -0.33, -0.27, 0.95, 1.22, -0.09, 1.01, 0.81, 0.39, 0.51,
        0.69, -0.17, 0.64, -0.40, 0.22, 1.11, -3.45, -0.68, -0.62, 0.47, 0.27, 0.16, -0.66, -0.28, -3.32, 2.81, 0.12,
        2.50, 0.04, -1.63, -0.50, -0.87, 6.49, 2.05, 2.57, 2.31, 2.85, 2.84, 4.88, 0.24, 5.67, 4.54, 6.13, 3.15, 2.03,
        1.16, 4.93, 1.41, 0.58, 1.18,
    ),
    (
        0.25, 0.10, 3.44, -1.90, 0.53, -2.81, -0.53, 2.44, -0.38, -1.83, -0.27, 2.52, 1.89, 1.25, -0.44, -0.83, -0.56,
        -1.75, -1.09, 0.25, -6.77, -0.71, -2.71, 0.08, -0.30, -0.36, -0.24, 1.05, 1.31, -0.33, 0.77, 0.64, 0.33, 0.35,
        0.59, -0.13, 0.65, -0.39, 0.26, 0.96, -3.41, -0.65, -0.56, 0.51, 0.29, 0.22, -0.57, -0.13, -3.65, 1.75, 0.07,
        2.34, 0.06, -1.62, -0.54, -0.87, 5.63, 1.98, 2.48, 2.15, 3.18, 2.81, 4.59, 0.35, 5.01, 4.38, 6.10, 3.00, 2.24,
        1.44, 4.73, 1.11, 0.70, 1.14, 0.31,
    ),
    -2.3,
    2.0,
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
