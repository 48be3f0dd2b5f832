"""Names in an English frame: "Map of Kraków", "Emma Hansen and Priya Silva at Pont Neuf", "Zentro - Desk - Beige".

Most letters of such a caption are a name's, whose language says nothing of the caption's, and by which detectors of
languages go. Here the other words decide, those that are written small above all: `is_english_by_frame` accepts a
caption if they are English, rejects one in which they are another language's, and leaves any other undecided.

The lists beside this module, of which most are written by hand:

- `captions.txt`: English words with which captions name things, that other languages do not have;
- `foreign_small.txt`: words of other languages that are parts of names as well (streets, churches, colours), and count
  only where they are written small;
- `dialect.txt`: words of Scots and Nigerian Pidgin, of which one decides;
- `given_names.txt`, `places.txt`: given names of many countries; countries, regions and large cities;
- `english.txt`: words of a dictionary that English has at least three times as often as each of 25 other languages (of
  the words of the bundled text tokenizer: of 16); `shared.txt`: further English words, which others have as well;
  `foreign.txt`: the most frequent words of 27 other languages that are rare in English, and nouns with which captions
  begin there; `foreign_frequent.txt`: more frequent words of 28 languages that are 20 times as rare in English, which
  count only where they are written small. Frequencies are those of wordfreq (Speer 2022), the dictionary is Webster's
  of 1913 and 1934."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple, Optional

from pipeline.text.english_words import ENGLISH_ONLY, SHARED


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STRONG = _words(
    "of and with the at by from near during before after under above between into her their its behind through vs"
)
"""Words that make a frame by themselves."""
SEMI = frozenset({"on", "for", "to", "is", "his"})
"""Words that do with another English word: "on" and "for" are words of other languages, too."""
AMBIGUOUS = frozenset({"in"})
ARTICLES = _words("c ca a an me do was not so be he i us as or my has no man over")
PARTICLES = _words(
    "de la le von van der den di da del della du des dos das el al y e zu zum am im auf en les los las san "
    "santa sur sous ter ten op aan het bin ibn af av nad pod d l o u z w v k s t dalla"
)
"""Small words of names: "Rio de Janeiro". They are no evidence."""
CONJUNCTIONS = _words("e y et und och og i a en és ja și ve dan eta kaj agus na com con med mit")

CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
"""Where a word of a name such as "WingBar" ends and the next one begins."""
_WORD = re.compile(r"(?<![\w-])[^\W\d_]+(?:['’-][^\W\d_]+)*(?!\w)")
_YEAR = re.compile(r"\b(?:1[5-9]|20)\d\d\b")
_NUMBER = re.compile(r"\d")
IN_WINTER = re.compile(r"\bin (?:early |late |mid-?)?winter\b")  # German has a capital, Dutch an article
_AFTER_COMMA = re.compile(r",\s*([^\W\d_]+(?:-[^\W\d_]+)*)")
_NAME_START = re.compile(
    r"(?:^|[,&(/|;:]\s*| (?:-|–|and|with|vs\.?|as|by) )\s*(?:[^\W\d_]+\s)?([^\W\d_a-z][^\W\d_]+)(?=\s[^\W\d_a-z])"
)
_HONORIFIC = re.compile(
    r"(?:Sir|Rev|Mr|Mrs|Ms|Lord|Lady|Captain|King|Queen|Princess|Archbishop|Bishop|Governor|Mayor|Judge|Emperor|Duke|Earl|Countess|"
    r"Prime Minister|Saint|Sister|Brother|Father|Mother)\b"
)  # those that English alone has
_SPECIES = re.compile(r".{2,}(?:us|um|is|ii|ae|ens|a|[iey]x|or|ur|on|es)$")


class Frame(NamedTuple):
    """How many words of each kind a caption has. Names are unknown words with a capital."""

    words: int
    english: int  # written small
    english_capitals: int
    strong: int
    semi: int
    ambiguous: int
    shared: int  # and articles
    foreign: int
    foreign_capitals: int
    conjunctions: int  # of another language between two names
    particles: int
    unknown: int
    names: int
    species: int  # the second word of "Vulpes vulpes"
    begins_foreign: bool
    begins_english: bool
    dialect: int  # of Scots or Pidgin, written small
    has_year: bool
    has_number: bool
    script: int  # in letters without capitals: Chinese, Arabic, ...
    titled: int  # of other languages, in a caption in which every word has a capital
    given: int  # names that are given names
    places: int  # names of known countries, regions and cities


def is_english_by_frame(caption: str, frame: Frame) -> Optional[bool]:
    """Whether a clean caption is English by its frame alone; None if that does not decide."""
    if _is_foreign(frame):
        return False
    return True if _is_english(frame, caption) else None


def has_foreign_words(caption: str) -> bool:
    """Whether a caption has a word that only other languages have, written small."""
    words, lists = caption.split(), _lists()
    return not (lists.foreign.isdisjoint(words) and lists.dialect.isdisjoint(words))


def is_of_names(frame: Frame) -> bool:
    """Whether a caption has names, and no word that is written small without being English."""
    return bool(frame.names) and not (frame.foreign or frame.unknown or frame.begins_foreign)


def _is_english(frame: Frame, caption: str) -> bool:
    if frame.species > 1 or 3 * frame.script > frame.words or not _has_names_only(frame):
        return False
    english = frame.english + frame.english_capitals
    if frame.foreign_capitals <= 1:
        if frame.strong and frame.particles <= 2:
            return True  # Map of Kraków
        if frame.semi and english + frame.shared and frame.begins_english:
            return True  # Coach Silva on tour
        if (
            english >= 2
            and 5 * english >= 2 * frame.words - 4 * frame.has_number
            and not frame.particles + frame.species
        ):
            return True  # Nortek Cordless Drill X12
    if frame.foreign_capitals:
        return False
    if frame.english and not (frame.species and english + frame.names < 3):
        return True  # Kraków before sunrise, Vulpes vulpes feeding
    if frame.ambiguous and (IN_WINTER.search(caption) or _is_located(frame)):
        return True  # Kraków in winter, Vulpes vulpes in Bavaria, Emma Hansen in Kraków
    return _names_people(frame, caption) or _names_places(frame, caption)


def _is_located(frame: Frame) -> bool:
    """Whether a caption is a person, an animal or an English thing in a known place."""
    return bool(frame.places and (frame.species or frame.english_capitals or frame.given)) and not frame.conjunctions


def _has_names_only(frame: Frame) -> bool:
    """Whether the words that are not English are names."""
    if frame.foreign or frame.unknown or frame.begins_foreign or frame.titled > frame.english_capitals:
        return False
    return frame.names + frame.foreign_capitals > 0


def _names_people(frame: Frame, caption: str) -> bool:
    """Whether a caption is one person, with a title perhaps, or persons with what they do, or several persons."""
    if frame.conjunctions or frame.particles > 1:
        return False
    if _HONORIFIC.match(caption) and frame.names + frame.particles + frame.english_capitals == frame.words:
        return True  # Sir Johann Keller
    if not (starts := _NAME_START.findall(caption)):
        return False
    given = sum(name.lower() in _lists().given for name in starts)
    if given and 2 <= frame.words == frame.names <= 3 and not _AFTER_COMMA.search(caption):
        return True  # Johann Keller, 1907
    return given > 1 or bool(given and (frame.english_capitals or frame.shared))


def _names_places(frame: Frame, caption: str) -> bool:
    """Whether a caption is a name with the country, region or city where it is, or two places."""
    if frame.conjunctions or frame.particles > 2 or frame.names + frame.particles < frame.words or "," not in caption:
        return False  # Hagia Irene, Tallinn
    return any(word.lower() in _lists().places for word in _AFTER_COMMA.findall(caption))


def _is_foreign(frame: Frame) -> bool:
    small = frame.strong + frame.semi + frame.english
    if frame.dialect:
        return True
    if frame.foreign:
        several = frame.foreign + frame.foreign_capitals >= 2
        return small + frame.english_capitals <= 1 or (
            several and small <= 2 * (frame.foreign + frame.foreign_capitals)
        )
    return frame.begins_foreign and not frame.strong + frame.semi and frame.english <= 1


def frame_of(caption: str) -> Frame:
    text = (caption.lower() if caption.isupper() else caption).replace(" v. ", " vs. ")
    words = _WORD.findall(text)
    kinds = _kinds(words)
    count = kinds.count
    names = {word.lower() for word, kind in zip(words, kinds, strict=True) if kind == "name"}
    frequent, has_capitals = count("frequent"), not text.islower()  # without capitals it may be a place's name
    return Frame(
        words=len(kinds),
        english=count("english"),
        english_capitals=count("ENGLISH"),
        strong=count("strong"),
        semi=count("semi"),
        ambiguous=count("ambiguous"),
        shared=count("shared"),
        foreign=count("foreign") + (frequent if has_capitals else 0),
        foreign_capitals=count("FOREIGN"),
        conjunctions=count("conjunction"),
        particles=count("particle") + count("conjunction"),
        unknown=count("unknown") + (0 if has_capitals else frequent),
        names=count("name"),
        species=count("species"),
        begins_foreign=kinds[:1] in (["foreign"], ["FOREIGN"]),
        begins_english=kinds[:1] in (["english"], ["ENGLISH"]),
        dialect=count("dialect"),
        has_year=bool(_YEAR.search(caption)),
        has_number=bool(_NUMBER.search(caption)),
        script=count("script"),
        titled=_count_titled(words) if len(words) > 3 else 0,
        given=len(names & _lists().given),
        places=len(names & _lists().places),
    )


def _count_titled(words: Sequence[str]) -> int:
    """How many words of Every Word With A Capital are words of other languages where they are written small."""
    if any(map(str.islower, words)):
        return 0
    lists = _lists()
    return sum(low in lists.foreign_small or low in lists.frequent for low in map(str.lower, words))


def _kinds(words: Sequence[str]) -> list[str]:
    """The kind of each word, by itself and by the word before it."""
    kinds: list[str] = []
    before = ""
    for number, word in enumerate(words):
        kind = _kind(word, not number)
        if before == "name" and word in CONJUNCTIONS and not "".join(words[number + 1 : number + 2]).islower():
            kind = "conjunction"
        elif kind == "unknown" and before == "name" and _SPECIES.fullmatch(word):
            kind = "species"
        elif kind == "FOREIGN" and number and is_given_name(words[number - 1]):
            kind = "name"
        kinds.append(kind)
        before = kind
    return kinds


def words_of(caption: str) -> list[str]:
    """The words, as they are written, but a caption IN CAPITALS in lower case."""
    return _WORD.findall(caption.lower() if caption.isupper() else caption)


def listed_names() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Given names, places, and English words, in lower case."""
    lists = _lists()
    return lists.given, lists.places, lists.english


