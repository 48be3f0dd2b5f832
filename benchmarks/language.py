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
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.fresh_texts import read_texts
from benchmarks.made_captions import ENGLISH, made_captions
from pipeline.text import language
from pipeline.text.evidence import FEATURES, Rules
from pipeline.text.frames import frame_of, is_of_names, judge

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "lower": str.lower,
    "Title": str.title,
    "file_name": lambda text: "_".join(text.split()) + ".jpg",
}
FITS = {"RUNNING_TEXT": (8.0, 0.01, 0.2), "NAMES": (2.0, 0.05, -0.8)}
"""Of each pair of rules: how much a false English weighs, how much each kind of made caption, what the bias gets on top
(so that recall and false English are where they should be)."""
LOST_AT_ONCE, FALSE_AT_ONCE = 0.01, 0.0005
"""Shares of the English texts and of the others that the first rule may decide wrongly."""
PENALTY = 1e-3


FRESH = ("fresh_captions", *(f"fresh_captions_{number}" for number in range(2, 7)))
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
    columns = ("detector", "kind", "made", "English %", "held out", *FRESH, "captions/s a core")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    fresh = [read_texts(name) for name in FRESH]
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
    """What rules are fitted to: n texts that their frames leave open."""

    features: np.ndarray  # (n, 30)
    is_english: np.ndarray  # (n,)
    weights: np.ndarray  # (n,)
    is_of_names: np.ndarray  # (n,)
    is_plain: np.ndarray  # (n,), of the file and spelled as it is there


def fit(samples: Sequence[Sample]) -> None:
    """Prints the constants of `pipeline.text.evidence`."""
    for name, (false_weight, made_weight, shift) in FITS.items():
        rows = rows_of(texts_to_fit(samples, made_weight))
        chosen = rows.is_of_names == (name == "NAMES")
        print_rules(name, fit_rules(Rows(*(column[chosen] for column in rows)), false_weight, shift))


def texts_to_fit(samples: Sequence[Sample], made_weight: float) -> Iterator[tuple[str, bool, float, bool]]:
    """text, whether it is English, weight, whether it is plain: of half of the file in three spellings, with the same
    weight for English as for all other languages, and of captions of known kinds."""
    known = [sample for sample in samples if not sample.held_out]
    counts = collections.Counter(sample.lang for sample in known)
    for spelling in ("plain", "lower", "Title"):
        for sample in known:
            weight = 1 / counts[sample.lang] / (1 if sample.lang == "en" else len(counts) - 1)
            yield SPELLINGS[spelling](sample.text), sample.lang == "en", weight, spelling == "plain"
    made = [(caption.kind, caption.text) for caption in made_captions()]
    made += [(kind, text) for kind, texts in read_texts("fresh_captions").items() for text in texts]
    kinds = collections.Counter(kind for kind, _ in made)
    for kind, text in made:
        is_english = kind != "foreign"
        yield text, is_english, made_weight * (1 if is_english else 2) / kinds[kind], False


def rows_of(texts: Iterable[tuple[str, bool, float, bool]]) -> Rows:
    rows = []
    for text, is_english, weight, is_plain in texts:
        spelled = language.normalised(text)
        framed = text if " " in text else spelled
        frame = frame_of(framed)
        if language.mostly_latin(spelled) and judge(framed, frame) is None:
            features = language.first_features(spelled, language.english_words(spelled), frame)
            features += language.second_features(spelled)
            rows.append((features, is_english, weight, is_of_names(frame), is_plain))
    return Rows(*map(np.array, zip(*rows, strict=True)))


def fit_rules(rows: Rows, false_weight: float, shift: float) -> Rules:
    """Two rules, and where the first decides alone. shift: added to both biases."""
    first_count = len(FEATURES)
    first = logistic(rows.features[:, :first_count], rows.is_english, rows.weights, false_weight)
    second = logistic(rows.features, rows.is_english, rows.weights, false_weight)
    first[0] += shift
    second[0] += shift
    score = first[0] + rows.features[:, :first_count] @ first[1:]
    low = np.quantile(score[rows.is_english & rows.is_plain], LOST_AT_ONCE)
    others = ~rows.is_english & rows.is_plain
    order = np.argsort(-score[others])
    place = np.searchsorted(np.cumsum(rows.weights[others][order]), FALSE_AT_ONCE)
    return Rules(tuple(first), tuple(second), float(low), float(score[others][order][place]))


def print_rules(name: str, rules: Rules) -> None:
    first, second = (", ".join(f"{weight:.2f}" for weight in rule) for rule in (rules.first, rules.second))
    print(f"{name} = Rules(\n    ({first}),\n    ({second}),\n    {rules.low:.1f},\n    {rules.high:.1f},\n)")


def logistic(features: np.ndarray, english: np.ndarray, weights: np.ndarray, false_weight: float) -> np.ndarray:
    """[bias, a weight a feature] of a penalised logistic regression, by Newton's method. features (n, k); the weight of
    a feature that is everywhere the same is 0."""
    centre, scale = features.mean(0), features.std(0)
    differs = scale > 0
    scale[~differs] = 1
    x = np.concatenate([np.ones((len(features), 1)), (features - centre) / scale], 1)
    weights = weights * np.where(english, 1, false_weight) / 2
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
