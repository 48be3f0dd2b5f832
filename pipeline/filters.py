"""The checks of select: each takes a row and its clean caption, and gives None or the reason to reject it.

`CHECKS` is the list in the order in which they run; a new check is a function, here or in a module of `checks/`, and a
line there. Thresholds are the project's own where the paper gives none; they are settings, and the manifest holds
them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Optional
from urllib.parse import urlsplit

from pipeline.checks.check import Caption as Caption
from pipeline.checks.check import Check as Check
from pipeline.checks.check import Rejection as Rejection
from pipeline.checks.check import SelectConfig as SelectConfig
from pipeline.checks.check import keep_caption as keep_caption
from pipeline.records import Candidate, Pair, Reason, Rejected, Stage, reject, row_key, split_of
from pipeline.text import boilerplate, captions, language, personal_data

UNSUPPORTED_TYPES = frozenset(
    {"image/svg+xml", "image/gif", "image/tiff", "image/vnd.djvu", "image/x-djvu", "image/x.djvu", "application/pdf"}
)
"""Types that are not fetched as they are; Wikipedia has renderings of them."""


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
    if mime_type.startswith("video/"):
        return Rejection(Reason.VIDEO, mime_type)
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


def check_encoding(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """No character of the caption was lost before it was published."""
    if "\ufffd" not in caption.text:
        return None
    return Rejection(Reason.MALFORMED_ROW, f"a character of the caption was lost (U+FFFD): {caption.text}")


def check_file_name(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The caption is not just the name of a file."""
    return Rejection(Reason.FILE_NAME, caption.text) if captions.is_file_name(caption.text) else None


def check_boilerplate(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The caption is not primarily boilerplate: most of its words with a remainder that could not stand alone, or
    nearly all of them, or all by what its words say together. "a dog, photographed on 12 May 2009" is rejected, "photo
    of a dog taken on 12 May 2009" kept."""
    if boilerplate.may_hold_phrases(caption.text):
        covered, total = boilerplate.boilerplate_words(caption.text)
        remainder = total - covered
        mostly = covered > remainder and remainder < config.min_words
        if mostly or (covered and remainder <= config.max_rest_share * total):
            phrases = "; ".join(boilerplate.phrases(caption.text))
            return Rejection(Reason.BOILERPLATE, f"{covered} of {total} words: {phrases}")
    if boilerplate.is_whole(caption.text):
        return Rejection(Reason.BOILERPLATE, f"all words: {caption.text}")
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


def check_personal_data(candidate: Candidate, caption: Caption, config: SelectConfig) -> Optional[Rejection]:
    """The caption holds no e-mail address, which cleaning may have dropped, and no telephone number."""
    if config.personal_data != personal_data.REJECT:
        return None
    if not (found := [*personal_data.find_addresses(caption.raw), *personal_data.find(caption.text)]):
        return None
    return Rejection(Reason.PERSONAL_DATA, ", ".join(sorted({each.mark for each in found})))


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
    Check(check_url, of_row=True),
    Check(check_type, of_row=True),
    Check(check_size, of_row=True),
    Check(check_licence, of_row=True),
    Check(check_presence, of_parts=True),
    Check(check_encoding, of_parts=True),
    # File names and boilerplate come before the length: they say more about a short text.
    Check(check_file_name, of_parts=True),
    Check(check_boilerplate, of_parts=True),
    Check(check_length),
    Check(check_repetition),
    Check(check_capitalisation),
    Check(check_personal_data, of_parts=True),
    Check(check_language, of_parts=True),
)
"""The checks in their order; the first that rejects a row gives the reason."""


def repaired(candidate: Candidate) -> Candidate:
    """The row with an address that can be fetched: `//upload.wikimedia.org/...` gets a scheme, `&amp;` in a query is
    "&"; the address as stated is tried after it."""
    url = candidate.url
    if url.startswith(WITHOUT_SCHEME):
        url = f"https:{url}"
    path, mark, query = url.partition("?")
    if mark and "&" in query:
        url = f"{path}?{_AMPERSAND.sub('&', query)}"
    if url == candidate.url:
        return candidate
    stated = () if candidate.url.startswith(WITHOUT_SCHEME) else (candidate.url,)
    return candidate._replace(url=url, fallback_urls=(*stated, *candidate.fallback_urls))


WITHOUT_SCHEME = "//upload.wikimedia.org/"
"""How pages of Wikipedia write their images' addresses."""


def filter_candidate(
    candidate: Candidate,
    config: SelectConfig,
    tidy: Callable[[str], str] = keep_caption,
    checks: Optional[Sequence[Check]] = None,
) -> Pair | Rejected:
    """The pair that a row becomes, or its reject. Of its texts the first that passes is the caption, and those behind
    it that pass are its other captions; if none does, the reject tells of the first. `tidy` is the clean-up of its
    source, after the general one. `checks`: CHECKS unless given."""
    checks = CHECKS if checks is None else checks
    candidate, first = repaired(candidate), None
    for number, raw in enumerate((candidate.raw_caption, *candidate.alternatives)):
        caption = Caption(raw, tidy, config.personal_data == personal_data.MASK)
        check, rejection = _first_rejection(candidate, caption, config, checks)
        if not rejection and raw == candidate.raw_caption:
            rejection = _rejection_of_part(candidate, config, tidy, checks)
        if not rejection:
            pair, others = _pair(candidate, caption, config), candidate.alternatives[number:]
            return pair._replace(other_captions=_others(candidate, caption, others, config, tidy, checks))
        first = first or rejection
        if check and check.of_row:
            break
    assert first  # there is at least one text
    return reject(candidate, Stage.SELECT, first.reason, first.detail)