def without_genitive(low: str) -> str:
    """A word in lower case without the ending "'s"."""
    return low[:-2] if low.endswith(("'s", "’s")) else low


def is_given_name(word: str) -> bool:
    return not word[0].islower() and word.lower() in _lists().given


@functools.lru_cache(maxsize=1 << 15)  # most words of most captions are few
def _kind(word: str, is_first: bool) -> str:
    """The kind of a word by itself."""
    low = word.lower()
    if low == word.upper():
        return "script"
    is_small = word.islower()  # unlike "d'Isère" and "iPhone"
    if "-" in low:
        return _kind_of_compound(low.rsplit("-", 1)[1], is_small)
    if is_small or is_first:
        for kind, words in _FUNCTION_WORDS:
            if low in words:
                return kind
    return _kind_of_small(low) if is_small else _kind_of_capitalised(low, is_first)


def _kind_of_compound(last: str, is_small: bool) -> str:
    """The kind of "hand-painted", "Stoke-on-Trent" or "T-Shirt", by its last part."""
    kind = _kind_of_small(last)
    if is_small:
        return kind
    return "ENGLISH" if kind == "english" else "name"


def _kind_of_small(low: str) -> str:
    lists = _lists()
    stem = without_genitive(low)
    if low in lists.dialect:
        return "dialect"
    if stem in lists.english:
        return "english"
    if low in lists.foreign or low in lists.foreign_small:
        return "foreign"
    if low in PARTICLES:
        return "particle"
    if stem in lists.shared:
        return "shared"
    return "frequent" if low in lists.frequent else "unknown"


