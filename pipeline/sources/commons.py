"""What Wikimedia Commons says of a file: structured captions, and the description in its page's wikitext.

Structured captions (`labels`) are JSON, in a page's slot `mediainfo` or in the dump of structured data
(`commons-<date>-mediainfo.json.bz2`): `{"type": "mediainfo", "id": "M7", "title": "File:A.jpg", "labels": {"en":
{"language": "en", "value": "A dog"}}, ...}`, an entity a line. Descriptions are parameters of `{{Information}}`,
`{{Artwork}}` and others, their languages templates: `{{en|1=A dog}}`, `{{mld|en=A dog|de=Ein Hund}}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from pipeline.sources.template_images import MAX_TEMPLATE, balanced, split_parts
from pipeline.sources.templates import RENDERERS, Unrenderable
from pipeline.sources.wikitext import plain, without_hidden

HOST = "commons.wikimedia.org"
FILE_NAMESPACE = "6"


class Text(NamedTuple):
    """A caption or a description."""

    language: str  # its code; "" where none is stated
    text: str  # plain; "" with `unrenderable`
    unrenderable: str = ""  # the template whose text is not known


class _Label(msgspec.Struct):
    value: str


class MediaInfo(msgspec.Struct):
    """An entity of structured data."""

    id: Annotated[str, msgspec.Meta(pattern=r"\AM\d{1,15}\Z")]
    labels: dict[str, _Label] | list[Any] = {}
    title: str = ""

    @property
    def page_id(self) -> int:
        return int(self.id[1:])

    @property
    def captions(self) -> list[Text]:
        """Captions in the order of the file."""
        labels = self.labels if isinstance(self.labels, Mapping) else {}
        return [Text(language, " ".join(label.value.split())) for language, label in labels.items()]


_decoder = msgspec.json.Decoder(MediaInfo)


def media_info(text: str | bytes) -> MediaInfo:
    """An entity's JSON. Raises ValueError for anything else."""
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def best_first(captions: list[Text], descriptions: list[Text]) -> list[Text]:
    """Captions in English, descriptions in English, those without a language, the others; no text twice."""
    texts = [*captions, *descriptions]
    ordered = sorted(texts, key=lambda text: _RANKS.get(text.language.partition("-")[0], len(_RANKS)))
    found: dict[str, Text] = {}
    for text in ordered:
        found.setdefault(text.text or text.unrenderable, text)
    return list(found.values())


_RANKS = {"en": 0, "": 1}


def descriptions(wikitext: str) -> Iterator[Text]:
    """The descriptions of a page, in its order."""
    wikitext = without_hidden(wikitext)
    for match in _DESCRIPTION.finditer(wikitext):
        yield from _by_language(_value(wikitext, match.end()))


_DESCRIPTION = re.compile(r"\|\s*description\s*=", re.IGNORECASE)


def _value(text: str, start: int) -> str:
    """A parameter's value, up to the next one or the end of its template."""
    depth = 0
    for match in re.compile(r"\[\[|\]\]|\{\{|\}\}|\|").finditer(text, start, start + MAX_TEMPLATE):
        if match[0] in ("[[", "{{"):
            depth += 1
        elif match[0] != "|":
            depth -= 1
        if depth < 0 or (not depth and match[0] == "|"):
            return text[start : match.start()]
    return ""


def _by_language(value: str) -> Iterator[Text]:
    """The parts of a description: those in templates of languages, then what stands beside them."""
    remainder, position = "", 0
    while (start := value.find("{{", position)) >= 0:
        inside = balanced(value, start, "{{", "}}")
        name, *parameters = split_parts(inside)
        parts = list(_of_template(name.strip().lower(), parameters))
        remainder += value[position:start] + ("" if parts else f"{{{{{inside}}}}}")
        yield from parts
        position = start + len(inside) + 4
    yield from _rendered("", remainder + value[position:])


def _of_template(name: str, parameters: list[str]) -> Iterator[Text]:
    if name in _MULTILINGUAL:
        for parameter in parameters:
            language, _, text = parameter.partition("=")
            if _LANGUAGE.fullmatch(language.strip()):
                yield from _rendered(language.strip(), text)
    elif parameters and _LANGUAGE.fullmatch(name) and (len(name) == 2 or name not in RENDERERS):
        yield from _rendered(name, re.sub(r"^\s*1\s*=", "", parameters[0]))


_MULTILINGUAL = frozenset({"mld", "langswitch", "multilingual description", "translation table"})
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,8})?")


def _rendered(language: str, wikitext: str) -> Iterator[Text]:
    try:
        text = plain(wikitext)
    except Unrenderable as error:
        yield Text(language, "", str(error))
        return
    if text:
        yield Text(language, text)
