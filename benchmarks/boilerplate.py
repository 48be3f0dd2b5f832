"""Phrases that are boilerplate, and captions that only resemble it: what `select` keeps of each kind.

    python -m benchmarks.boilerplate            # the table
    python -m benchmarks.boilerplate --show     # and what it gets wrong
    python -m benchmarks.boilerplate --tails    # what --cut-tails does to such phrases behind real captions

A phrase counts as kept if all checks of captions pass it; a caption is lost if it is rejected as boilerplate. The texts
are those of `boilerplate_texts`, and sets that were written later, each before a look at what the rules do with it."""

from __future__ import annotations

import argparse
import collections
from typing import Optional

from benchmarks.boilerplate_texts import KINDS, LATER, LATER_REAL, REAL, texts_of
from benchmarks.fresh_texts import read_texts
from pipeline.filters import CHECKS, SelectConfig, filter_candidate
from pipeline.records import Candidate, Pair, Reason
from pipeline.text.boilerplate import without_tail

FRESH = ("fresh_boilerplate", *(f"fresh_boilerplate_{number}" for number in range(2, 7)))
FRESH_KIND = {"real captions": "real"}


def is_kept(text: str) -> bool:
    """Whether a row with this caption becomes a pair."""
    return reason_against(text) is None


def is_lost(text: str) -> bool:
    """Whether a row with this caption is rejected as boilerplate."""
    return reason_against(text) == Reason.BOILERPLATE


def reason_against(text: str) -> Optional[Reason]:
    row = Candidate("cc12m", "f", 0, "http://a.example/a.jpg", (), text, None, None, "", "", "")
    result = filter_candidate(row, SelectConfig(), checks=CHECKS)
    return None if isinstance(result, Pair) else result.reason


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the texts that come out wrong")
    parser.add_argument("--tails", action="store_true", help="measure `--cut-tails` instead")
    arguments = parser.parse_args()
    if arguments.tails:
        print_tails()
        return
    titles = ("kind", *(title for name in ("texts", "written later", *FRESH) for title in (name, "kept %")))
    print(f"| {' | '.join(titles)} |\n|---{'|--:' * (len(titles) - 1)}|")
    fresh = [read_texts(name) for name in FRESH]
    wrong: list[tuple[str, str]] = []
    for kind, block in (*KINDS.items(), ("real captions", REAL)):
        later = LATER_REAL if kind == "real captions" else LATER.get(kind, "")
        columns = []
        for texts in (
            texts_of(block),
            texts_of(later),
            *(of_kind.get(FRESH_KIND.get(kind, kind), []) for of_kind in fresh),
        ):
            is_real = kind == "real captions"
            kept = {text: not is_lost(text) if is_real else is_kept(text) for text in texts}
            columns.append(f"{len(kept)} | {share(list(kept.values())):.1f}" if kept else " | ")
            wrong += [(kind, text) for text, answer in kept.items() if answer != is_real]
        print(f"| {kind} | {' | '.join(columns)} |")
    for kind, text in wrong if arguments.show else ():
        print(f"{kind}: {text}")


def print_tails() -> None:
    """The shares of captions with a phrase behind them that are cut exactly, left alone, and cut elsewhere."""
    captions = texts_of(REAL) + texts_of(LATER_REAL)
    changed = sum(without_tail(caption) != caption for caption in captions)
    print(f"real captions changed: {changed} of {len(captions)}\n")
    print("| kind | captions | cut exactly % | left % | cut elsewhere % |\n|---|--:|--:|--:|--:|")
    for kind, block in KINDS.items():
        results = collections.Counter(
            _cut(captions[(7 * number + len(mark)) % len(captions)], mark, phrase)
            for number, phrase in enumerate(texts_of(block))
            for mark in (". ", " | ", " - ", ", ")
        )
        total = results.total()
        shares = " | ".join(f"{100 * results[result] / total:.1f}" for result in ("exactly", "left", "elsewhere"))
        print(f"| {kind} | {total} | {shares} |")


def _cut(caption: str, mark: str, phrase: str) -> str:
    text = without_tail(caption + mark + phrase)
    if text.rstrip(".") == caption.rstrip("."):
        return "exactly"
    return "left" if text == caption + mark + phrase else "elsewhere"


def share(answers: list[bool]) -> float:
    return 100 * sum(answers) / len(answers)


if __name__ == "__main__":
    main()
