"""Errors and speed of the language detectors on captions whose language is known.

    python -m benchmarks.language captions.jsonl.gz              # the table, for every detector and spelling
    python -m benchmarks.language captions.jsonl.gz --fit        # the weights of `best`, from one half of the texts

The file has a line of JSON a text, with `lang` (a code, `en` for English) and `text`. False English is the mean over
the other languages, each with the same weight. Half of the texts, by a hash of the text, were used to fit `best`; the
column `held out` has recall and false English of the other half."""

from __future__ import annotations

import argparse
import collections
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.text import language

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "lower": str.lower,
    "Title": str.title,
    "file_name": lambda text: "_".join(text.split()) + ".jpg",
}
FIT_RECALL = 0.984
LOST_AT_ONCE, FALSE_AT_ONCE = 0.002, 0.0002
"""Shares of the English texts and of the others that the first rule may decide wrongly."""
FALSE_WEIGHT, PENALTY = 8.0, 1e-3


class Sample(NamedTuple):
    lang: str
    text: str
    held_out: bool


def read_samples(path: str) -> list[Sample]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = map(json.loads, file)
        return [Sample(row["lang"], row["text"], is_held_out(row["text"])) for row in rows]


def is_held_out(text: str) -> bool:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()[0] % 2 == 1


def rates(samples: Iterable[Sample], answers: Iterable[bool]) -> tuple[float, float, list[tuple[str, float]]]:
    """Recall, mean false-English, and the five worst languages, in percent."""
    by_language = collections.defaultdict(list)
    for sample, answer in zip(samples, answers, strict=True):
        by_language[sample.lang].append(answer)
    shares = {lang: 100 * sum(answers) / len(answers) for lang, answers in by_language.items()}
    recall = shares.pop("en")
    worst = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:5]
    return recall, sum(shares.values()) / len(shares), worst


def print_table(samples: Sequence[Sample], detectors: Sequence[str]) -> None:
    held_out = [index for index, sample in enumerate(samples) if sample.held_out]
    columns = ("detector", "spelling", "recall %", "false English %", "held out", "captions/s a core", "worst five, %")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for detector in detectors:
        language.is_english("load the model first", detector)
        for spelling, spell in SPELLINGS.items():
            texts = [spell(sample.text) for sample in samples]
            begin = time.process_time()
            answers = [language.is_english(text, detector) for text in texts]
            speed = len(texts) / (time.process_time() - begin)
            recall, wrong, worst = rates(samples, answers)
            half = rates([samples[index] for index in held_out], [answers[index] for index in held_out])
            names = ", ".join(f"{lang} {share:.1f}" for lang, share in worst)
            errors = f"{recall:.1f} | {wrong:.2f} | {half[0]:.1f} / {half[1]:.2f}"
            print(f"| {detector} | {spelling} | {errors} | {speed:,.0f} | {names} |", flush=True)


def fit(samples: Sequence[Sample]) -> None:
    """Prints the constants of `pipeline.language`."""
    known = [sample for sample in samples if not sample.held_out]
    counts = collections.Counter(sample.lang for sample in known)
    share = {lang: 1 / count / (1 if lang == "en" else len(counts) - 1) for lang, count in counts.items()}
    rows, english, weights, plain = [], [], [], []
    for spelling in ("plain", "lower"):
        for sample in known:
            text = language.normalised(SPELLINGS[spelling](sample.text))
            if language.mostly_latin(text):
                first = language.first_features(text, language.english_words(text))
                rows.append(first + language.second_features(text))
                english.append(sample.lang == "en")
                weights.append(share[sample.lang])
                plain.append(spelling == "plain")
    x, y, w, chosen = np.array(rows), np.array(english), np.array(weights), np.array(plain)
    first_count = len(first)
    rule_1, rule_2 = logistic(x[:, :first_count], y, w), logistic(x, y, w)
    x, y, w = x[chosen], y[chosen], w[chosen]
    score_1, score_2 = rule_1[0] + x[:, :first_count] @ rule_1[1:], rule_2[0] + x @ rule_2[1:]
    low = np.quantile(score_1[y], LOST_AT_ONCE)
    order = np.argsort(-score_1[~y])
    high = score_1[~y][order][np.searchsorted(np.cumsum(w[~y][order]), FALSE_AT_ONCE)]
    combined = np.where(score_1 >= high, np.inf, np.where(score_1 <= low, -np.inf, score_2))
    rule_2[0] -= np.quantile(combined[y], 1 - FIT_RECALL)
    for name, rule in (("FIRST", rule_1), ("SECOND", rule_2)):
        print(f"{name} = ({', '.join(f'{weight:.2f}' for weight in rule)})")
    print(f"FIRST_LOW, FIRST_HIGH = {low:.1f}, {high:.1f}")


def logistic(features: np.ndarray, english: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[bias, a weight a feature] of a penalised logistic regression, by Newton's method. features (n, k)."""
    centre, scale = features.mean(0), features.std(0)
    x = np.concatenate([np.ones((len(features), 1)), (features - centre) / scale], 1)
    weights = weights * np.where(english, 1, FALSE_WEIGHT) / 2  # each text is there in two spellings
    penalty = np.r_[0, np.full(features.shape[1], 2 * PENALTY)]
    rule = np.zeros(x.shape[1])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-np.clip(x @ rule, -30, 30)))
        gradient = x.T @ (weights * (probability - english)) + penalty * rule
        hessian = (x * (weights * probability * (1 - probability))[:, None]).T @ x + np.diag(penalty)
        rule -= np.linalg.solve(hessian, gradient)
    slopes = rule[1:] / scale
    return np.r_[rule[0] - slopes @ centre, slopes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", help="a .jsonl.gz file with lang and text")
    parser.add_argument("--fit", action="store_true", help="print the weights of `best` instead of the table")
    parser.add_argument("--detectors", default=",".join(language.DETECTORS), help="comma-separated, all by default")
    arguments = parser.parse_args()
    samples = read_samples(arguments.captions)
    if arguments.fit:
        fit(samples)
    else:
        print_table(samples, arguments.detectors.split(","))


if __name__ == "__main__":
    main()
