"""What is known of the names in a caption: of people, of places and of brands.

A word that no list of words has may be a name or another language's. Here names tell, beside those of `frames`:

- `more_given_names.txt`: those that Faker has for some 60 countries (Daniele Faraglia and others; MIT, see
  `faker_license.txt`), without those of `given_names.txt`;
- `east_asian_names.txt`: family names, which come first there, by hand;
- `brands.txt`: makers of what shops sell, by hand.

No word of them is in the lists of English and of other languages, but for family names. What of a caption is no name is
looked at as well: whether any word of it speaks for another language."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.text.frames import (
    IN_WINTER,
    PARTICLES,
    Frame,
    is_of_names,
    listed_names,
    read_words,
    without_genitive,
    words_of,
)
from pipeline.text.word_odds import odds_of

FEATURES = (
    # names that are known: decades that `word_odds` holds against them, their share if no language has them, a brand
    "known_against", "known_unlisted", "brand",
    # of captions that are names and nothing else
    "two_names", "given_and_name", "name_with_particles", "east_asian_name",
    # an English title before names; given names before other names; a known place in an English caption with "in";
    # "in winter"; a known place after the last comma, with its decades for English
    "title", "given_then_name", "located", "in_winter", "after_comma", "decades_after_comma",
    # a measure or a model's number; one of them or a brand beside an English word, and without any
    "size", "sold_in_english", "sold_otherwise",
    # "A Tatra 603"; an English word or "Female" before the name of a species
    "article_and_name", "english_and_species",
    # captions of one word; without a word of another language, and with an English word besides
    "one_word", "unopposed", "unopposed_english",
)  # fmt: skip
"""What `name_features` measures."""

_CIRCA = frozenset({"c", "ca", "circa"})
MAX_AGAINST = 4.0
"""Decades."""
MAX_EAST_ASIAN = 4
"""Words of a name whose family name comes first."""
_TITLE = re.compile(
    r"(?:Sir|Dame|Lord|Lady|Mr|Mrs|Ms|Miss|Dr|Prof|Professor|Doctor|King|Queen|Prince|Princess|Emperor|Empress|Tsar|Sultan"
    r"|Duke|Duchess|Earl|Count|Countess|Baron|Baroness|Pope|Cardinal|Archbishop|Bishop|Saint|St|Father|Mother|Brother|Sister"
    r"|Rabbi|Imam|Sheikh|Reverend|Rev|President|Chancellor|Minister|Senator|Governor|Mayor|Judge|Chief|Ambassador|General"
    r"|Admiral|Colonel|Captain|Major|Lieutenant|Sergeant|Marshal|Uncle|Aunt|Auntie|Cousin|Grandma|Grandpa|Grandmother"
    r"|Grandfather|Coach|Actor|Actress|Singer|Soprano|Tenor|Conductor|Composer|Maestro|Pianist|Violinist|Poet|Writer|Author"
    r"|Painter|Sculptor|Architect|Photographer|Director|Footballer|Nurse|Friar|Abbot)\.?\s(?=[^\W\d_a-z])"
)
_SPECIMEN = re.compile(
    r"(?:Male|Female|Juvenile|Adult|Immature|Young|Wild|Captive)\s[^\W\d_a-z][^\W\d_A-Z]+\s[^\W\d_A-Z]{4,}\b"
)
_ARTICLE = re.compile(r"An? (?:\d|[^\W\d_a-z][^\W_A-Z])")
_AFTER_COMMA = re.compile(r",\s*(?:[^\W\d_]+\s)?([^\W\d_]+)\W*\d{0,4}\W*$")
_SIZE = re.compile(
    r"\d(?:\s?(?:cm|mm|ml|[mlgwv]|kg|ah|[gt]b|oz|pcs|pk|pack|inch|in|ft)\b|\s?x\s?\d|[\d.-]*[a-z])"
    r"|\b[a-z]+-?\d{2,}|\b[a-z]\d",
    re.IGNORECASE,
)


class _Name(NamedTuple):
    """What is known of a word with a capital."""

    is_given: bool
    is_place: bool
    is_brand: bool
    is_east_asian: bool
    is_english: bool
    is_known: bool  # one of those before "is_english"
    decades: float  # against English, at most 0
    is_unlisted: bool  # in no language's list


def name_features(caption: str, frame: Frame) -> tuple[float, ...]:
    """The values of FEATURES. caption: with its capitals; frame: its own."""
    words = [word for word in words_of(caption) if word not in _CIRCA]
    names = [_name(word) for word in words if not word[0].islower()]
    known = [name for name in names if name.is_known]
    english = frame.english + frame.english_capitals
    is_unopposed = not (frame.foreign or frame.unknown or frame.begins_foreign or frame.titled)
    people = sum(first.is_given and not second.is_english for first, second in itertools.pairwise(names))
    is_located = frame.ambiguous and english and not frame.foreign and any(name.is_place for name in known)
    has_size, has_brand = frame.has_number and bool(_SIZE.search(caption)), any(name.is_brand for name in known)
    is_sold = has_size or has_brand
    is_after, decades_after = _after_comma(caption)
    return (
        max(sum(name.decades for name in known), -MAX_AGAINST),
        sum(name.is_unlisted for name in known) / (len(words) or 1),
        float(has_brand),
        *(_of_names_alone(words, names) if _are_names(words, frame) else (0.0, 0.0, 0.0, 0.0)),
        float(frame.foreign + frame.unknown + frame.species == 0 and bool(_TITLE.match(caption))),
        float(min(people, 2) if is_of_names(frame) else 0),
        float(bool(is_located)),
        float(frame.ambiguous > 0 and bool(IN_WINTER.search(caption))),
        float(is_after),
        decades_after,
        float(has_size),
        float(is_sold and english > 0),
        float(is_sold and not english and len(names) > len(known)),
        float(caption.startswith("A") and bool(_ARTICLE.match(caption))),
        float((frame.begins_english and frame.species > 0) or bool(_SPECIMEN.match(caption))),
        float(frame.words == 1),
        float(is_unopposed and not frame.foreign_capitals + frame.particles),
        float(is_unopposed and english > 0 and not frame.particles),
    )


def _are_names(words: Sequence[str], frame: Frame) -> bool:
    """Whether a caption is of names and their particles alone."""
    if not words or words[0][0].islower() or frame.english_capitals:
        return False
    return all(not word[0].islower() or word in PARTICLES for word in words)


def _of_names_alone(words: Sequence[str], names: Sequence[_Name]) -> tuple[float, float, float, float]:
    is_given, is_plain = names[0].is_given, len(names) == len(words)
    return (
        float(is_plain and len(words) == 2 and not any(name.is_given for name in names)),
        float(is_plain and len(words) > 1 and is_given),
        float(is_given and not is_plain and not words[-1][0].islower()),
        float(names[0].is_east_asian and is_plain and len(words) <= MAX_EAST_ASIAN),
    )


def _after_comma(caption: str) -> tuple[bool, float]:
    """Whether the last words of a caption, after a comma, end with a known place; the decades for English if so."""
    last = _AFTER_COMMA.search(caption) if "," in caption else None
    if not last or not _name(last[1]).is_place:
        return False, 0.0
    return True, max(odds_of(last[1].lower()) or 0.0, 0.0)


@functools.lru_cache(maxsize=1 << 15)  # most words of most captions are few
def _name(word: str) -> _Name:
    low = word.lower()
    stem = without_genitive(low)
    lists, decades = _lists(), odds_of(stem)
    is_given, is_place, is_brand = stem in lists.given, stem in lists.places, stem in lists.brands
    is_east_asian = stem.split("-")[0] in lists.east_asian
    return _Name(
        is_given=is_given,
        is_place=is_place,
        is_brand=is_brand,
        is_east_asian=is_east_asian,
        is_english=stem in lists.english,
        is_known=is_given or is_place or is_brand or is_east_asian,
        decades=min(decades or 0.0, 0.0),
        is_unlisted=decades is None,
    )


class _Lists(NamedTuple):
    given: frozenset[str]
    places: frozenset[str]
    brands: frozenset[str]
    east_asian: frozenset[str]
    english: frozenset[str]


@functools.cache
def _lists() -> _Lists:
    given, places, english = listed_names()
    return _Lists(
        given=given | read_words("more_given_names"),
        places=places,
        brands=read_words("brands"),
        east_asian=read_words("east_asian_names"),
        english=english,
    )
