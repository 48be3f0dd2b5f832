"""Rows of the sources' lists, as they are published."""

from __future__ import annotations

import csv
import html
import io
import random

from pipeline.sources import wit

WORDS = (
    "a",
    "brown",
    "dog",
    "runs",
    "along",
    "the",
    "beach",
    "near",
    "an",
    "old",
    "stone",
    "harbour",
    "at",
    "dawn",
    "with",
    "two",
    "small",
    "boats",
)


LINES = ("cc3m", "cc12m", "yfcc100m")  # sources of which a line is a row
TEXTS = (*LINES, "wit", "wikipedia-dump")


PHOTO_URL = "http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg"
PHOTO = [
    "6985418911",
    "4e2f7a26@N00",
    "jo+doe",
    "2012-03-15 10:11:12.0",
    "1331800000",
    "Canon+EOS",
    "Harbour+at+dawn",
    "Two+boats+%26+a+%3Cb%3Ebuoy%3C%2Fb%3E%0Aafter+rain%2C+1%2B1",
    "sea,grey+sky",
    "",
    "-1.5",
    "50.1",
    "16",
    "http://www.flickr.com/photos/4e2f7a26@N00/6985418911/",
    PHOTO_URL,
    "Attribution License",
    "http://creativecommons.org/licenses/by/2.0/",
    "7205",
    "8",
    "df7747990d",
    "0123456789",
    "jpg",
    "0",
]


def caption(number: int) -> str:
    return " ".join(random.Random(number).sample(WORDS, 8)) + f" {number}"


def yfcc_fields(number: int) -> list[str]:
    form = caption(number).replace(" ", "+")
    return [
        str(6985418911 + number),
        "9876@N02",
        "Jane+Doe",
        "2012-03-15 12:31:07.0",
        "1331811067",
        "Canon+EOS",
        form,
        f"%3Cb%3EBoats%3C%2Fb%3E%0A{form}%26amp%3B",
        "boats,sea%2Cside",
        "",
        "4.35",
        "50.8",
        "16",
        f"http://www.flickr.com/photos/9876@N02/{number}/",
        f"http://farm8.staticflickr.com/7205/{number}_df7747990d.jpg",
        "Attribution License",
        "http://creativecommons.org/licenses/by/2.0/",
        "7205",
        "8",
        "df7747990d",
        "1a2b3c4d5e",
        "jpg",
        "0",
    ]


def wit_fields(number: int) -> list[str]:
    row = dict.fromkeys(wit.COLUMNS[:17], "") | {
        "language": "en",
        "page_url": f"https://en.wikipedia.org/wiki/Weir_{number}",
        "original_width": "400",
        "image_url": f"https://upload.wikimedia.org/wikipedia/commons/a/ab/Weir_{number}.jpg",
        "caption_reference_description": caption(number),
        "mime_type": "image/jpeg",
        "original_height": "300",
        "is_main_image": "true",
        "context_page_description": f'A weir, or "low dam".\n\nIt is number {number}.',
    }
    return list(row.values())


def csv_row(fields: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerow(fields)
    return text.getvalue().encode()


def row(source: str, number: int) -> bytes:
    """A row as it is published, with its line end."""
    if source == "cc3m":
        return f"{caption(number)} .\thttp://a.example/{number}.jpg?w=1&h=2\n".encode()
    if source == "cc12m":
        return f"https://b.example/wp-content/{number}.jpg\t<PERSON>: {caption(number)} – “here”\n".encode()
    if source == "yfcc100m":
        fields = yfcc_fields(number)
        return (
            "\t".join(
                [str(number), fields[0], "4e2f7a26a1dfbf165a7e30bdabf7e72a", *fields[1:]] if number % 2 else fields
            ).encode()
            + b"\n"
        )
    if source == "wit":
        return csv_row(wit_fields(number))
    text = html.escape(
        f"Text [[File:Boat {number}.jpg|thumb|left|200px|{caption(number)} [[sea|at sea]]]] "
        f"{{{{nowrap|x}}}}<gallery>\nImage:Tower {number}.png|An ''old'' tower\n</gallery>",
        quote=False,
    )
    return (
        f"  <page>\n    <title>Page {number}</title>\n    <ns>0</ns>\n    <id>{number + 1}</id>\n    <revision>\n"
        f'      <text xml:space="preserve">{text}</text>\n    </revision>\n  </page>\n'
    ).encode()


def head(source: str) -> bytes:
    """What stands before the first row."""
    if source == "wit":
        return csv_row(list(wit.COLUMNS[:17]))
    return b"<mediawiki xml:lang='en'><siteinfo><base>https://en.wikipedia.org/wiki/A</base></siteinfo>\n" * (
        source == "wikipedia-dump"
    )


def name_of(source: str) -> str:
    return "enwiki-20240101-pages-articles.xml" if source == "wikipedia-dump" else "list.tsv"


def whole(source: str, number: int = 40) -> bytes:
    return head(source) + b"".join(row(source, n) for n in range(number))


def wit_row(**changes):
    values = dict.fromkeys(wit.COLUMNS[:17], "")
    values |= {
        "language": "en",
        "page_url": "https://en.wikipedia.org/wiki/Weir",
        "original_height": "300",
        "original_width": "400",
        "image_url": "http://upload.wikimedia.org/wikipedia/commons/a/ab/Weir.jpg",
        "mime_type": "image/jpeg",
        "is_main_image": "true",
        "context_page_description": 'A weir, or "low dam".\n\nIt',
    }
    return values | changes


def wit_file(*table, header=True, lineterminator="\n"):
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator=lineterminator)
    if header:
        writer.writerow(table[0])
    writer.writerows(row.values() for row in table)
    return text.getvalue().encode()
