"""Logistic rules of the detector `best`: what they look at, and their weights.

A caption of names ("Emma Hansen in Kraków", see `frames.is_of_names`) has rules of its own. Of each pair of rules the
first goes without py3langid and cld3, which take most of the time.

Fitted by `python -m benchmarks.language FILE --fit`."""

from __future__ import annotations

import operator
from typing import NamedTuple

from pipeline.text.frames import Frame, count_kinds

FEATURES = (
    # of the text: fastText's odds; shares of words that only English has, or English among others; letters
    "fasttext", "function_words", "shared_function_words", "accents", "other_scripts", "length",
    # shares of its words in the lists of `frames`, all in lower case
    "english", "foreign", "shared", "unknown",
    # of its frame
    "strong", "semi", "ambiguous", "small", "capitals", "only_names", "foreign_small", "foreign_capitals", "particles",
    "conjunctions", "unknown_small", "species", "year", "given", "places", "begins_english", "titled",
)  # fmt: skip
DETECTOR_FEATURES = ("py3langid", "cld3_english", "cld3_other")


class Rules(NamedTuple):
    """Two rules, each a bias and then a weight for each feature."""

    first: tuple[float, ...]  # of FEATURES
    second: tuple[float, ...]  # of FEATURES and DETECTOR_FEATURES
    low: float  # below it, and above `high`, the first rule alone decides
    high: float


RUNNING_TEXT = Rules(
    (
        -3.07, 0.41, 6.75, -0.41, -1.18, -0.48, 1.15, 4.04, -6.09, 2.32, -2.91, 0.35, 1.63, 1.98, 3.07, -0.46,
        -4.90, -1.87, -0.53, -1.38, -0.06, -0.35, -1.97, 0.04, -1.99, 0.21, -0.57, 0.00,
    ),
    (
        -1.00, 0.27, 5.34, 0.31, -0.79, -0.93, 0.83, 2.37, -4.06, 1.90, -1.86, -0.22, 1.22, 1.62, 1.88, -0.56,
        -2.98, -2.75, -0.78, -0.83, -1.10, -0.36, -1.52, -0.21, -1.78, 0.40, -0.48, 0.00, 0.51, 0.76, -1.36,
    ),
    -2.1,
    1.0,
)  # fmt: skip
NAMES = Rules(
    (
        -2.63, 0.30, 5.44, -0.60, -0.49, -0.70, 0.59, 8.04, -3.75, 2.34, -1.76, -3.46, 0.96, 1.78, 1.50, 0.07,
        0.13, 0.00, -1.26, -1.37, -2.63, 0.00, -0.63, 0.38, 0.78, 0.08, -1.11, -0.49,
    ),
    (
        -0.92, 0.21, 4.79, -0.49, 0.01, -0.51, 0.43, 5.06, -3.08, 1.59, -0.80, -1.74, 0.07, 1.41, 3.61, -0.17,
        -0.18, 0.00, -0.93, -1.00, -3.56, 0.00, -0.54, -0.02, 0.84, 0.10, -0.77, -0.31, 0.42, 1.26, -1.00,
    ),
    -2.4,
    2.2,
)  # fmt: skip


def logit(features: tuple[float, ...], rule: tuple[float, ...]) -> float:
    """The logarithm of the odds for English."""
    return rule[0] + sum(map(operator.mul, features, rule[1:]))


def word_features(words: list[str]) -> tuple[float, ...]:
    """Shares of English, foreign, shared and unknown words. words: in lower case."""
    total = len(words) or 1
    english, foreign, shared = count_kinds(words)
    return english / total, foreign / total, shared / total, (total - english - foreign - shared) / total


def frame_features(frame: Frame) -> tuple[float, ...]:
    """Counts, each up to a maximum: a further word of a kind says less than the first."""
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
    )
