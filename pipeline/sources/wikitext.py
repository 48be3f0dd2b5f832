"""Images and their captions in wikitext: file links (`[[File:Name|options|caption]]`, the namespace in any of its
names), lines of a gallery, images that templates name, such as an infobox's, with their captions."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

from pipeline.sources.template_images import balanced, split_parts, template_images
from pipeline.sources.templates import Call, Unrenderable, render


class ImageLink(NamedTuple):
    """An image on a page."""

    name: str  # of the file, as written
    caption: str  # plain text
    unrenderable: str = ""  # the template in the caption whose text is not known; the caption is empty then


NAMESPACES = frozenset(
    {
        "file",
        "image",
        "datei",
        "bild",
        "fichier",
        "archivo",
        "imagen",
        "immagine",
        "bestand",
        "afbeelding",
        "plik",
        "grafika",
        "ficheiro",
        "imagem",
        "arquivo",
        "fil",
        "файл",
        "изображение",
        "ファイル",
        "画像",
        "文件",
        "图像",
        "档案",
        "檔案",
        "圖像",
        "파일",
        "그림",
        "soubor",
        "fájl",
        "kép",
        "tiedosto",
        "kuva",
        "dosya",
        "resim",
        "ملف",
        "صورة",
        "תמונה",
        "קובץ",
        "tập tin",
        "hình",
        "berkas",
        "fitxer",
        "imatge",
        "датотека",
        "слика",
        "αρχείο",
        "εικόνα",
        "fișier",
        "imagine",
    }
)
"""Names of the File namespace, in lower case; a dump gives its own beside them."""
_REFERENCE = re.compile(r"<ref\b[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(
    r"(?:thumb|thumbnail|frame|framed|enframed|frameless|border|left|right|center|centre|none|baseline|middle|sub|super|"
    r"text-top|text-bottom|top|bottom|upright|\d*(?:x\d+)?\s*px|(?:thumb|thumbnail|upright|alt|link|page|lang|class|"
    r"start|end|thumbtime|muted|loop|miniatur|mini|alternativtext|verweis|hochkant|redresse|lien|alternative|verticale|"
    r"enlace|ligação|ссылка|альт)\s*=.*|"
    r"mini|miniatur|gerahmt|rahmenlos|rechts|links|zentriert|ohne|hochkant|rand|vignette|cadre|gauche|droite|centré|"
    r"néant|redresse|miniatura|miniaturadeimagen|miniaturadaimagem|miniaturaimagen|derecha|izquierda|dcha|izda|centro|"
    r"marco|direita|esquerda|dir|esq|destra|sinistra|verticale|miniatuur|gecentreerd|geen|mały|prawo|lewo|centruj|мини|"
    r"миниатюра|справа|слева|центр|безрамки|miniatyr|höger|vänster|サムネイル|右|左|中央|缩略图|縮圖|居中|无)",
    re.IGNORECASE | re.DOTALL,
)
_ALT = re.compile(r"(?:alt|alternativtext|alternative|альт)\s*=(.*)", re.IGNORECASE | re.DOTALL)
_HIDDEN = re.compile(
    r"<!--.*?-->|<(pre|syntaxhighlight|source|templatedata|score|timeline)\b[^<>]*(?<!/)>.*?</\1\s*>",
    re.IGNORECASE | re.DOTALL,
)
_NOWIKI = re.compile(r"<nowiki\s*/>|<nowiki>(.*?)</nowiki\s*>", re.IGNORECASE | re.DOTALL)
_MATH = re.compile(r"<(math|chem|ce)\b[^<>]*(?<!/)>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_GALLERY = re.compile(r"<gallery\b[^<>]*(?<!/)>(.*?)</gallery\s*>", re.IGNORECASE | re.DOTALL)


def links(text: str, namespaces: frozenset[str] = NAMESPACES) -> Iterator[ImageLink]:
    """The images of a page: file links and galleries in the order of the text, then those that templates name."""
    text, prefix = without_hidden(text), _prefix(namespaces)
    named = list(template_images(text, prefix))
    of_links = {image.name: image.caption for image in named if image.is_link}
    for match in re.finditer(rf"\[\[{prefix}|<gallery\b", text, re.IGNORECASE):
        if match[0].startswith("<"):
            if gallery := _GALLERY.match(text, match.start()):
                yield from _gallery_links(gallery[1], prefix)
        elif inside := balanced(text, match.start(), "[[", "]]"):
            yield _link(inside.partition(":")[2], prefix, of_links)
    for image in named:
        if not image.is_link:
            yield _image_link(image.name, image.caption, prefix)


def without_hidden(text: str) -> str:
    """The text without what is no text; that of <nowiki> stands there in escapes."""
    text = _MATH.sub("<math/>", _HIDDEN.sub("", text))
    return _NOWIKI.sub(lambda match: re.sub(r"[^\w\s]", _escaped, match[1] or ""), text)


def _escaped(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


@functools.lru_cache(4)
def _prefix(namespaces: frozenset[str]) -> str:
    """A pattern, to be used without regard to case, of what stands before a file's name."""
    return rf"\s*(?:{'|'.join(map(re.escape, sorted(namespaces)))})\s*:"


