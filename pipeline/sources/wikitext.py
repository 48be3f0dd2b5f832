"""Images and their captions in wikitext: file links (`[[File:Name|options|caption]]`, the namespace in any of its
names), lines of a gallery, an infobox's image with its caption."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

import mwparserfromhell


class ImageLink(NamedTuple):
    """An image on a page."""

    name: str  # of the file, as written
    caption: str  # plain text


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
    r"<!--.*?-->|<(nowiki|pre|syntaxhighlight|source|math)\b[^<>]*(?<!/)>.*?</\1\s*>", re.IGNORECASE | re.DOTALL
)
_GALLERY = re.compile(r"<gallery\b[^<>]*(?<!/)>(.*?)</gallery\s*>", re.IGNORECASE | re.DOTALL)
_INFOBOX = re.compile(
    r"\{\{\s*(?:[\w -]*infobox|taxobox|speciesbox|automatic taxobox|multiple images?)\b", re.IGNORECASE
)
_IMAGE_PARAMETER = re.compile(
    r"(?:image|photo|picture|img|bild|imagen|immagine|imagem|afbeelding|grafika|изображение)[ _]?(?:name|file|skyline)?"
    r"[ _]?(\d*)",
    re.IGNORECASE,
)
_CAPTIONS = (
    "caption{}",
    "image_caption{}",
    "imagecaption{}",
    "image caption{}",
    "image{}_caption",
    "photo_caption{}",
    "bildtext{}",
    "bildbeschreibung{}",
    "légende{}",
    "pie de imagen{}",
    "pie{}",
    "didascalia{}",
    "legenda{}",
    "onderschrift{}",
    "alt{}",
    "image_alt{}",
)
_MEASURES = frozenset({"convert", "cvt"})  # a number, its unit, and what else it is to be shown in
_KEPT_TEMPLATES = frozenset(
    {
        "nowrap",
        "nobr",
        "lang",
        "small",
        "nobold",
        "noitalics",
        "langue",
        "lien",
        "ill",
        "sc",
        "smallcaps",
        "transl",
        "lang-de",
        "lang-fr",
        "visible anchor",
        "abbr",
    }
)


def links(text: str, namespaces: frozenset[str] = NAMESPACES) -> Iterator[ImageLink]:
    """The images of a page: file links and galleries in the order of the text, then infoboxes."""
    text, prefix = _HIDDEN.sub("", text), _prefix(namespaces)
    for match in re.finditer(rf"\[\[{prefix}|<gallery\b", text, re.IGNORECASE):
        if match[0].startswith("<"):
            if gallery := _GALLERY.match(text, match.start()):
                yield from _gallery_links(gallery[1], prefix)
        elif inside := _balanced(text, match.start(), "[[", "]]"):
            yield _link(inside.partition(":")[2], prefix)
    for match in _INFOBOX.finditer(text):
        if inside := _balanced(text, match.start(), "{{", "}}"):
            yield from _infobox_links("{{" + inside + "}}", prefix)


@functools.lru_cache(4)
def _prefix(namespaces: frozenset[str]) -> str:
    """A pattern, to be used without regard to case, of what stands before a file's name."""
    return rf"\s*(?:{'|'.join(map(re.escape, sorted(namespaces)))})\s*:"


def _balanced(text: str, start: int, opening: str, closing: str) -> str:
    """What stands between an opening and its closing; "" if it is never closed."""
    depth = 0
    for match in re.compile(re.escape(opening) + "|" + re.escape(closing)).finditer(text, start, start + 100_000):
        depth += 1 if match[0] == opening else -1
        if not depth:
            return text[start + len(opening) : match.start()]
    return ""


def _link(text: str, prefix: str) -> ImageLink:
    """`Name|options|caption`."""
    name, *options = _split(text)
    captions = [part for part in options if part.strip() and not _OPTION.fullmatch(part.strip())]
    alt = next((found[1] for part in options if (found := _ALT.fullmatch(part.strip()))), "")
    return ImageLink(name.strip(), plain_text(captions[-1] if captions else alt, prefix))


def _split(text: str) -> list[str]:
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


def _gallery_links(text: str, prefix: str) -> Iterator[ImageLink]:
    for line in text.splitlines():
        line = re.sub(rf"^{prefix}", "", line, flags=re.IGNORECASE).strip()
        if "." in line.partition("|")[0]:
            yield _link(line, prefix)


def _infobox_links(text: str, prefix: str) -> Iterator[ImageLink]:
    for template in mwparserfromhell.parse(text).filter_templates(recursive=False)[:1]:
        values = {str(parameter.name).strip().lower(): str(parameter.value).strip() for parameter in template.params}
        for name, value in values.items():
            match = _IMAGE_PARAMETER.fullmatch(name)
            if not match or not re.fullmatch(r"[^\[\]{}<>|\n]+\.\w{3,4}", value):
                continue  # a link in full has been found already
            captions = (values.get(name_form.format(match[1]), "") for name_form in _CAPTIONS)
            caption = next(filter(None, captions), "")
            yield ImageLink(re.sub(rf"^{prefix}", "", value, flags=re.IGNORECASE), plain_text(caption, prefix))


def plain_text(wikitext: str, prefix: str) -> str:
    """The text that a reader sees: links by their words, no references, no images, no templates but those around
    text. `prefix` is of `_prefix`."""
    if not re.search(r"[\[{<']|&", wikitext):
        return wikitext.strip()
    code = mwparserfromhell.parse(_REFERENCE.sub("", wikitext))
    for link in code.filter_wikilinks(recursive=False):
        if re.match(prefix, str(link.title), re.IGNORECASE):
            code.remove(link)
    for template in code.filter_templates(recursive=False):
        code.replace(template, _template_text(template))
    return re.sub(r"\s+", " ", mwparserfromhell.parse(str(code)).strip_code(keep_template_params=False)).strip()


def _template_text(template: mwparserfromhell.nodes.Template) -> str:
    name = str(template.name).strip().lower()
    values = [str(parameter.value).strip() for parameter in template.params if not parameter.showkey]
    if name in _MEASURES:
        return " ".join(values[:2])
    return values[-1] if name in _KEPT_TEMPLATES and values else ""
