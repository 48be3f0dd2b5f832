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
        -0.67, 0.12, 3.87, -1.76, 0.11, -2.59, -0.69, 2.64, -0.69, -1.68, -0.36, 2.50, 2.22, 1.18, 0.07, -0.77, -0.78,
        -1.89, -1.28, -0.00, -6.48, -0.73, -2.99, -0.22, -0.17, -0.36, -0.28, 0.98, 1.31, -0.27, 0.94, 0.83, 0.39,
        0.54, 0.70, -0.20, 0.62, -0.41, 0.21, 1.10, -3.41, -0.69, -0.63, 0.37, 0.28, 0.17, -0.62, -0.29, -3.09, 2.98,
        0.11, 2.42, 0.05, -1.49, -0.90, -0.93, 6.58, 2.09, 2.62, 2.41, 3.07, 2.99, 5.06, 0.26, 5.54, 4.44, 6.25, 3.02,
        1.94, 0.99, 4.80, 1.41, 0.65, 1.09,
    ),
    (
        0.27, 0.10, 3.49, -1.82, 0.58, -2.83, -0.46, 2.61, -0.49, -1.93, -0.27, 2.33, 1.88, 1.19, -0.45, -0.92, -0.63,
        -1.75, -1.07, 0.25, -7.30, -0.73, -2.81, -0.22, -0.34, -0.40, -0.25, 1.07, 1.41, -0.52, 0.68, 0.66, 0.32, 0.37,
        0.60, -0.17, 0.63, -0.39, 0.25, 0.94, -3.37, -0.66, -0.58, 0.41, 0.29, 0.24, -0.53, -0.13, -3.42, 1.92, 0.05,
        2.25, 0.07, -1.48, -0.93, -0.92, 5.75, 2.01, 2.53, 2.25, 3.43, 2.95, 4.76, 0.37, 4.87, 4.27, 6.24, 2.87, 2.16,
        1.28, 4.61, 1.09, 0.77, 1.07, 0.32,
    ),
    -2.5,
    1.8,
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
