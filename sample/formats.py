"""The published formats of the four sources, written: one pure function a format, a row in, text out.

Parsers live in `pipeline/sources/`; this is their mirror, and shares no code with them, so that a mistake on one
side shows on the other.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, quote_plus

KEPT = "kept"


class Image(NamedTuple):
    """One line of captions.jsonl."""

    file: str  # name under images/
    caption: str
    width: int  # px
    height: int
    author: str
    licence: str  # public-domain or CC0-1.0
    source_url: str
    title: str


class Row(NamedTuple):
    """A row of a source before it takes the source's format."""

    source: str
    expected: str  # KEPT, or the reason it should be rejected for
    note: str = ""  # what is odd about it; empty for an ordinary row
    url: str = ""  # absolute, or a path under the server's root
    caption: str = ""
    image: Image | None = None
    fields: Mapping[str, str] = {}  # published columns by name, over what would be derived
    raw: str | None = None  # the whole line, for rows that no format allows


def address(row: Row, base_url: str) -> str:
    """The row's absolute URL. Only the server's own paths are completed: a wrong or empty URL stays as it is."""
    ours = row.url.startswith(("images/", "odd/", "odd-routes/"))
    return f"{base_url.rstrip('/')}/{row.url}" if ours else row.url


# Conceptual Captions ------------------------------------------------------------------------------------------------

_NAMES = re.compile(r"\b(?:Vincent )?Van Gogh\b|\b(?:Berthe )?Morisot\b|\bCabrillo\b")
_TOKEN = re.compile(r"\d+(?:[/.:,]\d+)+|\w+(?:-\w+)*|'s\b|[^\w\s]")


def cc3m_caption(caption: str) -> str:
    """Lower-cased, tokenised, names replaced by what they stand for, as CC3M was published."""
    return " ".join(_TOKEN.findall(_NAMES.sub("artist", caption).lower()))


def cc3m_line(row: Row, base_url: str) -> str:
    """Caption, tab, URL."""
    return f"{cc3m_caption(row.caption)}\t{address(row, base_url)}"


def cc12m_line(row: Row, base_url: str) -> str:
    """URL, tab, raw alt-text in which a person's name has become <PERSON>."""
    return f"{address(row, base_url)}\t{_NAMES.sub('<PERSON>', row.caption)}"


# YFCC100M -----------------------------------------------------------------------------------------------------------

YFCC_COLUMNS = (
    "photoid",
    "uid",
    "unickname",
    "datetaken",
    "dateuploaded",
    "capturedevice",
    "title",
    "description",
    "usertags",
    "machinetags",
    "longitude",
    "latitude",
    "accuracy",
    "pageurl",
    "downloadurl",
    "licensename",
    "licenseurl",
    "serverid",
    "farmid",
    "secret",
    "secretoriginal",
    "ext",
    "marker",
)
_FORM_ENCODED = ("unickname", "capturedevice", "title", "description")
_DEVICES = ("", "Pocket Camera 100", "Reflex+ D40", "Phone/2")
_COMMONS_LICENCES = {
    "CC0-1.0": ("Public Domain Dedication License", "http://creativecommons.org/publicdomain/zero/1.0/"),
    "public-domain": ("Public Domain Mark License", "http://creativecommons.org/publicdomain/mark/1.0/"),
}
FLICKR_LICENCES = tuple(
    (f"{name} License", f"http://creativecommons.org/licenses/{code}/2.0/")
    for name, code in (
        ("Attribution", "by"),
        ("Attribution-NonCommercial", "by-nc"),
        ("Attribution-NoDerivs", "by-nd"),
        ("Attribution-NonCommercial-NoDerivs", "by-nc-nd"),
        ("Attribution-ShareAlike", "by-sa"),
        ("Attribution-NonCommercial-ShareAlike", "by-nc-sa"),
    )
)


def yfcc_hash(download_url: str) -> str:
    """MD5 of the URL, each byte in hex without zero padding: most hashes have fewer than 32 characters."""
    return "".join(f"{byte:x}" for byte in hashlib.md5(download_url.encode()).digest())


def _numbers(text: str) -> list[int]:
    """Sixteen numbers in 0..255 that depend on nothing but the text."""
    return list(hashlib.md5(text.encode()).digest())


