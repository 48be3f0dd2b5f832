"""The predicates of select: each looks at a row or its clean caption and gives None or (reason, detail).

Thresholds are the project's own where the paper gives none; they are settings, and the manifest holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlsplit

from pipeline.records import Candidate, Pair, Reason, Rejected, Stage, reject, row_key, split_of
from pipeline.text import boilerplate, captions, language

Rejection = Optional[tuple[Reason, str]]
"""None: the row passes. Otherwise why it goes, and the measure that failed, for people."""
UNSUPPORTED_TYPES = frozenset(
    {"image/svg+xml", "image/gif", "image/tiff", "image/vnd.djvu", "image/x-djvu", "image/x.djvu", "application/pdf"}
)
"""Types that no picture is made of as they are; Wikipedia has renderings of them."""


@dataclass(frozen=True)
class SelectConfig:
    """The settings of the text filters and of what the metadata says of the picture."""

    min_words: int = 3
    min_characters: int = 5
    min_side: int = 64  # px, of the shorter side
    min_ratio: float = 0.5  # width / height; both ends are allowed
    max_ratio: float = 2.0
    language_detector: str = "best"
    language_threshold: Optional[float] = None  # of the detector's score; None: its own
    max_rest_share: float = 0.2  # of a caption's words: with no more beside its boilerplate it goes, however long
    val_share: float = 0.01  # of the pairs, held out for validation
    undo_cc3m_spacing: bool = True
    cc12m_person: str = "<PERSON>"  # what stands in a clean caption for CC12M's mark of a name
    licences: tuple[str, ...] = ()  # of which a row must state one, as the source writes it, in any case; (): any row
    sharma: bool = False  # also the filters of repetition and capitalisation of Sharma et al. 2018, section 3.2


def filter_candidate(candidate: Candidate, config: SelectConfig) -> Pair | Rejected:
    """The pair that a row becomes, or why it goes. Cheap tests come before dear ones: the language last."""
    finding = (
        check_url(candidate)
        or check_type(candidate)
        or check_size(candidate, config)
        or check_licence(candidate, config)
    )
    caption = "" if finding else caption_of(candidate, config)
    finding = finding or check_caption(candidate, caption, config)
    if finding:
        reason, detail = finding
        return reject(candidate, Stage.SELECT, reason, detail)
    key = row_key(candidate.source, candidate.url, candidate.raw_caption)
    return Pair(
        key,
        candidate.source,
        candidate.file,
        candidate.row,
        candidate.url,
        candidate.fallback_urls,
        caption,
        candidate.raw_caption,
        candidate.width,
        candidate.height,
        candidate.licence,
        candidate.page_url,
        split_of(key, config.val_share),
        candidate.expected_sha256,
        candidate.stored_at,
    )


def caption_of(candidate: Candidate, config: SelectConfig) -> str:
    """The row's clean caption; CC3M's are spaced as text again."""
    caption = captions.clean_caption(candidate.raw_caption)
    if config.undo_cc3m_spacing and candidate.source == "cc3m":
        caption = captions.detokenise(caption)
    if candidate.source == "cc12m" and config.cc12m_person != "<PERSON>":
        caption = " ".join(caption.replace("<PERSON>", config.cc12m_person).split())
    return caption


def check_url(candidate: Candidate) -> Rejection:
    if _PLAIN_URL.fullmatch(candidate.url):
        return None
    if not candidate.url:
        return Reason.NO_URL, ""
    try:
        parts = urlsplit(candidate.url)
        usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return Reason.BAD_URL, str(error)
    return None if usable else (Reason.BAD_URL, "not an http or https URL with a host")


def check_type(candidate: Candidate) -> Rejection:
    """Of a picture that is to be fetched; of one that the source holds there is a rendering already."""
    if candidate.stored_at:
        return None
    mime_type = candidate.mime_type.partition(";")[0].strip().lower()
    return (Reason.UNSUPPORTED_TYPE, mime_type) if mime_type in UNSUPPORTED_TYPES else None


def check_size(candidate: Candidate, config: SelectConfig) -> Rejection:
    """Ratio and size, where the source knows them; `width` and `height` of the picture itself are checked later."""
    width, height = candidate.width, candidate.height
    if not width or not height:
        return None
    if not config.min_ratio * height <= width <= config.max_ratio * height:
        return Reason.ASPECT_RATIO, f"{width}x{height}"
    return (Reason.TOO_SMALL, f"{width}x{height}") if min(width, height) < config.min_side else None


def check_licence(candidate: Candidate, config: SelectConfig) -> Rejection:
    if not config.licences or candidate.licence.casefold() in map(str.casefold, config.licences):
        return None
    return Reason.LICENCE, candidate.licence or "not stated"


def check_repetition(caption: str, config: SelectConfig) -> Rejection:
    """Half of the words, and more than two, are words that stood before: "sale sale sale shoes"."""
    if not config.sharma:
        return None
    words = [word.casefold() for word in caption.split() if _WORD.search(word)]
    if len(words) - len(set(words)) > max(2, MAX_REPEATED_SHARE * len(words)):
        return Reason.REPETITION, f"{len(set(words))} different of {len(words)} words"
    return None


def check_capitalisation(caption: str, config: SelectConfig) -> Rejection:
    """Nothing but capitals, or every word with one: headlines and names of products. Scripts without capitals pass, and
    so do captions of fewer than four words."""
    if not config.sharma:
        return None
    words = [word for word in caption.split() if word[0].isalpha() and word.lower() != word.upper()]
    if len(words) >= 4 and all(word[0].isupper() for word in words):
        return Reason.CAPITALISATION, f"all of {len(words)} words"
    return None


def check_caption(candidate: Candidate, caption: str, config: SelectConfig) -> Rejection:
    """All tests of the text. File names and boilerplate come before the length: they say more about a short text."""
    if not caption:
        if captions.has_url(candidate.raw_caption):
            return Reason.BOILERPLATE, "nothing but links"
        return Reason.NO_CAPTION, ""
    return (
        check_file_name(caption)
        or check_boilerplate(caption, config)
        or check_length(caption, config)
        or check_repetition(caption, config)
        or check_capitalisation(caption, config)
        or check_language(caption, config)
    )


def check_file_name(caption: str) -> Rejection:
    return (Reason.FILE_NAME, caption) if captions.is_file_name(caption) else None


def check_boilerplate(caption: str, config: SelectConfig) -> Rejection:
    """A caption is primarily boilerplate if that is most of its words and the rest could not stand alone, or if it is
    nearly all of them: "a dog, photographed on 12 May 2009" goes, "photo of a dog taken on 12 May 2009" stays."""
    if not boilerplate.is_possible(caption):
        return None
    covered, total = boilerplate.boilerplate_words(caption)
    rest = total - covered
    if (covered > rest and rest < config.min_words) or (covered and rest <= config.max_rest_share * total):
        return Reason.BOILERPLATE, f"{covered} of {total} words"
    return None


def check_length(caption: str, config: SelectConfig) -> Rejection:
    words = count_words(caption)
    if words < config.min_words:
        return Reason.CAPTION_TOO_SHORT, f"{words} word{'s' * (words != 1)}"
    if len(caption) < config.min_characters:
        return Reason.CAPTION_TOO_SHORT, f"{len(caption)} characters"
    return None


def check_language(caption: str, config: SelectConfig) -> Rejection:
    if language.is_english(caption, config.language_detector, config.language_threshold):
        return None
    return Reason.NOT_ENGLISH, config.language_detector


_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+/[!-~]*")  # most are; taking one apart costs more than all other tests
_WORD = re.compile(r"[^\W_]")
_IDEOGRAPHS = re.compile("[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_ABUGIDAS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaa7f]")
MAX_REPEATED_SHARE = 0.5
IDEOGRAPHS_PER_WORD, ABUGIDA_CHARACTERS_PER_WORD = 2, 5
"""Mean characters of a word in Chinese and Japanese, and in Thai, Lao, Khmer and Burmese (marks included), rounded."""


def count_words(text: str) -> int:
    """Words: parts between white space that hold a letter or a digit. Scripts without spaces are counted by their
    characters."""
    if text.isascii():
        return len(list(filter(_WORD.search, text.split())))
    ideographs, abugidas = len(_IDEOGRAPHS.findall(text)), len(_ABUGIDAS.findall(text))
    spaced = _ABUGIDAS.sub(" ", _IDEOGRAPHS.sub(" ", text)) if ideographs or abugidas else text
    words = sum(1 for part in spaced.split() if _WORD.search(part))
    return words - (-ideographs // IDEOGRAPHS_PER_WORD) - (-abugidas // ABUGIDA_CHARACTERS_PER_WORD)
