"""How likely a caption is nothing but boilerplate, by its words.

`boilerplate` knows phrases by their form, wherever they stand. Here a caption is judged as a whole, whatever the
wording: a logistic rule adds what each of its words, of its pairs of words beside or near each other, and of the
beginnings and endings of words says for or against. The weights are in `boilerplate_weights.txt`, fitted by
`python -m benchmarks.boilerplate --fit`."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from importlib import resources

MAX_LOG_ODDS = 0.4
"""Of a caption that is kept."""
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+|[^\w\s]|_")
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_WORD = re.compile(r"[^\W\d_]+")
MAX_DIGITS = 5
MAX_TOKENS = 20
BEGINNING, ENDING = 4, 3
"""Letters of longer words that count by themselves."""
BIAS, CAPITALS, LENGTH = "<bias>", "<capitals>", "<length>"
"""Features that are no words: always 1, the share of words behind the first with a capital, the number of tokens."""
START, END, YEAR = "<start>", "<end>", "<year>"


def log_odds(caption: str) -> float:
    """The logarithm of the odds for boilerplate; below 0 of a caption of unknown words."""
    weights = _weights()
    return sum(value * weights[feature] for feature, value in features(caption).items() if feature in weights)


def features(caption: str) -> dict[str, float]:
    """The words of a caption, their pairs and parts, as a vector of length 1, and the three features that are none."""
    tokens = _tokens(caption)
    sequence = (START, *tokens, END)
    long = [token for token in tokens if len(token) > BEGINNING and token[0].isalpha()]
    counts = Counter(
        [
            *tokens,
            *map(" ".join, itertools.pairwise(sequence)),
            *map(" _ ".join, zip(sequence, sequence[2:], strict=False)),
            *[f"{word[:BEGINNING]}~" for word in long],
            *[f"~{word[-ENDING:]}" for word in long],
        ]
    )
    length = math.hypot(*counts.values())
    words = _WORD.findall(caption)
    capitals = sum(word[0].isupper() for word in words[1:])
    return {
        **{feature: count / length for feature, count in counts.items()},
        BIAS: 1.0,
        CAPITALS: capitals / max(len(words), 1),
        LENGTH: min(len(tokens), MAX_TOKENS) / MAX_TOKENS,
    }


def _tokens(caption: str) -> list[str]:
    """Words in lower case, marks, and of numbers how many digits they have."""
    return [_number(token) if token[0].isdigit() else token.lower() for token in _TOKEN.findall(caption)]


def _number(token: str) -> str:
    return YEAR if _YEAR.fullmatch(token) else "0" * min(len(token), MAX_DIGITS)


@functools.cache
def _weights() -> dict[str, float]:
    lines = (resources.files("pipeline.text") / "boilerplate_weights.txt").read_text(encoding="utf-8").splitlines()
    return {feature: float(weight) for weight, feature in (line.split(" ", 1) for line in lines)}
