"""Lists of any length in the published formats, for benchmarks: rows as long as those in the wild, some of them odd.

Captions are halves of the sample's own sentences, put together anew; other languages' are the sentences below. Every
row follows from its number alone, so that the same list comes out however much of it is made."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote_plus

from sample import formats

SAMPLE = Path(__file__).parent.parent / "sample"
OTHER_LANGUAGES = {
    "de": "Blick über den See auf die verschneiten Berge am frühen Morgen",
    "fr": "Vue de la place du marché avec la vieille église en arrière-plan",
    "es": "Dos niños juegan con un perro en la orilla del río",
    "it": "Una strada stretta nel centro storico della città vecchia",
    "pt": "Barcos de pesca coloridos no porto ao fim da tarde",
    "nl": "Een houten brug over het kanaal in de oude binnenstad",
    "pl": "Widok na stary rynek i wieżę kościoła po deszczu",
    "ru": "Вид на старый город с башни собора ранним утром",
    "ja": "雨上がりの庭に咲く紫色のあじさいの花",
    "zh": "清晨的湖面上有两只小船和远处的山",
    "ar": "منظر للمدينة القديمة من فوق التل عند الغروب",
    "tr": "Limanda gün batımında balıkçı tekneleri ve martılar",
}
_HOSTS = (
    "ak9.picdn.net",
    "media.gettyimages.com",
    "i.pinimg.com",
    "thumbs.dreamstime.com",
    "l450v.alamy.com",
    "www.example.org",
    "cdn.newsapi.example.com",
    "image.shutterstock.com",
)


def captions() -> tuple[list[str], list[str]]:
    """First and second halves of the sample's sentences."""
    lines = (SAMPLE / "captions.jsonl").read_text("utf-8").splitlines()
    words = [json.loads(line)["caption"].split() for line in lines]
    return [" ".join(each[: len(each) // 2]) for each in words], [" ".join(each[len(each) // 2 :]) for each in words]


class Lists:
    """Rows by number. `repeats`: the share of rows whose URL an earlier row has; `odd`: the share whose caption
    a filter drops, or cleaning changes."""

    def __init__(self, repeats: float = 0.01, odd: float = 0.05):
        self._first, self._second = captions()
        self._repeats, self._odd_share = repeats, odd

    def _draw(self, source: str, number: int) -> random.Random:
        return random.Random(f"{source} {number}")

    def _caption(self, draw: random.Random) -> str:
        return f"{draw.choice(self._first)} {draw.choice(self._second)}"

    def _url(self, draw: random.Random, number: int) -> str:
        if draw.random() < self._repeats:
            number = draw.randrange(number + 1)
        place = random.Random(number)
        return (
            f"http://{place.choice(_HOSTS)}/{place.choice(('photos', 'images', 'wp-content/uploads/2017/03'))}/"
            f"{place.getrandbits(80):020x}-picture-{number}.jpg"
        )

    def _odd(self, draw: random.Random, caption: str) -> str:
        """The caption, or in the share of odd rows another."""
        if draw.random() < 1 - self._odd_share:
            return caption
        return draw.choice(
            [
                caption.split()[0],
                "click to enlarge",
                "IMG_0520.JPG",
                f"{caption} http://t.co/abc #dog",
                f"<b>{caption}</b> &amp; more",
                draw.choice(list(OTHER_LANGUAGES.values())),
            ]
        )

    def cc3m(self, number: int) -> str:
        draw = self._draw("cc3m", number)
        return f"{formats.cc3m_caption(self._odd(draw, self._caption(draw)))}\t{self._url(draw, number)}\n"

    def cc12m(self, number: int) -> str:
        draw = self._draw("cc12m", number)
        caption = self._odd(draw, self._caption(draw))
        caption = f"<PERSON> {caption}" if draw.random() < 0.25 else caption
        return f"{self._url(draw, number)}\t{caption} {self._caption(draw) if draw.random() < 0.4 else ''}\n"

    def yfcc100m(self, number: int) -> str:
        """23 fields; of the titles a third is a file name, half of the descriptions is empty."""
        draw = self._draw("yfcc", number)
        caption = self._caption(draw) if draw.random() < 0.6 else draw.choice(list(OTHER_LANGUAGES.values()))
        title = f"IMG_{draw.randrange(9999):04d}" if draw.random() < 0.33 else self._odd(draw, caption)
        description = "" if draw.random() < 0.5 else f"<i>{self._caption(draw)}</i>\n{self._caption(draw)}"
        server, photo, secret = draw.randrange(1, 8000), 2_000_000_000 + number, f"{draw.getrandbits(40):010x}"
        user = f"{10_000_000 + draw.randrange(10**7)}@N0{draw.randrange(9)}"
        tags = ",".join(quote_plus(word) for word in self._caption(draw).split()[:6])
        values = (
            photo,
            user,
            quote_plus("a user"),
            "2012-03-15 10:11:12.0",
            1331800000 + number,
            "Canon+EOS+5D",
            quote_plus(title),
            quote_plus(description),
            tags,
            "",
            "-1.5",
            "50.1",
            "16",
            f"http://www.flickr.com/photos/{user}/{photo}/",
            f"http://farm{server % 9 + 1}.staticflickr.com/{server}/{photo}_{secret}.jpg",
            "Attribution License",
            "http://creativecommons.org/licenses/by/2.0/",
            server,
            server % 9 + 1,
            secret,
            secret,
            "jpg",
            int(number % 125 == 0),
        )
        return "\t".join(map(str, values)) + "\n"

    def wit(self, number: int) -> str:
        """17 fields; one row of six is on an English page, with the page's texts of about 1 kB."""
        draw = self._draw("wit", number)
        language = "en" if draw.random() < 0.17 else draw.choice(list(OTHER_LANGUAGES))
        text = self._caption(draw) if language == "en" else OTHER_LANGUAGES[language]
        page = f"https://{language}.wikipedia.org/wiki/Page_{number}"
        url = f"https://upload.wikimedia.org/wikipedia/commons/{draw.getrandbits(8):02x}/{number}_{text[:20]}.jpg"
        attribution = f"English: {self._caption(draw)}" if draw.random() < 0.5 else ""
        width = draw.choice([640, 1024, 3000])
        return formats.wit_text(
            [
                language,
                page,
                url.replace(" ", "_"),
                f"Page {number}",
                "History",
                f"Page {number} / History",
                text if draw.random() < 0.6 else "",
                attribution,
                "",
                "image/jpeg",
                str(draw.choice([480, 768, 2000])),
                str(width),
                "true",
                "true",
                "false",
                f'{text}, "so called".\n\n' * 8,
                text * 3,
            ]
        )


def write_list(path: Path, row: Callable[[int], str], rows: int) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines(map(row, range(rows)))
    return path


def write_sqlite(path: Path, lines: Iterator[str]) -> Path:
    """YFCC100M's rows as its database."""
    columns = ", ".join(formats.YFCC_COLUMNS)
    database = sqlite3.connect(path)
    with database:
        database.execute(f"CREATE TABLE yfcc100m_dataset ({columns})")
        database.executemany(
            f"INSERT INTO yfcc100m_dataset VALUES ({', '.join('?' * 23)})",
            (line.rstrip("\n").split("\t") for line in lines),
        )
    database.close()
    return path
