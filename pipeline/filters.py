"""The checks of select: each takes a row and its clean caption, and gives None or the reason to reject it.

`CHECKS` is the list in the order in which they run; a new check is a function and one line there. Thresholds are the
project's own where the paper gives none; they are settings, and the manifest holds them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Optional
from urllib.parse import urlsplit

from pipeline.records import Candidate, Pair, Reason, Rejected, Stage, reject, row_key, split_of
from pipeline.text import boilerplate, captions, language

UNSUPPORTED_TYPES = frozenset(
    {"image/svg+xml", "image/gif", "image/tiff", "image/vnd.djvu", "image/x-djvu", "image/x.djvu", "application/pdf"}
)
"""Types that are not fetched as they are; Wikipedia has renderings of them."""


class Rejection(NamedTuple):
    """Why a check rejects a row."""

    reason: Reason
    detail: str = ""  # for people: the measure that failed


@dataclass(frozen=True)
class SelectConfig:
    """The settings of the checks. What is particular to a source is among that source's own settings."""

    min_words: int = 3
    min_characters: int = 5
    min_side: int = 64  # px, of the shorter side
    min_ratio: float = 0.5  # width / height; both ends are allowed
    max_ratio: float = 2.0
    language_detector: str = "best"
    language_threshold: Optional[float] = None  # of the detector's score; None: its own
    max_rest_share: float = 0.2  # of a caption's words: one with no more beside its boilerplate is rejected
    val_share: float = 0.01  # of the pairs, held out for validation
    licences: tuple[str, ...] = ()  # of which a row must state one, as the source writes it, in any case; (): any row
    sharma: bool = False  # also the checks of repetition and capitalisation of Sharma et al. 2018, section 3.2


def keep_caption(caption: str) -> str:
    """Changes nothing: the clean-up of a source whose captions hold no marks of its own."""
    return caption


class Caption:
    """A candidate's clean caption, made when a check first asks for it: cleaning costs more than the checks before."""

    def __init__(self, raw: str, tidy: Callable[[str], str] = keep_caption):
        self.raw, self._tidy = raw, tidy

    @functools.cached_property
    def text(self) -> str:
        """The clean text, after the source's own clean-up."""
        return self._tidy(captions.clean_caption(self.raw))


Check = Callable[[Candidate, Caption, SelectConfig], Optional[Rejection]]
"""A pure function: None keeps the row."""


