"""Logistic rules of the detector `best`: their features and their weights.

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
    # by the frame alone: `frames.is_english_by_frame`, `frames.is_of_names`
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
        -0.23, 0.11, 3.58, -1.98, 0.05, -2.59, -0.55, 2.60, -0.52, -1.65, -0.40, 2.67, 2.19, 1.30, -0.04, -0.71, -0.61,
        -1.89, -1.32, 0.02, -6.16, -0.76, -2.84, -0.06, -0.19, -0.35, -0.24, 0.95, 1.22, -0.25, 0.80, 0.78, 0.42, 0.46,
        0.73, -0.17, 0.63, -0.38, 0.23, 0.38, -4.30, -0.79, -0.65, 0.19, 0.26, 0.17, -0.44, -0.07, -2.91, 2.79, 0.09,
        2.47, 0.03, -1.31, -0.56, -0.89, 6.75, 0.25, 2.46, 2.25, 2.75, 2.78, 4.82, 0.22, 5.65, 4.64, 6.09, 3.15, 0.13,
        3.02, 2.22, 1.14, 4.84, 1.61, 0.63, 1.19,
    ),
    (
        0.25, 0.09, 3.22, -2.03, 0.50, -2.79, -0.36, 2.58, -0.33, -1.88, -0.33, 2.52, 1.87, 1.30, -0.56, -0.86, -0.47,
        -1.71, -1.11, 0.24, -6.82, -0.74, -2.68, -0.01, -0.36, -0.39, -0.21, 1.04, 1.31, -0.46, 0.63, 0.62, 0.36, 0.31,
        0.63, -0.12, 0.64, -0.36, 0.26, 0.29, -4.14, -0.73, -0.60, 0.28, 0.27, 0.22, -0.37, 0.04, -3.31, 1.92, 0.06,
        2.32, 0.05, -1.31, -0.61, -0.88, 5.89, 0.29, 2.37, 2.10, 3.09, 2.75, 4.52, 0.32, 4.99, 4.45, 6.07, 2.97, 0.32,
        3.14, 1.97, 1.41, 4.69, 1.28, 0.73, 1.15, 0.30,
    ),
    -2.2,
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


def frame_features(frame: Frame, by_frame: Optional[bool]) -> tuple[float, ...]:
    """Counts, each up to a maximum: a further word of a kind is less evidence than the first. by_frame: see
    `frames.is_english_by_frame`."""
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
        float(by_frame is True),
        float(by_frame is False),
        float(is_of_names(frame)),
    )
