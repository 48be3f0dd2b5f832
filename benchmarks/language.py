"""Errors and speed of the language detectors on captions whose language is known.

    python -m benchmarks.language captions.jsonl.gz              # the table, for every detector and spelling
    python -m benchmarks.language captions.jsonl.gz --fit        # the weights of `best`, from one half of the texts
    python -m benchmarks.language --made                         # captions of known kinds: see made_captions

The file has a line of JSON a text, with `lang` (a code, `en` for English) and `text`. False English is the mean over
the other languages, each with the same weight. Half of the texts, by a hash of the text, were used to fit `best`; the
column `held out` has recall and false English of the other half."""

from __future__ import annotations

import argparse
import collections
import gzip
import hashlib
import json
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.fresh_texts import read_texts
from benchmarks.made_captions import ENGLISH, made_captions
from pipeline.text import language
from pipeline.text.evidence import FEATURES, Rules

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "lower": str.lower,
    "Title": str.title,
    "file_name": lambda text: "_".join(text.split()) + ".jpg",
}
STEPS = {"plain": 1, "lower": 4, "Title": 4}
"""Of the texts in each spelling, one in how many is used to fit."""
SPELLING_WEIGHTS = {"plain": 1.0, "lower": 0.05, "Title": 0.4}
MADE_WEIGHT, FOREIGN_MADE_WEIGHT = 0.04, 0.08
WRITTEN_WEIGHTS = dict(wikipedia=0.3, products=0.25, names=0.3, places=0.4, plain=0.15, flickr=0.15, foreign=0.12)
"""How much each kind of captions weighs beside all English texts of the file: of those made of templates, and of those
written as a whole."""
FALSE_WEIGHT = 5.0
"""How much a false English weighs, beside a lost one."""
MAX_FALSE = 0.0024
"""The false English among the fitted texts of the file for which both biases are set: 0.4 % is to hold elsewhere."""
LOST_AT_ONCE, FALSE_AT_ONCE = 0.002, 0.0005
"""Shares of the English texts and of the others that the first rule may decide wrongly."""
PENALTY = 3e-4
MAX_STEPS, TOLERANCE = 30, 0.003
"""Of Newton's method."""
LINE_WIDTH = 111


FITTED = tuple(f"captions_{number}" for number in (*range(1, 11), 12))
JUDGED = ("captions_11", "captions_13")
KINDS = (*ENGLISH, "foreign")


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
        load_models(detector)
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


def print_made(detectors: Sequence[str]) -> None:
    """The share of captions of each kind that count as English: made of templates, and of those the half for judging;
    and of sets that were written later, each without a look at what the rules do with it."""
    columns = ("detector", "kind", "made", "English %", "held out", *FITTED, *JUDGED, "captions/s a core")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    fresh = [read_texts(name) for name in (*FITTED, *JUDGED)]
    for detector in detectors:
        load_models(detector)
        for kind in KINDS:
            captions = [caption for caption in made_captions() if caption.kind == kind]
            texts = [[caption.text for caption in captions]]
            texts += [[caption.text for caption in captions if caption.held_out]]
            texts += [of_kind.get(kind, []) for of_kind in fresh]
            begin = time.process_time()
            shares = [english_share(each, detector) for each in texts]
            speed = sum(map(len, texts)) / (time.process_time() - begin)
            print(f"| {detector} | {kind} | {len(captions):,} | {' | '.join(shares)} | {speed:,.0f} |", flush=True)


def english_share(texts: Sequence[str], detector: str) -> str:
    """The share of texts that count as English, in percent; "" of no texts."""
    return f"{100 * np.mean([language.is_english(text, detector) for text in texts]):.1f}" if texts else ""


def load_models(detector: str) -> None:
    """Asks for as many different captions as make a detector load all its models."""
    for caption in list(made_captions())[::20]:
        language.is_english(caption.text, detector)


class Rows(NamedTuple):
    """What the rules are fitted to: n texts that are left open before."""

    features: np.ndarray  # (n, k)
    is_english: np.ndarray  # (n,)
    weights: np.ndarray  # (n,)
    share: np.ndarray  # (n,), of the file's recall or false English that depends on the text; 0 if it isn't the file's


class Text(NamedTuple):
    text: str
    is_english: bool
    weight: float
    share: float = 0.0


def fit(samples: Sequence[Sample]) -> None:
    """Prints the constants of `pipeline.text.evidence`."""
    print_rules(fit_rules(rows_of(texts_to_fit(samples))))