def _kind_of_capitalised(low: str, is_first: bool) -> str:
    lists = _lists()
    stem = without_genitive(low)
    if stem in lists.english:
        return "ENGLISH"
    if low in lists.foreign:
        return "FOREIGN"
    return "particle" if low in PARTICLES and not is_first else "name"


_FUNCTION_WORDS = (("strong", STRONG), ("semi", SEMI), ("ambiguous", AMBIGUOUS), ("shared", ARTICLES))


def count_kinds(words: Sequence[str]) -> tuple[int, int, int]:
    """How many of some words, all in lower case, are English, of other languages, and of both."""
    english, foreign, shared = _sets()
    return (
        sum(map(english.__contains__, words)),
        sum(map(foreign.__contains__, words)),
        sum(map(shared.__contains__, words)),
    )


@functools.cache
def _sets() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    lists = _lists()
    english = lists.english | STRONG | SEMI
    shared = (lists.shared | PARTICLES | AMBIGUOUS | ARTICLES) - english
    return english, (lists.foreign | lists.foreign_small | lists.frequent | lists.dialect) - english - shared, shared


class _Lists(NamedTuple):
    english: frozenset[str]
    shared: frozenset[str]
    foreign: frozenset[str]
    foreign_small: frozenset[str]
    frequent: frozenset[str]
    dialect: frozenset[str]
    given: frozenset[str]
    places: frozenset[str]


@functools.cache
def _lists() -> _Lists:
    english, captions, shared = map(read_words, ("english", "captions", "shared"))
    foreign, foreign_small, frequent = map(read_words, ("foreign", "foreign_small", "foreign_frequent"))
    dialect, given, places = map(read_words, ("dialect", "given_names", "places"))
    known = STRONG | SEMI | AMBIGUOUS | ARTICLES
    others = PARTICLES | known | ENGLISH_ONLY
    return _Lists(
        english=english | captions | (ENGLISH_ONLY - known),
        shared=shared | SHARED,
        foreign=foreign - others,
        foreign_small=foreign_small - others,
        frequent=frequent - others,
        dialect=dialect,
        given=given,
        places=places,
    )


def read_words(name: str) -> frozenset[str]:
    """The words of a list beside this module."""
    return frozenset((resources.files("pipeline.text") / f"{name}.txt").read_text(encoding="utf-8").split())
