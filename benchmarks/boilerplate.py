"""Phrases that are boilerplate, and captions that only resemble it: what `select` keeps of each kind.

    python -m benchmarks.boilerplate            # the table
    python -m benchmarks.boilerplate --show     # and what it gets wrong
    python -m benchmarks.boilerplate --tails    # what --cut-tails does to such phrases behind real captions
    python -m benchmarks.boilerplate --captions captions.jsonl.gz   # how many of other captions are lost
    python -m benchmarks.boilerplate --fit captions.jsonl.gz ...    # writes the weights of `boilerplate_odds`

A phrase counts as kept if all checks of captions pass it; a caption is lost if it is rejected as boilerplate. The texts
are those of `texts/boilerplate_*.txt`, all made up; of the sets to judge by, those that no fitted set has. The files of
captions have a line of JSON each, with `lang` and `text`, or with `captions` of these; their English ones count as
real. Half of them, by a hash of the text, are for fitting."""

from __future__ import annotations

import argparse
import collections
import functools
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from benchmarks.fresh_texts import read_texts
from models.files import write_atomically
from pipeline.filters import SelectConfig, count_words, filter_candidate
from pipeline.records import Candidate, Pair, Reason
from pipeline.text import boilerplate_odds
from pipeline.text.boilerplate import without_tail
from pipeline.text.boilerplate_odds import BIAS, CAPITALS, LENGTH, features

REAL = "real"
FITTED = ("patterns", "later", "phrases", *map(str, range(1, 18)))
JUDGED = ("18", "19")
MIN_WORDS = SelectConfig().min_words
CAPTIONS = tuple(f"captions_{number}" for number in range(1, 13))
"""Of these sets the English captions are fitted to as well."""
MARKS = (". ", ", ", " - ", " | ", " ", "; ", " (")
MIXED_EVERY, MIN_MIXED, MAX_PHRASE = 2, 4, 8
"""Every second real caption of so many words is fitted to with a phrase beside it as well: it stays a real one."""
STEP = 7919
"""From one caption's phrase to the next one's: a prime, so that all phrases take their turn."""
MIN_TEXTS = 2
"""In so many texts a feature occurs that has a weight."""
PENALTY, MIN_WEIGHT = 0.03, 0.5
"""Of the squares of the weights; what a weight has at least."""


def boilerplate_texts(name: str) -> dict[str, list[str]]:
    """The texts of a set by kind: phrases, and under REAL captions that only resemble them."""
    return read_texts(f"boilerplate_{name}")


def unseen_texts(name: str) -> dict[str, list[str]]:
    """The texts of a set that no fitted set has as well: "Read more" comes to every writer's mind."""
    seen = _fitted_texts()
    return {
        kind: [text for text in texts if text.casefold() not in seen] for kind, texts in boilerplate_texts(name).items()
    }


@functools.cache
def _fitted_texts() -> frozenset[str]:
    return frozenset(text.casefold() for name in FITTED for texts in boilerplate_texts(name).values() for text in texts)


def is_kept(text: str) -> bool:
    """Whether a row with this caption becomes a pair."""
    return reason_against(text) is None


def is_lost(text: str) -> bool:
    """Whether a row with this caption is rejected as boilerplate."""
    return reason_against(text) == Reason.BOILERPLATE


def reason_against(text: str) -> str | None:
    row = Candidate("cc12m", "f", 0, "http://a.example/a.jpg", (), text, None, None, "", "", "")
    result = filter_candidate(row, SelectConfig())
    return None if isinstance(result, Pair) else result.reason


def print_table(show: bool) -> None:
    names = (*FITTED, *JUDGED)
    sets = [*map(boilerplate_texts, FITTED), *map(unseen_texts, JUDGED)]
    print(f"| kind | {' | '.join(names)} |\n|---{'|--:' * len(names)}|")
    wrong: list[tuple[str, str]] = []
    for kind in sets[0]:
        cells = []
        for texts in (each.get(kind, []) for each in sets):
            found = list(filter(is_lost if kind == REAL else is_kept, texts))
            cells.append(f"{len(found)} of {len(texts)}" if texts else "")
            wrong += [(kind, text) for text in found]
        print(f"| {'real captions lost' if kind == REAL else kind} | {' | '.join(cells)} |", flush=True)
    for kind, text in wrong if show else ():
        print(f"{kind}: {text}")


def print_mixed() -> None:
    """How many real captions are lost with a phrase beside them, of the sets that nothing is fitted to."""
    sets = list(map(unseen_texts, JUDGED))
    phrases = [text for texts in sets for kind in texts if kind != REAL for text in texts[kind]]
    captions = mixed([text for texts in sets for text in texts[REAL]], phrases)
    lost = sum(map(is_lost, captions))
    print(f"\nreal captions of {', '.join(JUDGED)} with a phrase beside them, lost: {lost} of {len(captions):,}")


def print_lost(paths: Iterable[str], show: bool) -> None:
    """How many captions are lost of those that are long enough to be kept, of each file."""
    for path in paths:
        held_out = [text for text in read_captions([path]) if is_held_out(text) and count_words(text) >= MIN_WORDS]
        lost = list(filter(is_lost, held_out))
        print(f"{path}: {len(lost)} of {len(held_out):,} lost, {share(len(lost), len(held_out)):.2f} %")
        for text in lost if show else ():
            print(text)