def texts_to_fit(samples: Sequence[Sample]) -> Iterator[Text]:
    """Half of the file, some of it in two other spellings as well, with the same weight for English as for all other
    languages, and captions of known kinds."""
    known = [sample for sample in samples if not sample.held_out]
    counts = collections.Counter(sample.lang for sample in known)
    for spelling, step in STEPS.items():
        for sample in known[::step]:
            is_english = sample.lang == "en"
            share = 1 / counts[sample.lang] / (1 if is_english else len(counts) - 1)
            weight = share * step * SPELLING_WEIGHTS[spelling]
            yield Text(SPELLINGS[spelling](sample.text), is_english, weight, share if spelling == "plain" else 0.0)
    made: dict[str, list[str]] = collections.defaultdict(list)
    for caption in made_captions():
        made[caption.kind].append(caption.text)
    written: dict[str, list[str]] = collections.defaultdict(list)
    for name in FITTED:
        for kind, texts in read_texts(name).items():
            written[kind] += texts
    made_weights = {kind: FOREIGN_MADE_WEIGHT if kind == "foreign" else MADE_WEIGHT for kind in made}
    for by_kind, weights in ((made, made_weights), (written, WRITTEN_WEIGHTS)):
        for kind, weight in weights.items():
            yield from (Text(text, kind != "foreign", weight / len(by_kind[kind])) for text in by_kind[kind])


def rows_of(texts: Iterable[Text]) -> Rows:
    rows = []
    for text, is_english, weight, share in texts:
        reading = language.read(text)
        if isinstance(reading, language.Reading):
            features = language.first_features(reading) + language.second_features(reading)
            rows.append((features, is_english, weight, share))
    return Rows(*map(np.array, zip(*rows, strict=True)))


def fit_rules(rows: Rows) -> Rules:
    """Two rules, and where the first decides alone."""
    first_rows = rows._replace(features=rows.features[:, : len(FEATURES)])
    first, second = fit_rule(first_rows), fit_rule(rows)
    score = scores(first_rows, first)
    low = -score_of_share(-score, rows.share * rows.is_english, LOST_AT_ONCE)
    return Rules(tuple(first), tuple(second), low, score_of_share(score, rows.share * ~rows.is_english, FALSE_AT_ONCE))


def fit_rule(rows: Rows) -> np.ndarray:
    """[bias, a weight a feature], with the bias at which the file has MAX_FALSE false English."""
    rule = logistic(rows.features, rows.is_english, rows.weights * np.where(rows.is_english, 1, FALSE_WEIGHT) / 2)
    rule[0] -= score_of_share(scores(rows, rule), rows.share * ~rows.is_english, MAX_FALSE)
    return rule


def scores(rows: Rows, rule: np.ndarray) -> np.ndarray:
    return rule[0] + rows.features @ rule[1:]


def score_of_share(score: np.ndarray, share: np.ndarray, wanted: float) -> float:
    """The score above which the texts make up at most the share `wanted`. score, share (n,)."""
    order = np.argsort(-score)
    place = int(np.searchsorted(np.cumsum(share[order]), wanted, side="right"))
    return float(score[order][min(place, len(order) - 1)])


def print_rules(rules: Rules) -> None:
    print("RULES = Rules(")
    for rule in (rules.first, rules.second):
        weights = ", ".join(f"{weight:.2f}" for weight in rule)
        print(f"    (\n{textwrap.indent(textwrap.fill(weights, LINE_WIDTH), ' ' * 8)},\n    ),")
    print(f"    {rules.low:.1f},\n    {rules.high:.1f},\n)  # fmt: skip")


def logistic(features: np.ndarray, english: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[bias, a weight a feature] of a penalised logistic regression, by Newton's method. features (n, k); the weight of
    a feature that is everywhere the same is 0."""
    centre, scale = features.mean(0), features.std(0)
    differs = scale > 0
    scale[~differs] = 1
    x = np.concatenate([np.ones((len(features), 1)), (features - centre) / scale], 1)
    penalty = np.r_[0, np.full(features.shape[1], 2 * PENALTY)]
    rule = np.zeros(x.shape[1])
    for _ in range(MAX_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(x @ rule, -30, 30)))
        gradient = x.T @ (weights * (probability - english)) + penalty * rule
        hessian = (x * (weights * probability * (1 - probability))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        rule -= step
        if np.abs(step).max() < TOLERANCE:
            break
    slopes = rule[1:] / scale
    return np.r_[rule[0] - slopes @ centre, slopes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", nargs="?", help="a .jsonl.gz file with lang and text")
    parser.add_argument("--made", action="store_true", help="measure captions made of templates instead")
    parser.add_argument("--fit", action="store_true", help="print the weights of `best` instead of the table")
    parser.add_argument("--detectors", default=",".join(language.DETECTORS), help="comma-separated, all by default")
    arguments = parser.parse_args()
    if arguments.made:
        print_made(arguments.detectors.split(","))
        return
    if not arguments.captions:
        parser.error("name the file of captions, or give --made")
    samples = read_samples(arguments.captions)
    if arguments.fit:
        fit(samples)
    else:
        print_table(samples, arguments.detectors.split(","))


if __name__ == "__main__":
    main()
