"""How much each word of a caption speaks for English, by how often it is written in English and in other languages.

Frequencies are those of wordfreq (Speer 2022), an installed package whose data has a licence of its own (CC BY-SA 4.0),
so that none of it lies here. A process reads them once."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

from pipeline.text.frames import CAMEL_CASE, PARTICLES, is_given_name

FEATURES = (
    # sums of decades, of words written small and of words with a capital; the extremes of both
    "small_for", "small_against", "capitals_for", "capitals_against",
    "best", "worst", "best_capital", "worst_capital",
    # words that no language has: their share, how many, letters of the longest; the share of known ones written small
    "unlisted", "unlisted_capitals", "unlisted_words", "unlisted_letters", "listed_small",
    # of the first and the last word
    "first", "last", "first_unlisted", "last_unlisted",
    # what is no word; particles between names; "'s"
    "numbers", "acronyms", "name_particles", "genitives",
    # the same as above, but 0 without an English word that is written small
    "framed_against", "framed_unlisted", "framed_unlisted_capitals",
)  # fmt: skip
"""What `odds_features` measures. A decade is a factor of ten in frequency; positive ones speak for English."""

LANGUAGES = (
    "ca", "cs", "da", "de", "es", "fi", "fil", "fr", "hu", "id", "is", "it", "lt", "lv", "ms", "nb", "nl", "pl", "pt",
    "ro", "sh", "sk", "sl", "sv", "tr", "vi",
)  # fmt: skip
"""Those of wordfreq that are written in Latin letters, without English."""
RAREST_ENGLISH, RAREST_OTHER = 750, 520
"""The rarest words that count have a frequency of 10 ** (-n / 100): rarer ones are as often another language's."""
BORROWED = ("the", "and", "of", "with", "for")
"""English words that are no words of other languages: their share there is the share of English text."""
MIN_OWN_SHARE = 0.1
"""A language has a word of its own if at least this share of its frequency does not come from English text."""
ABSENT = 1e-8
"""The frequency of a word that a language's list does not have."""
MAX_DECADES, MAX_SUM = 3.0, 8.0
NAME_WEIGHT = 0.3
"""Given names, and particles between names, are written in every language."""
UNLISTED_DECADES = -0.5
"""What the first or last word counts if it is written small and no language has it."""
MAX_ACRONYM, MAX_NAME_LETTERS = 3, 10