def hide_personal_data(outcome: Pair | Rejected, config: SelectConfig) -> Pair | Rejected:
    """The outcome of a row without e-mail addresses and telephone numbers in any of its texts, if the settings ask for
    either: those of rejects, and what cleaning left out of a caption, are written to files as well."""
    if not config.personal_data:
        return outcome
    mask = personal_data.mask
    if isinstance(outcome, Rejected):
        return outcome._replace(detail=mask(outcome.detail), raw_caption=mask(outcome.raw_caption))
    return outcome._replace(
        caption=mask(outcome.caption),
        raw_caption=mask(outcome.raw_caption),
        other_captions=tuple(map(mask, outcome.other_captions)),
    )


def _others(
    candidate: Candidate,
    caption: Caption,
    texts: Sequence[str],
    config: SelectConfig,
    tidy: Callable[[str], str],
    checks: Sequence[Check],
) -> tuple[str, ...]:
    """The clean forms of the first MAX_OTHER_CAPTIONS texts that pass all checks and differ from the caption and each
    other by more than capitals. A text that the caption joins is no other one."""
    parts = candidate.parts if caption.raw == candidate.raw_caption else ()
    known, others = {caption.text.casefold()}, list[str]()
    for raw in texts:
        other = Caption(raw, tidy, config.personal_data == personal_data.MASK)
        if raw in parts or other.text.casefold() in known:
            continue
        known.add(other.text.casefold())
        if not _first_rejection(candidate, other, config, checks)[1]:
            others.append(_kept_text(other, config))
        if len(others) == MAX_OTHER_CAPTIONS:
            break
    return tuple(others)


MAX_OTHER_CAPTIONS = 8
"""So that a pair stays small: an image of WIT may stand on a hundred pages."""


def _first_rejection(
    candidate: Candidate, caption: Caption, config: SelectConfig, checks: Sequence[Check]
) -> tuple[Check, Rejection] | tuple[None, None]:
    """The first check that rejects a row with a caption, and why; twice None if the row passes."""
    for check in checks:
        if rejection := check.rejection(candidate, caption, config):
            return check, rejection
    return None, None


def _rejection_of_part(
    candidate: Candidate, config: SelectConfig, tidy: Callable[[str], str], checks: Sequence[Check]
) -> Optional[Rejection]:
    """Why one of the texts that are joined can't stand in the caption: each has to be what a caption is but long."""
    chosen = [check for check in checks if check.of_parts]
    parts = (Caption(part, tidy) for part in candidate.parts)
    found = (_first_rejection(candidate, part, config, chosen)[1] for part in parts if part.text)
    return next(filter(None, found), None)


def _kept_text(caption: Caption, config: SelectConfig) -> str:
    """The clean text of a caption that passes, by choice without the boilerplate at its end."""
    if not config.cut_tails:
        return caption.text
    text = boilerplate.without_tail(caption.text)
    return text if count_words(text) >= config.min_words else caption.text


def _pair(candidate: Candidate, caption: Caption, config: SelectConfig) -> Pair:
    key = row_key(candidate.source, candidate.url, caption.raw)
    return Pair(
        key=key,
        source=candidate.source,
        file=candidate.file,
        row=candidate.row,
        url=candidate.url,
        fallback_urls=candidate.fallback_urls,
        caption=_kept_text(caption, config),
        raw_caption=caption.raw,
        width=candidate.width,
        height=candidate.height,
        licence=candidate.licence,
        page_url=candidate.page_url,
        split=split_of(key, config.val_share),
        expected_sha256=candidate.expected_sha256,
        stored_at=candidate.stored_at,
    )


_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+/[!-~]*")  # most are; parsing one costs more than all other checks
_AMPERSAND = re.compile("&(?:amp|#0*38);", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]")
_MARKS = re.compile(r"<[A-Z]+>(?:(?:\W|\b(?:and|with)\b)*<[A-Z]+>)+")  # "<PERSON> <PERSON>": replaced names
_IDEOGRAPHS = re.compile("[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_ABUGIDAS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaa7f]")
MAX_REPEATED_SHARE = 0.5
IDEOGRAPHS_PER_WORD, ABUGIDA_CHARACTERS_PER_WORD = 2, 5
"""Mean characters of a word in Chinese and Japanese, and in Thai, Lao, Khmer and Burmese (marks included), rounded."""


def count_words(text: str) -> int:
    """Words: parts between white space that hold a letter or a digit. Scripts without spaces are counted by their
    characters; marks of names side by side are one word."""
    if "<" in text:
        text = _MARKS.sub("<>x", text)
    if text.isascii():
        return len(list(filter(_WORD.search, text.split())))
    ideographs, abugidas = len(_IDEOGRAPHS.findall(text)), len(_ABUGIDAS.findall(text))
    spaced = _ABUGIDAS.sub(" ", _IDEOGRAPHS.sub(" ", text)) if ideographs or abugidas else text
    words = sum(1 for part in spaced.split() if _WORD.search(part))
    return words - (-ideographs // IDEOGRAPHS_PER_WORD) - (-abugidas // ABUGIDA_CHARACTERS_PER_WORD)
