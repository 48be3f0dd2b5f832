"""E-mail addresses and telephone numbers in captions.

Precision comes first: captions are full of years, coordinates, catalogue numbers and ISBNs. A number counts if it is
valid as libphonenumber knows numbers, and is written as one: with its country's code, divided as its country divides
numbers, or after a word that announces it. Texts without "@" and with fewer than seven digits hold neither."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import NamedTuple

from models.errors import not_installed

REJECT, MASK = "reject", "mask"
EMAIL, PHONE = "<EMAIL>", "<PHONE>"  # as the marks of names in Conceptual Captions: <PERSON>
MIN_DIGITS = 7

_EMAIL = re.compile(
    r"(?<![\w.+@/-])[\w.+-]{1,64}(?<!\.)@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w@])"
)
_ANNOUNCED = re.compile(
    r"\b(?:tele?phones?|phones?|tel|fax|call|calls|ring|dial|mobile|cell|whatsapp|text|sms|contact|hotline|helpline)"
    r"\b[^\d+]{0,20}$",
    re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(
    r"(?:\b(?:isbn|issn|oclc|lccn|naid|ean|upc|doi|id|no|nr|nos|num|number|item|lot|ref|reference|inv|inventory|accession"
    r"|acc|catalogu?e|cat|serial|model|part|plate|negative|neg|photo|image|file|record|object|patent|order|sku)\b|[#№/_=])"
    r"[^\d+a-z]{0,8}$",
    re.IGNORECASE,
)
_DIVIDED = re.compile(r"\d[ ().-]+\d")
_REGIONS = ("US", "GB")  # whose way to divide numbers is known where none is named
_ANNOUNCED_REGIONS = (*_REGIONS, "AU")


class Found(NamedTuple):
    """Where personal data stands in a text."""

    start: int
    stop: int
    mark: str  # EMAIL or PHONE


def check_installed() -> None:
    """Raises UserError without the package of telephone numbers."""
    if importlib.util.find_spec("phonenumbers") is None:
        raise not_installed("--personal-data", "personal")


def version() -> str:
    """The version of the numbers that are known."""
    import phonenumbers

    return str(phonenumbers.__version__)


def find(text: str) -> list[Found]:
    """Addresses and numbers in a text, in order, without overlaps."""
    found = find_addresses(text)
    if sum(map(str.isdecimal, text)) >= MIN_DIGITS:
        for phone in sorted(set(_phones(text))):
            if all(phone.stop <= other.start or other.stop <= phone.start for other in found):
                found.append(phone)
    return sorted(found)


def find_addresses(text: str) -> list[Found]:
    """E-mail addresses in a text, in order."""
    return [Found(match.start(), match.end(), EMAIL) for match in _EMAIL.finditer(text)] if "@" in text else []


def mask(text: str) -> str:
    """The text with a mark in place of each address and number."""
    return _masked(text, find(text))


def mask_addresses(text: str) -> str:
    """The text with a mark in place of each e-mail address."""
    return _masked(text, find_addresses(text))


def _masked(text: str, found: list[Found]) -> str:
    for start, stop, mark in reversed(found):
        text = text[:start] + mark + text[stop:]
    return text


def _phones(text: str) -> Iterator[Found]:
    from phonenumbers import Leniency, PhoneNumberMatcher  # of the extra `personal`

    for region, leniency in (
        ("ZZ", Leniency.VALID),  # of no country: such as begin with its code
        *((region, Leniency.STRICT_GROUPING) for region in _REGIONS),
        *((region, Leniency.VALID) for region in _ANNOUNCED_REGIONS),
    ):
        for match in PhoneNumberMatcher(text, region, leniency=leniency):
            before, number = text[: match.start], match.raw_string
            is_named = number.startswith("+") or bool(_ANNOUNCED.search(before))
            if is_named or (leniency == Leniency.STRICT_GROUPING and _stands_alone(before, number)):
                yield Found(match.start, match.end, PHONE)


def _stands_alone(before: str, number: str) -> bool:
    """Whether a number that nothing announces is divided as telephone numbers are, and is no other number."""
    return bool(_DIVIDED.search(number)) and not _OTHER_NUMBER.search(before)