def yfcc_values(row: Row, base_url: str) -> dict[str, str]:
    """The 23 published columns by name, encoded. Ids, dates, devices and servers are made up from a hash."""
    n = _numbers(row.url + row.caption)
    photo_id = 1_000_000_000 + int.from_bytes(bytes(n[:4]), "big") * 2
    user = f"{10_000_000 + int.from_bytes(bytes(n[4:7]), 'big')}@N99"  # Flickr's own end in @N00 to @N08
    year, month, day = 2004 + n[7] % 10, 1 + n[8] % 12, 1 + n[9] % 28
    taken = f"{year}-{month:02}-{day:02} {n[10] % 24:02}:{n[11] % 60:02}:{n[12] % 60:02}.0"
    licence = _COMMONS_LICENCES[row.image.licence] if row.image else FLICKR_LICENCES[n[13] % 6]
    values = {
        "photoid": str(photo_id),
        "uid": user,
        "unickname": row.image.author if row.image else f"user {n[0]}",
        "datetaken": "null" if n[14] < 32 else taken,
        "dateuploaded": str(1_400_000_000 + n[15] * 1000 + n[0]),
        "capturedevice": _DEVICES[n[1] % 4],
        "title": row.caption,
        "description": "",
        "usertags": ",".join(quote_plus(word.lower()) for word in (row.image.title.split() if row.image else ())),
        "machinetags": "geo%3Asource%3Dmade+up,sample%3Apart%3Dyfcc" if n[2] < 64 else "",
        "longitude": "",
        "latitude": "",
        "accuracy": "",
        "pageurl": row.image.source_url if row.image else f"http://www.flickr.com/photos/{user}/{photo_id}/",
        "downloadurl": address(row, base_url),
        "licensename": licence[0],
        "licenseurl": licence[1],
        "serverid": str(1000 + n[3]),
        "farmid": str(1 + n[4] % 9),
        "secret": bytes(n[:5]).hex(),
        "secretoriginal": bytes(n[5:10]).hex(),
        "ext": row.url.rpartition(".")[2],
        "marker": "0",
    }
    values |= row.fields
    return values | {name: quote_plus(values[name]) for name in _FORM_ENCODED}


def yfcc_line(row: Row, base_url: str) -> str:
    """23 fields."""
    values = yfcc_values(row, base_url)
    return "\t".join(values[name] for name in YFCC_COLUMNS)


def yfcc_numbered_line(row: Row, base_url: str, line: int) -> str:
    """25 fields: line number, photo id, photo hash, then the other 22."""
    values = yfcc_values(row, base_url)
    rest = (values[name] for name in YFCC_COLUMNS[1:])
    return "\t".join((str(line), values["photoid"], yfcc_hash(values["downloadurl"]), *rest))


# WIT ----------------------------------------------------------------------------------------------------------------

WIT_COLUMNS = (
    "language",
    "page_url",
    "image_url",
    "page_title",
    "section_title",
    "hierarchical_section_title",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
    "is_main_image",
    "attribution_passes_lang_id",
    "page_changed_recently",
    "context_page_description",
    "context_section_description",
)
_MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}


def wit_values(row: Row, base_url: str) -> dict[str, str]:
    """The 17 published columns by name. Width and height are those of the file, or 640 x 480 where there is none."""
    image = row.image
    title = image.title if image else "A page"
    main = "true" if _numbers(row.url)[0] % 2 else "false"
    page = f"https://{row.fields.get('language', 'en')}.wikipedia.org/wiki/{quote(title.replace(' ', '_'))}"
    values = {
        "language": "en",
        "page_url": page,
        "image_url": address(row, base_url),
        "page_title": title,
        "section_title": "Gallery",
        "hierarchical_section_title": f"{title} / Gallery",
        "caption_reference_description": row.caption,
        "caption_attribution_description": "",
        "caption_alt_text_description": "",
        "mime_type": _MIME.get(row.url.rpartition(".")[2], "image/jpeg"),
        "original_height": str(image.height if image else 480),
        "original_width": str(image.width if image else 640),
        "is_main_image": main,
        "attribution_passes_lang_id": "true",
        "page_changed_recently": "true",
        "context_page_description": f'The page is about "{title}".\nIts second paragraph says no more.',
        "context_section_description": "",
    }
    return values | dict(row.fields)


def wit_text(cells: list[str]) -> str:
    """One record of the CSV dialect: tabs, minimal quoting, doubled quotes, real newlines inside quotes."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", quoting=csv.QUOTE_MINIMAL, lineterminator="\n").writerow(cells)
    return text.getvalue()


def wit_record(row: Row, base_url: str) -> str:
    """One row of WIT."""
    values = wit_values(row, base_url)
    return wit_text([values[name] for name in WIT_COLUMNS])
