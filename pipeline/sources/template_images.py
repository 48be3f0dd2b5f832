"""Images that templates name in their parameters, with the captions beside them.

A parameter whose value is the name of an image file is one: `image=`, `Ship image=`, `static_image_name=`, `cover=`,
`image_map=`, and the unnamed ones of `{{Gallery}}` or `{{wide image}}`. Its caption is in the parameter that is called
as the image's, with "caption" in the place of "image" or behind it: `Ship caption`, `map_caption`, `caption2`; for the
main image also in `caption`, for those of a group in `footer`."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class NamedImage(NamedTuple):
    """An image of a template."""

    name: str  # of the file, as written
    caption: str  # wikitext
    is_link: bool = False  # the value is a link in full, `[[File:...]]`, which stands for itself


MAX_TEMPLATE = 100_000  # characters of one that is looked at
_ENDINGS = r"(?:jpe?g|png|gif|svg|tiff?|webp|xcf|webm|ogv)"
_VALUE = re.compile(
    rf"[|=]\s*(?:\[\[)?[^|={{}}\[\]<>\n]+\.{_ENDINGS}\s*(?:<!--.*?-->\s*)?(?=[|}}\]\n<])", re.IGNORECASE
)
_NO_IMAGES = re.compile(
    r"cite|citation|sfn|efn|commons|webarchive|official|url\b|see also|main\b|listen|external media"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


_NO_IMAGE = _words(
    "title,url,archive url,archiveurl,website,quote,publisher,work,chapter,journal,sound,trans title,source,audio"
)
"""Parameters whose value may end like the name of an image."""
_FILE_WORDS = _words("file,filename,name")
_IMAGE_WORDS = _FILE_WORDS | _words(
    "image,images,photo,photograph,picture,img,pic,bild,imagen,immagine,imagem,afbeelding,grafika,foto,fichier,datei,"
    "изображение"
)
_MAIN_WORDS = _IMAGE_WORDS | _words("cover,skyline,main,static,poster,screenshot,fossil,portrait,scan,article")
_CAPTION_WORDS = ("caption", "legend", "text", "desc", "description", "title")
_MAIN_CAPTIONS = (
    "caption", "imagecaption", "photocaption", "imgcaption", "picturecaption", "covercaption", "imagedescription",
    "description",
    "bildtext", "bildbeschreibung", "légende", "legende", "piedeimagen", "pie", "didascalia", "legenda", "onderschrift",
    "podpis", "descripción", "подпись",
)  # fmt: skip
_NO_CAPTION = re.compile(
    r"(?:\d+(?:\.\d+)?\s*(?:px|%|em)?|left|right|center|centre|none|thumb|yes|no|on|off|alt=.*)", re.IGNORECASE
)


def template_images(text: str, prefix: str) -> Iterator[NamedImage]:
    """The images that a page's templates name, in the order of the text. `prefix`: a pattern of what stands before a
    file's name."""
    hits = [match.start() for match in _VALUE.finditer(text)]
    spans = _template_spans(text) if hits else []
    for start, end in sorted({span for hit in hits if (span := _innermost(spans, hit))}):
        name, *parts = split_parts(text[start + 2 : end - 2])
        if not _NO_IMAGES.match(name.strip().lower()):
            yield from _images_of(parts, prefix)


def balanced(text: str, start: int, opening: str, closing: str) -> str:
    """What stands between an opening and its closing; "" if it is never closed. Of three closing brackets the first may
    close a link to another site, `[[File:A.jpg|a view [https://x.example from here]]]`."""
    depth, bracket = 0, re.escape(closing[0])
    pattern = re.compile(rf"{re.escape(opening)}|{re.escape(closing)}(?!{bracket}(?!{bracket}))")
    for match in pattern.finditer(text, start, start + MAX_TEMPLATE):
        depth += 1 if match[0] == opening else -1
        if not depth:
            return text[start + len(opening) : match.start()]
    return ""