def print_tails() -> None:
    """The shares of captions with a phrase behind them that are cut exactly, left alone, and cut elsewhere."""
    texts = boilerplate_texts("patterns")
    captions = texts.pop(REAL) + boilerplate_texts("later")[REAL]
    changed = sum(without_tail(caption) != caption for caption in captions)
    print(f"real captions changed: {changed} of {len(captions)}\n")
    print("| kind | captions | cut exactly % | left % | cut elsewhere % |\n|---|--:|--:|--:|--:|")
    for kind, phrases in texts.items():
        results = collections.Counter(
            _cut(captions[(7 * number + len(mark)) % len(captions)], mark, phrase)
            for number, phrase in enumerate(phrases)
            for mark in (". ", " | ", " - ", ", ")
        )
        total = results.total()
        shares = " | ".join(f"{share(results[result], total):.1f}" for result in ("exactly", "left", "elsewhere"))
        print(f"| {kind} | {total} | {shares} |")


def _cut(caption: str, mark: str, phrase: str) -> str:
    text = without_tail(caption + mark + phrase)
    if text.rstrip(".") == caption.rstrip("."):
        return "exactly"
    return "left" if text == caption + mark + phrase else "elsewhere"


def share(number: int, total: int) -> float:
    return 100 * number / total


def read_captions(paths: Iterable[str]) -> Iterator[str]:
    """The English captions of files."""
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                yield from (each["text"] for each in row.get("captions", [row]) if each["lang"] == "en")


def is_held_out(text: str) -> bool:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()[0] % 2 == 1


class Examples(NamedTuple):
    """Texts, and whether each is boilerplate: n of both."""

    texts: list[str]
    is_boilerplate: np.ndarray


def examples(captions: Iterable[str]) -> Examples:
    sets = [boilerplate_texts(name) for name in FITTED]
    phrases = [text for texts in sets for kind in texts if kind != REAL for text in texts[kind]]
    real = [text for texts in sets for text in texts[REAL]]
    for texts in map(read_texts, CAPTIONS):
        real += [text for kind in texts if kind != "foreign" for text in texts[kind]]
    real += [text for text in captions if not is_held_out(text)]
    real += mixed(real[::MIXED_EVERY], phrases)
    return Examples(phrases + real, np.repeat([True, False], [len(phrases), len(real)]))


def mixed(captions: Sequence[str], phrases: Sequence[str]) -> list[str]:
    """Captions with a phrase behind them, of four one with it in front."""
    short = [phrase for phrase in phrases if len(phrase.split()) <= MAX_PHRASE]
    found = []
    for number, caption in enumerate(captions):
        phrase, mark = short[STEP * number % len(short)], MARKS[number % len(MARKS)]
        if len(caption.split()) >= MIN_MIXED:
            found.append(f"{caption.rstrip('.')}{mark}{phrase}" if number % 4 else f"{phrase}. {caption}")
    return found


def fit(known: Examples) -> dict[str, float]:
    """The weights of a penalised logistic regression, without the small ones."""
    vectors = list(map(features, known.texts))
    counts = collections.Counter(feature for vector in vectors for feature in vector)
    names = sorted(feature for feature, count in counts.items() if count >= MIN_TEXTS)
    places = {name: place for place, name in enumerate(names)}
    rows, columns, values = zip(
        *(
            (row, places[feature], value)
            for row, vector in enumerate(vectors)
            for feature, value in vector.items()
            if feature in places
        ),
        strict=True,
    )
    x = csr_matrix((values, (rows, columns)), shape=(len(vectors), len(names)))
    signs = np.where(known.is_boilerplate, 1.0, -1.0)
    penalty = np.where(np.array(names) == BIAS, 0.0, PENALTY)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (x @ weights)
        value = np.logaddexp(0, -margins).sum() + penalty @ weights**2 / 2
        return value, x.T @ (-signs / (1 + np.exp(margins))) + penalty * weights

    found = minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    weights = dict(zip(names, found, strict=True))
    always = (BIAS, CAPITALS, LENGTH)
    return {name: weight for name, weight in weights.items() if abs(weight) >= MIN_WEIGHT or name in always}


def write_weights(weights: dict[str, float]) -> None:
    path = Path(boilerplate_odds.__file__).parent / "boilerplate_weights.txt"
    write_atomically(path, "".join(f"{weight:.1f} {name}\n" for name, weight in weights.items()).encode())
    print(f"{len(weights):,} weights in {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the texts that come out wrong")
    parser.add_argument("--tails", action="store_true", help="measure `--cut-tails` instead")
    parser.add_argument("--captions", nargs="+", metavar="FILE", help="measure how many of these are lost instead")
    parser.add_argument("--fit", nargs="+", metavar="FILE", help="fit the weights to captions of these files as well")
    arguments = parser.parse_args()
    if arguments.fit:
        write_weights(fit(examples(read_captions(arguments.fit))))
    elif arguments.captions:
        print_lost(arguments.captions, arguments.show)
    elif arguments.tails:
        print_tails()
    else:
        print_table(arguments.show)
        print_mixed()


if __name__ == "__main__":
    main()
