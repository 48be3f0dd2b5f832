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
from typing import NamedTuple

MAX_LOG_ODDS = 0.0
"""Of a caption that is kept."""
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+|[^\w\s]|_")
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
MAX_DIGITS = 5
MAX_TOKENS = 20
BEGINNING, ENDING = 4, 3
"""Letters of longer words that count by themselves."""
BIAS, CAPITALS, LENGTH = "<bias>", "<capitals>", "<length>"
"""Features that are no words: always 1, the share of words behind the first with a capital, the number of tokens."""
START, END, YEAR = "<start>", "<end>", "<year>"
_ZEROS = itertools.repeat(0.0)


def log_odds(caption: str) -> float:
    """The logarithm of the odds for boilerplate; below 0 of a caption of unknown words. That is the sum of `features`
    times their weights; to name them all would take longer than to add them."""
    rule, tokens = _rule(), _tokens(caption)
    sequence = (START, *[token.text for token in tokens], END)
    total = sum([token.weight for token in tokens])
    total += sum(map(rule.beside.get, itertools.pairwise(sequence), _ZEROS))
    total += sum(map(rule.near.get, zip(sequence, sequence[2:], strict=False), _ZEROS))
    number = sum([len(token.names) for token in tokens]) + 2 * len(tokens) + 1
    others = rule.words[BIAS] + rule.words[CAPITALS] * _capitals(tokens) + rule.words[LENGTH] * _length(tokens)
    return total / math.sqrt(number) + others


def features(caption: str) -> dict[str, float]:
    """How often a caption has each word, pair of words and part, over the root of how many it has in all; and the three
    features that are none."""
    tokens = _tokens(caption)
    sequence = (START, *[token.text for token in tokens], END)
    names = [name for token in tokens for name in token.names]
    names += map(" ".join, itertools.pairwise(sequence))
    names += map(" _ ".join, zip(sequence, sequence[2:], strict=False))
    counts = Counter(names)
    values = {name: count / math.sqrt(len(names)) for name, count in counts.items()}
    return {**values, BIAS: 1.0, CAPITALS: _capitals(tokens), LENGTH: _length(tokens)}


class _Token(NamedTuple):
    text: str  # a word in lower case, a mark, or a zero for each digit of a number
    names: tuple[str, ...]  # of its features
    weight: float  # of these together
    is_word: bool
    is_capital: bool


def _tokens(caption: str) -> list[_Token]:
    return list(map(_token, _TOKEN.findall(caption)))


@functools.lru_cache(maxsize=1 << 15)  # most words of most captions are few
def _token(token: str) -> _Token:
    text = _number(token) if token[0].isdigit() else token.lower()
    is_word = token[0].isalpha()
    names: tuple[str, ...] = (text,)
    if is_word and len(text) > BEGINNING:
        names = (text, f"{text[:BEGINNING]}~", f"~{text[-ENDING:]}")
    weight = sum(map(_rule().words.get, names, _ZEROS))
    return _Token(text=text, names=names, weight=weight, is_word=is_word, is_capital=token[0].isupper())


def _number(token: str) -> str:
    return YEAR if _YEAR.fullmatch(token) else "0" * min(len(token), MAX_DIGITS)


def _capitals(tokens: list[_Token]) -> float:
    """The share of words with a capital, but for the first word's."""
    words = [token.is_capital for token in tokens if token.is_word]
    return sum(words[1:]) / max(len(words), 1)


def _length(tokens: list[_Token]) -> float:
    return min(len(tokens), MAX_TOKENS) / MAX_TOKENS


class _Rule(NamedTuple):
    """Weights."""

    words: dict[str, float]  # and of their parts, and of the features that are none
    beside: dict[tuple[str, str], float]
    near: dict[tuple[str, str], float]


@functools.cache
def _rule() -> _Rule:
    rule = _Rule({}, {}, {})
    lines = (resources.files("pipeline.text") / "boilerplate_weights.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        weight, *names = line.split(" ")
        if len(names) == 1:
            rule.words[names[0]] = float(weight)
        else:
            pairs = rule.beside if len(names) == 2 else rule.near
            pairs[names[0], names[-1]] = float(weight)
    return rule