def _link(text: str, prefix: str, captions: Mapping[str, str] = MappingProxyType({})) -> ImageLink:
    """`Name|options|caption`. `captions`: of images by name, for a link that has none."""
    name, *options = split_parts(text)
    own = [part for part in options if part.strip() and not _OPTION.fullmatch(part.strip())]
    alt = next((found[1] for part in options if (found := _ALT.fullmatch(part.strip()))), "")
    return _image_link(name.strip(), (own[-1] if own else "") or captions.get(name.strip(), "") or alt, prefix)


def _image_link(name: str, caption: str, prefix: str) -> ImageLink:
    try:
        return ImageLink(name, plain_text(caption, prefix))
    except Unrenderable as error:
        return ImageLink(name, "", str(error))


def _gallery_links(text: str, prefix: str) -> Iterator[ImageLink]:
    for line in text.splitlines():
        line = re.sub(rf"^{prefix}", "", line, flags=re.IGNORECASE).strip()
        if "." in line.partition("|")[0]:
            yield _link(line, prefix)


def plain_text(wikitext: str, prefix: str) -> str:
    """The text that a reader sees: links by their words, no references, no images, templates as `templates` renders
    them. `prefix` is of `_prefix`. Raises Unrenderable for a template whose text is not known."""
    if not re.search(r"[\[{<']|&", wikitext):
        return " ".join(wikitext.split())
    text = _text_of(mwparserfromhell.parse(_REFERENCE.sub("", wikitext)), prefix)
    text = _EMPTY_BRACKETS.sub("", re.sub(r"\s+", " ", text))
    return _SPACE_BEFORE_STOP.sub("", text).strip()


def plain(wikitext: str) -> str:
    """The text that a reader sees, with the namespaces of every wiki. Raises Unrenderable."""
    return plain_text(wikitext, _prefix(NAMESPACES))


_EMPTY_BRACKETS = re.compile(r" ?\(\s*[,;:]?\s*\)")
_SPACE_BEFORE_STOP = re.compile(r" +(?=[,.;:](?:\s|$)|\))")
_BREAKS = frozenset({"br", "p", "hr", "li", "div", "dd", "dt"})
_NO_TEXT = frozenset({"ref", "references", "gallery", "templatestyles", "imagemap", "style", "script", "section"})


def _text_of(code: Wikicode | None, prefix: str) -> str:
    return "".join(_text_of_node(node, prefix) for node in code.nodes) if code else ""


def _text_of_node(node: nodes.Node, prefix: str) -> str:
    if isinstance(node, nodes.Text):
        return str(node.value)
    if isinstance(node, nodes.Template):
        return render(_call(node, prefix))
    if isinstance(node, nodes.Wikilink):
        if re.match(prefix, str(node.title), re.IGNORECASE):
            return ""
        return _text_of(node.text, prefix) or _text_of(node.title, prefix).strip().lstrip(":")
    if isinstance(node, nodes.ExternalLink):
        return _text_of(node.title, prefix)
    if isinstance(node, nodes.HTMLEntity):
        return str(node.normalize())
    if isinstance(node, nodes.Tag):
        return _text_of_tag(node, prefix)
    return _text_of(node.default, prefix) if isinstance(node, nodes.Argument) else ""


def _text_of_tag(tag: nodes.Tag, prefix: str) -> str:
    name = str(tag.tag).strip().lower()
    if name in ("math", "chem", "ce"):
        raise Unrenderable(f"<{name}>")
    if name in _NO_TEXT:
        return ""
    text = _text_of(tag.contents, prefix)
    return f" {text} " if name in _BREAKS else text


def _call(template: nodes.Template, prefix: str) -> Call:
    """A template with its parameters as text."""
    name = str(template.name).strip()
    values = [_text_of(parameter.value, prefix).strip() for parameter in template.params if not parameter.showkey]
    named = {
        str(parameter.name).strip().lower(): _text_of(parameter.value, prefix).strip()
        for parameter in template.params
        if parameter.showkey
    }
    return Call(name.replace("_", " ").lower(), values, named, name)