def split_parts(text: str) -> list[str]:
    """Parts between bars that are in no link and no template."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"\[\[|\]\]|\{\{|\}\}|\|", text):
        if match[0] in ("[[", "{{"):
            depth += 1
        elif match[0] in ("]]", "}}"):
            depth -= 1
        elif depth <= 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _template_spans(text: str) -> list[tuple[int, int]]:
    """Where templates begin and end, sorted by their beginnings."""
    spans: list[tuple[int, int]] = []
    open_at: list[int] = []
    for match in re.finditer(r"\{\{|\}\}", text):
        if match[0] == "{{":
            open_at.append(match.start())
        elif open_at:
            spans.append((open_at.pop(), match.end()))
    return sorted(span for span in spans if span[1] - span[0] <= MAX_TEMPLATE)


def _innermost(spans: Sequence[tuple[int, int]], position: int) -> tuple[int, int] | None:
    """The smallest span around a position."""
    for span in reversed(spans[: bisect.bisect(spans, (position, 0))]):
        if span[1] > position:
            return span
    return None


def _images_of(parts: Sequence[str], prefix: str) -> Iterator[NamedImage]:
    named: dict[str, str] = {}
    unnamed: list[str] = []
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and not re.search(r"[\[{<]", key):
            named[re.sub(r"[\s_-]+", " ", key).strip().lower()] = value.strip()
        else:
            unnamed.append(part.strip())
    yield from _of_unnamed(unnamed, prefix)
    images = {key: file for key, value in named.items() if (file := _file_of(value, prefix)) and key not in _NO_IMAGE}
    values = {key.replace(" ", ""): value for key, value in named.items()}
    has_main = any(map(_is_main, images))
    for number, (key, file) in enumerate(images.items()):
        names = caption_names(key, is_main=_is_main(key) or (number == 0 and not has_main))
        yield file._replace(caption=next((values[name] for name in names if values.get(name)), ""))


def _file_of(value: str, prefix: str) -> NamedImage | None:
    """The image that a value names: by its name, or by a link."""
    link = re.match(rf"\[\[{prefix}\s*([^|\]]+)", value, re.IGNORECASE)
    if link:
        return NamedImage(link[1].strip(), "", True)
    value = re.sub(r"<!--.*?-->|<br\s*/?>\s*$", "", value).strip()
    if not re.fullmatch(rf"[^\[\]{{}}<>|\n]+\.{_ENDINGS}", value, re.IGNORECASE) or "//" in value:
        return None
    return NamedImage(re.sub(rf"^{prefix}\s*", "", value, flags=re.IGNORECASE), "")


def caption_names(key: str, is_main: bool) -> list[str]:
    """The parameters that may hold the caption of an image's parameter, the likeliest first, without spaces. `key`: in
    lower case, its words apart."""
    number = "".join(re.findall(r"\d+", key)[-1:])
    words = re.sub(r"\d+", " ", key).split()
    words = [word for word in words if word not in _FILE_WORDS] or words
    others = "".join(word for word in words if word not in _IMAGE_WORDS)
    stem = "".join(words)
    forms: list[str] = []
    for word in _CAPTION_WORDS:
        in_place = "".join(word if each in _IMAGE_WORDS else each for each in words)
        forms.append(f"{stem}{word}")
        if others:
            forms += [in_place, f"{others}{word}", f"{word}{others}", f"image{others}{word}"]
    if is_main:
        forms += _MAIN_CAPTIONS
    forms += [f"{stem}alt", *(["alt", "imagealt"] if is_main else [])]
    names = [name for form in forms for name in _with_number(form, stem, number)]
    return [*dict.fromkeys(name for name in names if name != f"{stem}{number}"), "footer"]


def _is_main(key: str) -> bool:
    """Whether a parameter is called as a template's main image is."""
    return set(re.sub(r"\d+", " ", key).split()) <= _MAIN_WORDS


def _with_number(form: str, stem: str, number: str) -> list[str]:
    """`caption2`, `image2caption`; a first image may leave its number out."""
    if not number:
        return [form]
    inner = [f"{stem}{number}{form[len(stem) :]}"] if form.startswith(stem) else [f"{stem}{number}{form}"]
    return [f"{form}{number}", *inner, *([form] if number == "1" else [])]


def _of_unnamed(values: Sequence[str], prefix: str) -> Iterator[NamedImage]:
    """Of `{{Gallery|A.jpg|Its caption|B.jpg|...}}`, `{{wide image|A.jpg|800px|Its caption}}` and of
    `{{double image|left|A.jpg|150|B.jpg|150|One|Two}}`."""
    files = {
        number: file for number, value in enumerate(values) if (file := _file_of(value, prefix)) and not file.is_link
    }
    stops = [*list(files)[1:], len(values)] if files else []
    texts = [
        [value for value in values[number + 1 : stop] if value and not _NO_CAPTION.fullmatch(value)]
        for number, stop in zip(files, stops, strict=True)
    ]
    if len(files) > 1 and not any(texts[:-1]) and len(texts[-1]) >= len(files):  # all stand behind the last image
        texts = [texts[-1][number : number + 1] for number in range(len(files))]
    for file, found in zip(files.values(), texts, strict=True):
        yield file._replace(caption=found[0] if found else "")
