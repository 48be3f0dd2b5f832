"""Phrases that say nothing of what an image shows: when and by whom it was taken, how to use the page it stood on, its
licence, what camera software writes by itself. `boilerplate_words` says how much of a caption they are, by the patterns
of `boilerplate.txt`; `is_whole` whether it is nothing else, by `boilerplate_odds`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import ahocorasick_rs  # a caption is searched for all hints at once

from pipeline.text.boilerplate_odds import MAX_LOG_ODDS, log_odds

CREDIT = "credit"
_PART = re.compile(r"([a-z_]+) = (.+)")
_REFERENCE = re.compile(r"\{([a-z_]+)\}")


class Patterns(NamedTuple):
    """What `boilerplate.txt` holds, with the parts put in."""

    parts: dict[str, str]
    phrases: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]  # hints, phrase


def read_patterns(text: str) -> Patterns:
    parts: dict[str, str] = {}
    phrases = []
    for kind, hints, regex in _pattern_lines(text, parts):
        flags = 0 if kind == CREDIT else re.IGNORECASE
        phrases.append((hints, re.compile(rf"(?<![\w-])(?:{regex})(?![\w-])", flags)))
    return Patterns(parts, tuple(phrases))


def _pattern_lines(text: str, parts: dict[str, str]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Kind, hints and regex of each phrase; fills `parts` on the way."""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if part := _PART.fullmatch(line):
            parts[part[1]] = _expanded(part[2], parts)
            continue
        kind, hints, regex = line.split(": ", 2)
        yield kind, tuple(hints.split("|")), _expanded(regex, parts)


def _expanded(regex: str, parts: dict[str, str]) -> str:
    return _REFERENCE.sub(lambda name: parts[name[1]], regex.replace(" ", r"\s+"))


_READ = read_patterns((resources.files("pipeline.text") / "boilerplate.txt").read_text(encoding="utf-8"))
_PATTERNS = _READ.phrases
MAX_WHOLE = 120
"""Characters of a caption that is judged as a whole: more than any phrase has to which the weights were fitted."""
_DATES = re.compile(rf"(?<![\w-])(?:(?:on|dated|from|of)\s+)?{_READ.parts['full_date']}(?![\w-])", re.IGNORECASE)

_HINTS = tuple(sorted({hint for hints, _ in _PATTERNS for hint in hints}))
_HINTED = tuple(tuple(number for number, (hints, _) in enumerate(_PATTERNS) if hint in hints) for hint in _HINTS)
"""The numbers of each hint's patterns."""
_SEARCH = ahocorasick_rs.AhoCorasick(_HINTS)
_DIGIT = re.compile(r"\d")
_DIGITS = str.maketrans("123456789", "000000000")
_WORD = re.compile(r"\w[\w'’.:/-]*")
_COVER, _DATE_COVER = "\0", "\1"
_COVERED = re.compile(f"[{_COVER}{_DATE_COVER}]+")
MAX_CHARACTERS = 2000
"""Of a longer caption only the beginning is checked."""


def may_hold_phrases(caption: str) -> bool:
    """False for most captions: none of their words can lie in boilerplate by a phrase or a date."""
    return bool(_DIGIT.search(caption) or _hinted(caption[:MAX_CHARACTERS]))


def is_whole(caption: str) -> bool:
    """Whether a caption is nothing but boilerplate by its words together."""
    return len(caption) <= MAX_WHOLE and log_odds(caption) > MAX_LOG_ODDS


def boilerplate_words(caption: str) -> tuple[int, int]:
    """How many of a caption's words lie in boilerplate, and how many there are. The words of a date count only where
    there is nothing else: "Kew Gardens, 3 May 2010" has none in boilerplate, of two."""
    caption = caption[:MAX_CHARACTERS]
    covered = _covered(caption)
    if covered == caption:
        return 0, len(_WORD.findall(caption))
    kinds = [_kind_of(covered[slice(*match.span())]) for match in _WORD.finditer(caption)]
    boilerplate, dates = kinds.count(_COVER), kinds.count(_DATE_COVER)
    if boilerplate + dates == len(kinds):
        return len(kinds), len(kinds)
    return boilerplate, len(kinds) - dates


def _kind_of(word: str) -> str:
    """By what most of a word is covered; "" if it is not."""
    return next((cover for cover in (_COVER, _DATE_COVER) if word.count(cover) * 2 > len(word)), "")


def phrases(caption: str) -> list[str]:
    """The parts of a caption that lie in boilerplate, in their order; neighbours that touch come as one."""
    caption = caption[:MAX_CHARACTERS]
    return [caption[slice(*match.span())] for match in _COVERED.finditer(_covered(caption))]


def without_tail(caption: str) -> str:
    """The caption without the boilerplate at its end, if a mark stands before it: "A dog on a beach. Photo by Jane
    Doe". A date stays, and so does a caption of nothing else."""
    if len(caption) > MAX_CHARACTERS:
        return caption
    *_, last = [None, *_SEGMENT.finditer(caption)]
    if last and is_whole(caption[last.end() :]):
        return caption[: last.start()] + ("." if last[0].startswith(".") else "")
    covered = _covered(caption)
    end = len(covered.rstrip(_COVER + _TAIL_EDGES))
    tail = covered[end:]
    mark = tail[: tail.find(_COVER)]
    if _COVER not in tail or not end or not mark.strip():
        return caption
    return caption[:end] + ("." if mark.startswith(".") else "")


_TAIL_EDGES = " .,;:·|-–—_([)]"
_SEGMENT = re.compile(r"[.;]\s+|\s+[-–—|·]\s+")


def _covered(caption: str) -> str:
    """The caption with _COVER for each character of boilerplate, and _DATE_COVER for those of a date by itself."""
    for number in _hinted(caption):
        caption = _PATTERNS[number][1].sub(lambda match: _COVER * len(match[0]), caption)
    return _DATES.sub(lambda match: _DATE_COVER * len(match[0]), caption)


@functools.lru_cache(maxsize=1)  # asked for the same caption twice in a row
def _hinted(caption: str) -> list[int]:
    """The numbers of the patterns that a caption may hold."""
    folded = f" {' '.join(caption.lower().split())} "
    if _DIGIT.search(folded):
        folded = folded.translate(_DIGITS)
    found = {hint for hint, _, _ in _SEARCH.find_matches_as_indexes(folded, overlapping=True)}
    return sorted({number for hint in found for number in _HINTED[hint]})
