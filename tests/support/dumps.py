"""A dump of Wikipedia, as it is published."""

from __future__ import annotations

import bz2
import html

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">
  <siteinfo><sitename>Wikipedia</sitename><dbname>dewiki</dbname>
    <base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
    <namespaces><namespace key="0" case="first-letter" /><namespace key="6" case="first-letter">Datei</namespace>
    </namespaces></siteinfo>
"""
DUMP = "dewiki-20240101-pages-articles-multistream.xml.bz2"
INDEX = "dewiki-20240101-pages-articles-multistream-index.txt.bz2"


def page(number: int, text: str, namespace: int = 0, redirect: str = "") -> str:
    return (
        f"  <page>\n    <title>Seite {number} &amp; mehr</title>\n    <ns>{namespace}</ns>\n    <id>{number}</id>\n"
        f'{redirect}    <revision>\n      <id>{number + 10**6}</id>\n      <text xml:space="preserve">'
        f"{html.escape(text, quote=False)}</text>\n    </revision>\n  </page>\n"
    )


def article(number: int) -> str:
    return page(
        number,
        f"Text [[Datei:Bild {number}.jpg|mini|links|200px|Ein Boot im Hafen {number}]] und "
        f"<gallery>\nBild:Turm {number}.png|Der ''alte'' [[Turm|Kirchturm]]\n</gallery>",
    )


def write_dump(folder, streams: list[str], index: bool = True) -> list[int]:
    """The file as it is published: the head, the pages, the end, each a bzip2 stream; the offsets of the streams."""
    offsets, data, rows = [], bz2.compress(HEAD.encode()), []
    for text in streams:
        offsets.append(len(data))
        for number in text.split("<id>")[1::2]:
            rows.append(f"{len(data)}:{number.partition('<')[0]}:Seite {number.partition('<')[0]}\n")
        data += bz2.compress(text.encode())
    data += bz2.compress(b"</mediawiki>\n")
    (folder / DUMP).write_bytes(data)
    if index:
        (folder / INDEX).write_bytes(bz2.compress("".join(rows).encode()))
    return offsets
