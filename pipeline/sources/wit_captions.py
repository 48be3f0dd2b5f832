"""The texts of a row of WIT, in the order in which they are tried as its caption.

On a page in English: the reference (the caption below the image), what the attribution (the file's description on
Commons) says in English, the attribution's other parts, the alt-text. On other pages what the attribution says in
English comes first. WIT's own language of a page is evidence only: every text is judged for itself, so that an English
caption on a page of another Wikipedia is found. Attributions name their languages ("English: ...", then "Deutsch:
..."); a label is no part of its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.text.english_words import ENGLISH_ONLY

ENGLISH_PAGES = ("", "en", "simple")
_LANGUAGES = (
    "Afrikaans|Alemannisch|Arabic|Aragonés|Armãneashti|Asturianu|Avañe'ẽ|Aymar|Azərbaycanca|Bahasa Indonesia|"
    "Bahasa Melayu|Bikol|Boarisch|Bosanski|Brezhoneg|Bulgarian|Català|Cebuano|Chinese|Corsu|Cymraeg|Czech|Danish|"
    "Dansk|Davvisámegiella|Deutsch|Dolnoserbski|Dutch|Eesti|English|Español|Esperanto|Euskara|Finnish|Français|French|"
    "Frysk|Furlan|Føroyskt|Gaeilge|Gaelg|Galego|German|Greek|Guarani|Gàidhlig|Haitian|Hausa|Hawaii|Hebrew|"
    "Hornjoserbsce|Hrvatski|Hungarian|Ido|Igbo|Ilokano|Interlingua|Italian|Italiano|Japanese|Jawa|Kalaallisut|"
    "Kapampangan|Kaszëbsczi|Kernewek|Kiswahili|Korean|Kreyòl|Kurdî|Latgaļu|Latin|Latina|Latviešu|Lietuvių|Ligure|"
    "Lombard|Lëtzebuergesch|Líguru|Magyar|Malagasy|Malti|Māori|Nahuatl|Nederlands|Norsk|Norsk bokmål|Norsk nynorsk|"
    "Norwegian|Nouormand|Occitan|Oʻzbekcha|O‘zbekcha|Picard|Piemontèis|Plattdüütsch|Polish|Polski|Portuguese|"
    "Português|Português do Brasil|Română|Rumantsch|Runa|Russian|Sardu|Scots|Shqip|Sicilianu|Simple|Slovenčina|"
    "Slovenščina|Soomaaliga|Spanish|Srpski|Srpskohrvatski|Sunda|Suomi|Svenska|Swedish|Sámi|Tagalog|Tiếng Việt|Turkish|"
    "Türkmençe|Türkçe|Valencià|Vneto|Volapük|Vèneto|Võro|Walon|Winaray|Yorùbá|Zazaki|isiXhosa|isiZulu|Íslenska|"
    "Čeština|Ślůnski|Žemaitėška|Ελληνικά|Башҡортса|Беларуская|Български|Кыргызча|Македонски|Монгол|Русиньскый|Русский|"
    "Српски|Српски / srpski|Српскохрватски|Тарашкевіца|Татарча|Тоҷикӣ|Українська|Чӑвашла|Қазақша|Հայերեն|עברית|اردو|"
    "العربية|سنڌي|فارسی|پښتو|کوردی|नेपाली|मराठी|हिन्दी|বাংলা|ਪੰਜਾਬੀ|ગુજરાતી|தமிழ்|తెలుగు|ಕನ್ನಡ|മലയാളം|සිංහල|ไทย|ລາວ|"
    "မြန်မာဘာသာ|ქართული|አማርኛ|ភាសាខ្មែរ|中文|中文(简体)|中文(繁體)|中文（简体）|中文（繁體）|吳語|文言|日本語|粵語|閩南語|한국어"
)
_NAMES = "|".join(sorted(map(re.escape, _LANGUAGES.split("|")), key=len, reverse=True))
_LABEL = re.compile(rf"(?:^|(?<=[\s.;|)]))(?P<name>{_NAMES})\s*[:：]\s*")
_UNLISTED = re.compile(r"\s*(?P<name>[^\W\d_]{3,20}(?:[ -][^\W\d_]{2,20})?)\s*[:：]\s+(?=\S)")


class LabelledText(NamedTuple):
    """What an attribution says in one language."""

    language: str  # its label; "" where there is none
    text: str


def labelled_texts(attribution: str) -> list[LabelledText]:
    """The parts of an attribution, cut at the names of languages."""
    labels = list(_LABEL.finditer(attribution))
    if not labels:
        return [LabelledText("", attribution.strip())]
    ends = [*(label.start() for label in labels[1:]), len(attribution)]
    parts = [LabelledText("", attribution[: labels[0].start()].strip())]
    for label, end in zip(labels, ends, strict=True):
        parts.append(LabelledText(label["name"], attribution[label.end() : end].strip()))
    return [part for part in parts if part.text]


def caption_texts(language: str, reference: str, attribution: str, alt: str) -> list[str]:
    """The texts of a row, without labels, the best first; none is empty, none comes twice."""
    own = [reference, *english_parts(attribution)]
    if language not in ENGLISH_PAGES:
        own.reverse()
    return unique([*own, *other_parts(attribution), alt])


def english_parts(attribution: str) -> list[str]:
    """What an attribution says in English, by its label; [] if it marks no text as English."""
    return [part.text for part in labelled_texts(attribution) if part.language == "English"]


def other_parts(attribution: str) -> list[str]:
    """The parts whose language is not named, or another."""
    return [part.text for part in labelled_texts(attribution) if part.language != "English"]


def unique(texts: Iterable[str]) -> list[str]:
    """Texts without a label at their beginning, each once; one with a label that may be none comes with it as well."""
    return list(dict.fromkeys(text for each in texts for text in _forms(each) if text.strip()))


def _forms(text: str) -> Iterator[str]:
    if label := _LABEL.match(text.lstrip()):
        yield text.lstrip()[label.end() :]
        return
    label = _UNLISTED.match(text)
    if label and label["name"][0].isupper() and label["name"].split()[0].lower() not in ENGLISH_ONLY:
        yield text
        yield text[label.end() :]
        return
    yield text