_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['’][^\W\d_]+)?(?!\w)")
_DIGIT = re.compile(r"\d")
_SPECIES = re.compile(r".{3,}(?:us|um|is|i|ae|ens|ans|a|[iey]x|or|ur|on|os|es)")


class _Word(NamedTuple):
    is_small: bool  # written without a capital; a particle between names is not
    counts: bool  # False of acronyms, names' particles and second words of species
    decades: Optional[float]  # None if no language has it


class _Token(NamedTuple):
    """What is known of a word by itself."""

    low: str
    is_small: bool
    is_acronym: bool
    is_particle: bool
    is_given_name: bool
    is_genitive: bool
    may_be_species: bool  # behind a name that no language has
    decades: Optional[float]
    word: _Word  # what it is unless the words beside it say otherwise


def odds_features(caption: str) -> tuple[float, ...]:
    """The values of FEATURES for a caption as it is written."""
    tokens = _tokens(caption)
    words, particles = _words(tokens)
    total = len(words) or 1
    small = [decades for is_small, counts, decades in words if counts and is_small]
    capitals = [decades for is_small, counts, decades in words if counts and not is_small]
    known_small = [decades for decades in small if decades is not None] or [0.0]
    known_capitals = [decades for decades in capitals if decades is not None] or [0.0]
    unlisted, unlisted_capitals = small.count(None) / total, capitals.count(None) / total
    genitives = sum(token.is_genitive for token in tokens[:-1])
    is_framed = genitives or max(known_small) > 0
    against = _sum_against(known_capitals)
    numbers = len(list(filter(_DIGIT.search, caption.split())))
    first, last = (words[0], words[-1]) if words else (_NOTHING, _NOTHING)
    return (
        _sum_for(known_small),
        _sum_against(known_small),
        _sum_for(known_capitals),
        against,
        max(known_small),
        min(known_small),
        max(known_capitals),
        min(known_capitals),
        unlisted,
        unlisted_capitals,
        min(small.count(None), 3),
        _letters_of_compound(tokens),
        len(small) / total - unlisted,
        _at_the_end(first),
        _at_the_end(last),
        float(first.decades is None),
        float(last.decades is None),
        numbers / (numbers + total),
        sum(token.is_acronym for token in tokens) / total,
        particles,
        min(genitives, 2),
        against if is_framed else 0.0,
        unlisted if is_framed else 0.0,
        unlisted_capitals if is_framed else 0.0,
    )


@functools.lru_cache(maxsize=1 << 15)  # each word is looked up for several features, in 27 lists
def odds_of(word: str) -> Optional[float]:
    """The decades by which English has a word in lower case more often than LANGUAGES have it on the mean, without a
    genitive's ending if need be; None for one that no language has."""
    odds = _decades(word)
    if odds is None and word.endswith(("'s", "’s")):
        return _decades(word[:-2])
    return odds


def _decades(word: str) -> Optional[float]:
    lists = _lists()
    english, elsewhere = lists.english.get(word, 0.0), 0.0
    for frequencies, borrowed in lists.others:
        if word in frequencies:
            own = frequencies[word] - borrowed * english
            if own >= MIN_OWN_SHARE * frequencies[word]:
                elsewhere += own / len(LANGUAGES)
    if not english and not elsewhere:
        return None
    return max(-MAX_DECADES, min(MAX_DECADES, math.log10((english + ABSENT) / (elsewhere + ABSENT))))


_NOTHING = _Word(True, False, None)


def _tokens(caption: str) -> list[_Token]:
    words = _WORD.findall(caption.lower() if caption.isupper() else caption)
    return [token for word in words for token in _split(word)]


@functools.lru_cache(maxsize=1 << 15)  # most words of most captions are few
def _split(word: str) -> tuple[_Token, ...]:
    """A word, or the two of "WingBar", unless that is known."""
    if odds_of(word.lower()) is not None:
        return (_token(word),)
    return tuple(map(_token, CAMEL_CASE.sub(" ", word).split()))


def _token(word: str) -> _Token:
    low = word.lower()
    is_small, decades = word == low, odds_of(low)
    is_acronym = 1 < len(word) <= MAX_ACRONYM and word.isupper()
    is_given = not is_small and is_given_name(word)
    return _Token(
        low=low,
        is_small=is_small,
        is_acronym=is_acronym,
        is_particle=word in PARTICLES,
        is_given_name=is_given,
        is_genitive=low.endswith(("'s", "’s")) and len(low) > len("it's"),
        may_be_species=is_small and decades is None and bool(_SPECIES.fullmatch(low)),
        decades=decades,
        word=_Word(is_small, not is_acronym, _decades_of_name(decades) if is_given else decades),
    )


def _decades_of_name(decades: Optional[float]) -> Optional[float]:
    return None if decades is None else decades * NAME_WEIGHT


def _words(tokens: Sequence[_Token]) -> tuple[list[_Word], int]:
    """The words, each as those beside it have it, and how many are particles of names."""
    words = [token.word for token in tokens]
    particles = 0
    for number, (before, token) in enumerate(itertools.pairwise(tokens), start=1):
        if before.is_small:
            continue
        if token.is_particle and not all(after.is_small for after in tokens[number + 1 : number + 2]):
            particles += 1  # the "da" of "Vasco da Gama"
            words[number] = _Word(False, not before.is_given_name, _decades_of_name(token.decades))
        elif token.may_be_species and _is_unlisted_name(before):
            words[number] = token.word._replace(counts=False)  # Rafflesia arnoldii
    return words, particles


def _is_unlisted_name(token: _Token) -> bool:
    return not token.is_small and token.decades is None


def _letters_of_compound(tokens: Sequence[_Token]) -> int:
    """How many letters more than English names have the longest unlisted word has: "Druckertreiber" is a compound."""
    longest = max((len(token.low) for token in tokens if token.decades is None), default=0)
    return min(max(longest - MAX_NAME_LETTERS, 0), MAX_NAME_LETTERS)


def _at_the_end(word: _Word) -> float:
    if not word.counts:
        return 0.0
    return word.decades if word.decades is not None else UNLISTED_DECADES * word.is_small


def _sum_for(decades: Sequence[float]) -> float:
    return min(sum(each for each in decades if each > 0), MAX_SUM)


def _sum_against(decades: Sequence[float]) -> float:
    return max(sum(each for each in decades if each < 0), -MAX_SUM)


class _Lists(NamedTuple):
    """Words with their shares of all words of a text."""

    english: dict[str, float]
    others: list[tuple[dict[str, float], float]]  # of LANGUAGES, each with the share of it that is English text


@functools.cache
def _lists() -> _Lists:
    english = _frequencies("en", "large", RAREST_ENGLISH)
    others = [_frequencies(language, "small", RAREST_OTHER) for language in LANGUAGES]
    return _Lists(
        english, [(words, min(words.get(word, 0.0) / english[word] for word in BORROWED)) for words in others]
    )


def _frequencies(language: str, size: str, rarest: int) -> dict[str, float]:
    """Shares of all words of a text. Number n of wordfreq's lists holds the words of frequency 10 ** (-n / 100)."""
    import wordfreq

    lists = wordfreq.get_frequency_list(language, size)[: rarest + 1]
    wordfreq.get_frequency_list.cache_clear()  # it would keep all words in memory
    return {word: frequency for n, words in enumerate(lists) for frequency in [10 ** (-n / 100)] for word in words}
