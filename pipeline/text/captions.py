"""Captions as people wrote them, out of what the web made of them.

`clean_caption` repairs and unwraps: wrong encodings (ftfy), HTML tags and entities, control and zero-width characters,
white space. Noise of the web goes by these rules, and nothing else is cut:
- a URL, a domain with a path, an e-mail address and an @handle go, with the brackets that held nothing else;
- a hashtag loses its '#' and stays as a word ("#sunset" -> "sunset"), "#1" stays as it is;
- white space and separators that are left at either end go.
Cleaning a clean caption changes nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import ftfy

MAX_ROUNDS = 16
"""Rounds of unwrapping ("&amp;lt;b&amp;gt;" takes three)."""
MAX_CHARACTERS = 10_000
"""A longer text is cut: 256 tokens end long before, and some of the patterns take time in proportion to its square."""

_SEPARATORS = frozenset("-–—|·•:;,/\\>~*_=")
_SEPARATOR = rf"[{re.escape(''.join(sorted(_SEPARATORS)))}]+"
# Nothing below can touch such a text unless it is suspect
_PLAIN = re.compile(r"""[A-Za-z0-9"'(!?](?:[A-Za-z0-9 "'(),.!?:;%$-]*[A-Za-z0-9"')!?.])?""")
_SUSPECT = re.compile(r"  |www\.|\(\s*\)|^\W*(?:untitled|no title)", re.IGNORECASE)

_INLINE = "a|abbr|b|big|cite|code|del|em|font|i|ins|kbd|nowiki|q|ref|s|samp|small|span|strike|strong|sub|sup|tt|u|var"
_BLOCK = (
    "article|aside|audio|blockquote|body|br|button|center|dd|div|dl|dt|embed|figcaption|figure|footer|form|h[1-6]|head|"
    "header|hr|html|iframe|img|input|label|li|link|meta|object|ol|p|param|pre|script|section|source|style|table|tbody|"
    "td|tfoot|th|thead|title|tr|ul|video"
)
_HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCK})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_CUT_TAG = re.compile(r"<(?:a|img|font|span|div)\s+\w+\s*=[^<>]*$", re.IGNORECASE)  # a caption cut off inside a tag
# only with the semicolon: "AT&T", and "&copy=1" in a URL's query, are no entities
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

_SPACE = re.compile(r"[\s\u2800\u3164\uffa0]+")
_INVISIBLE = re.compile(
    "\x1b\\[[0-9;]*m|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff\ud800-\udfff]"
    # joiners mean something only between letters of scripts that join, and inside emoji
    "|(?<![\u0590-\U0010fffd])[\u200c\u200d]+|[\u200c\u200d]+(?![\u0590-\U0010fffd])"
)

_URL = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:https?|ftps?):/{1,2}|www\.)[^\s<>\"()]*(?:\([^\s<>\"()]*\)[^\s<>\"()]*)*"
    r"|(?<![\w.@/-])(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|info|biz|de|uk|fr|jp|it|es|nl|ru|cn|ca|au|us|eu|ly|gl|co|me|"
    r"tv|io)/[^\s<>\"()]*",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_HANDLE = re.compile(r"(?<![\w@])@[A-Za-z_]\w+(?:'s\b)?")
_HASHTAG = re.compile(r"(?<!\w)#+(?=[^\W\d_])")
_STRAY_SEPARATORS = re.compile(rf"^(?:{_SEPARATOR}(?:\s+|$))+|(?:(?:\s+|^){_SEPARATOR})+$")
_BBCODE = re.compile(r"\[/?(?:url|img|b|i|u|quote|center|color|size)(?:=[^\]\s]*)?\]", re.IGNORECASE)
# what an address leaves behind: "(see )", "(via )", a bracket that is not closed at the end or not opened at the start
_LEFT_BRACKETS = re.compile(
    r"[(\[{<]\s*(?:(?:see|via|from|source|link|photo|image|picture|more|at|by|cf|here|visit|read|and|or|also|on|info|site|"
    r"website|web|url)\b\s*)*[.:,;]*\s*[)\]}>]|[(\[{<]\s*$|^\s*[)\]}>]",
    re.IGNORECASE,
)
_BEHIND_URL = re.compile(r"[\]}][\]}.,;:!?']*$")
_LONE_SURROGATE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_UNTITLED = re.compile(r"^[\W_]*(?:untitled|no title)(?:[\s_-]*\d{1,4})?\s*(?:[.:;,|)\]-]+\s*)+(?=\S)", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}|<\s*>")

_IMAGE_ENDING = r"\.(?:jpe?g|jpe|png|gif|tiff?|webp|heic|bmp|svg|raw|nef|cr2|arw|dng|psd|avi|mov|mp4|mpe?g|pdf|djvu)"
_CAMERA = (
    "IMG|IMGP|IMG_E|IMAG|IMAGE|DSC|DSCF|DSCN|DSCI|MG|IGP|PICT|PIC|PICTURE|PHOTO|FOTO|BILD|SCAN|CIMG|CRW|DCP|DCAM|EOS|GOPR|"
    "DJI|PANO|PXL|MVI|MVC|MOV|VID|CLIP|HPIM|HPNX|KIF|SAM|SDC|SSL|WP|UNTITLED|FILE|FB_IMG|YDXJ|RIMG"
)
_SUFFIX = (
    r"(?:[\s_-]*(?:\(\d+\)|copy|edit(?:ed)?|v\d|crop(?:ped)?|hdr|bw|small|web|large|resized?|final|pano|pro)"
    r"|[\s_-]+\d+)*"
)
_FILE_NAME = re.compile(
    rf"(?:_?(?:{_CAMERA})[\s_#-]*\d{{3,}}[\d\s_.-]*|"  # IMG_0520, DSC01234, Image 012
    r"(?:IMG|VID|PXL|PANO|SCREEN\s?SHOT|WHATSAPP (?:IMAGE|VIDEO))[\s_-]*(?:from\s)?\d[\d\s_.:-]*"
    r"(?:(?:at|um|à|de)\s[\d.:\s]*)?(?:\s?[AP]M)?(?:[\s_-]?WA\d+)?|"  # Screenshot 2019-04-05 at 10.11.12 AM
    r"\d{1,4}[_-]\d{3,}|\d{3}[A-Z]{1,4}\d{4}|"  # 100_1234, 100B1234
    r"\d{4}[-_.]?\d{2}[-_.]?\d{2}[\sT_-]+\d{2}[-_.:h]?\d{2}(?:[-_.:m]?\d{2})?[\d.]*|"  # 20160716_113957
    r"(?=\w*\d)[0-9a-f]{12,}|\d{4,}(?:_\w{4,16}){1,2}|"  # hashes, Flickr's id_secret_o
    r"[A-Z]{0,3}\d{5,}"  # P1010123, R0012345
    rf")[a-z]?{_SUFFIX}(?:{_IMAGE_ENDING})?",
    re.IGNORECASE,
)
_NAMED_FILE = re.compile(rf"(?:File:|Image:)?\S+{_IMAGE_ENDING}", re.IGNORECASE)


def clean_caption(raw: str) -> str:
    """The caption, clean; "" if nothing is left."""
    if len(raw) <= MAX_CHARACTERS and _PLAIN.fullmatch(text := raw.strip()) and not _SUSPECT.search(text):
        return text
    return _until_settled(_clean_once, raw[:MAX_CHARACTERS])


def is_file_name(text: str) -> bool:
    """Whether a text is nothing but a name that a camera, a program or a server gave to a file."""
    text = text.strip()
    return len(text) <= 120 and bool(_FILE_NAME.fullmatch(text) or _NAMED_FILE.fullmatch(text))


def has_url(text: str) -> bool:
    return bool(_URL.search(text))


def detokenise(text: str) -> str:
    """The usual spacing of a caption whose tokens were set apart: `it does n't rain .` -> `it doesn't rain.`"""
    if _ONLY_STOPS.fullmatch(text):
        return text.replace(" ,", ",").replace(" .", ".")
    return _until_settled(_join_once, text)


def _join_once(text: str) -> str:
    if not _SET_APART.search(text):
        return text
    for hints, pattern, replacement in _UNDO:
        if any(map(text.__contains__, hints)):
            text = pattern.sub(replacement, text)
    return text


def _until_settled(step: Callable[[str], str], text: str) -> str:
    for _ in range(MAX_ROUNDS):
        changed = step(text)
        if changed == text:
            break
        text = changed
    return text


# Words, commas and a full stop at the end: most captions, and nothing but these two are apart
_ONLY_STOPS = re.compile(r"[A-Za-z0-9]+(?: ,)?(?: [A-Za-z0-9]+(?: ,)?)*(?: \.)?")
_SET_APART = re.compile(r"\s(?:[^\w\s]|[nN]'[tT])|[(\[{$£€#]\s|``|''")
# Each with what a text must hold for it to apply.
_UNDO = [
    (hints, re.compile(pattern), replacement)
    for hints, pattern, replacement in (
        (("``", "''"), r"``|''", '"'),
        ('"', r"(?<!\S)\"\s+([^\"]*?)\s+\"(?!\S)", r'"\1"'),
        ("'", r"(?<!\S)'\s+([^']*[^s'\s])\s+'(?!\S)", r"'\1'"),
        ("'", r"(\w)\s+(n't|N'T|'(?:s|S|re|ve|ll|d|m|RE|VE|LL|D|M))(?!\w)", r"\1\2"),
        ("'", r"(\ws)\s+'(?=\s)", r"\1'"),
        (".", r"(?<=\.)\s+(?=\.(?:\s|$|\.))", ""),
        (".,!?;:%)]}…", r"(?<=\S)\s+(?=(?:[.,!?;:%)\]}…]|\.\.\.)(?:\W|$))", ""),
        ("([{", r"(?<=[(\[{])\s+", ""),
        ("$£€#", r"([$£€#])\s+(?=\d)", r"\1"),
        # the hyphens of compounds; between longer words a dash can't be told from a hyphen
        ("-", r"\b(\w|\d+)\s+-\s+(?=\w)", r"\1-"),
        ("-", r"(?<=\w)\s*-\s+(and|in|of|the|to|old|up|style|like|shaped|based|made)\s+-\s+(?=\w)", r"-\1-"),
        (("-year",), r"(?<=-year)\s+-\s+(?=old)", "-"),
    )
]


def _clean_once(text: str) -> str:
    if not text.isascii():
        # before control characters go: where text was decoded wrongly, U+0080 to U+009F are parts of letters
        text = ftfy.fix_text(_LONE_SURROGATE.sub("", text))
    if not (text.isascii() and text.isprintable()):
        text = _INVISIBLE.sub("", text)
    if "<" in text:
        text = _HIDDEN.sub(" ", text)
        text = _BLOCK_TAG.sub(" ", text)
        text = _CUT_TAG.sub("", _INLINE_TAG.sub("", text))
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if "[" in text:
        text = _BBCODE.sub(" ", text)
    without = _URL.sub(_without_url, text) if "/" in text or "www." in text.lower() else text
    if "@" in without:
        without = _HANDLE.sub(" ", _EMAIL.sub(" ", without))
    if without != text:
        text = _LEFT_BRACKETS.sub(" ", without)
    if "#" in text:
        text = _HASHTAG.sub("", text)
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = " ".join(text.split()) if text.isascii() else _SPACE.sub(" ", text).strip()
    if not _SEPARATORS.isdisjoint(text[:1] + text[-1:]):
        text = _STRAY_SEPARATORS.sub("", text)
    return _UNTITLED.sub("", text)


def _without_url(match: re.Match[str]) -> str:
    """What stays of an address: brackets that only stood behind it."""
    behind = _BEHIND_URL.search(match[0])
    return f" {behind[0]}" if behind else " "