def check_url(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The URL is http or https and has a host. That of an image that the source itself holds may be any name."""
    if _PLAIN_URL.fullmatch(candidate.url):
        return None
    if not candidate.url:
        return Rejection(Reason.NO_URL)
    if candidate.stored_at:
        return None
    try:
        parts = urlsplit(candidate.url)
        usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return Rejection(Reason.BAD_URL, str(error))
    return None if usable else Rejection(Reason.BAD_URL, "not an http or https URL with a host")


def check_type(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The stated type can be decoded. An image that the source itself holds is a rendering already, and passes."""
    if candidate.stored_at:
        return None
    mime_type = candidate.mime_type.partition(";")[0].strip().lower()
    return Rejection(Reason.UNSUPPORTED_TYPE, mime_type) if mime_type in UNSUPPORTED_TYPES else None


def check_size(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """Ratio and size are in bounds where the source states them; those of the fetched image are checked later."""
    width, height = candidate.width, candidate.height
    if not width or not height:
        return None
    if not config.min_ratio * height <= width <= config.max_ratio * height:
        bounds = f"{config.min_ratio:g} to {config.max_ratio:g}"
        return Rejection(Reason.ASPECT_RATIO, f"{width}x{height}, ratio {width / height:.4g}, allowed {bounds}")
    if min(width, height) < config.min_side:
        return Rejection(Reason.TOO_SMALL, f"{width}x{height}, min side {config.min_side}")
    return None


def check_licence(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The row states one of the licences that were asked for."""
    if not config.licences or candidate.licence.casefold() in map(str.casefold, config.licences):
        return None
    return Rejection(Reason.LICENCE, candidate.licence or "not stated")


def check_presence(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """Cleaning leaves a text at all."""
    if caption.text:
        return None
    if captions.has_url(caption.raw):
        return Rejection(Reason.BOILERPLATE, "nothing but links")
    return Rejection(Reason.NO_CAPTION)


def check_file_name(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The caption is not just the name of a file."""
    return Rejection(Reason.FILE_NAME, caption.text) if captions.is_file_name(caption.text) else None


def check_boilerplate(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The caption is not primarily boilerplate: most of its words with a remainder that could not stand alone, or
    nearly all of them. "a dog, photographed on 12 May 2009" is rejected, "photo of a dog taken on 12 May 2009" kept."""
    if not boilerplate.is_possible(caption.text):
        return None
    covered, total = boilerplate.boilerplate_words(caption.text)
    remainder = total - covered
    mostly = covered > remainder and remainder < config.min_words
    if mostly or (covered and remainder <= config.max_rest_share * total):
        phrases = "; ".join(boilerplate.phrases(caption.text))
        return Rejection(Reason.BOILERPLATE, f"{covered} of {total} words: {phrases}")
    return None


def check_length(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The caption has enough words and characters."""
    words, characters = count_words(caption.text), len(caption.text)
    if words < config.min_words:
        return Rejection(Reason.CAPTION_TOO_SHORT, f"{words} word{'s' * (words != 1)}, min {config.min_words}")
    if characters < config.min_characters:
        return Rejection(Reason.CAPTION_TOO_SHORT, f"{characters} characters, min {config.min_characters}")
    return None


def check_repetition(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """At most half of the words, or two, repeat an earlier word, unlike "sale sale sale shoes"."""
    if not config.sharma:
        return None
    words = [word.casefold() for word in caption.text.split() if _WORD.search(word)]
    if len(words) - len(set(words)) > max(2, MAX_REPEATED_SHARE * len(words)):
        return Rejection(Reason.REPETITION, f"{len(set(words))} different of {len(words)} words")
    return None


def check_capitalisation(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """Some word starts in lower case, unlike in headlines and names of products. Scripts without capitals pass, and so
    do captions of fewer than four words."""
    if not config.sharma:
        return None
    words = [word for word in caption.text.split() if word[0].isalpha() and word.lower() != word.upper()]
    if len(words) >= 4 and all(word[0].isupper() for word in words):
        return Rejection(Reason.CAPITALISATION, f"all of {len(words)} words")
    return None


def check_language(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The caption is English by the chosen detector."""
    name = config.language_detector
    found = language.detect(caption.text, name, config.language_threshold)
    if found.is_english:
        return None
    likeliest = language.likeliest_language(caption.text, name) or "unknown"
    return Rejection(
        Reason.NOT_ENGLISH, f"{name} score {found.score:.3f}, threshold {found.threshold:g}, language {likeliest}"
    )


CHECKS: tuple[Check, ...] = (
    # Checks of the row alone come before those that need the clean caption; language detection, the slowest, runs last.
    check_url,
    check_type,
    check_size,
    check_licence,
    check_presence,
    # File names and boilerplate come before the length: they say more about a short text.
    check_file_name,
    check_boilerplate,
    check_length,
    check_repetition,
    check_capitalisation,
    check_language,
)
"""The checks in their order; the first that rejects a row gives the reason."""


def filter_candidate(
    candidate: Candidate,
    config: SelectConfig,
    tidy: Callable[[str], str] = keep_caption,
    checks: tuple[Check, ...] = CHECKS,
) -> Pair | Rejected:
    """The pair that a row becomes, or its reject. `tidy` is the clean-up of its source, after the general one."""
    caption = Caption(candidate.raw_caption, tidy)
    for check in checks:
        if rejection := check(candidate, caption, config):
            return reject(candidate, Stage.SELECT, rejection.reason, rejection.detail)
    key = row_key(candidate.source, candidate.url, candidate.raw_caption)
    return Pair(
        key=key,
        source=candidate.source,
        file=candidate.file,
        row=candidate.row,
        url=candidate.url,
        fallback_urls=candidate.fallback_urls,
        caption=caption.text,
        raw_caption=candidate.raw_caption,
        width=candidate.width,
        height=candidate.height,
        licence=candidate.licence,
        page_url=candidate.page_url,
        split=split_of(key, config.val_share),
        expected_sha256=candidate.expected_sha256,
        stored_at=candidate.stored_at,
    )


_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+/[!-~]*")  # most are; parsing one costs more than all other checks
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
