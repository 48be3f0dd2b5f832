"""Writes sources/: the sample's pictures listed in the published formats of CC3M, CC12M, YFCC100M and WIT.

    python sample/make_sources.py

The same input gives the same bytes. It also brings CREDITS and the tables of README.md up to date.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import hashlib
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

if not __package__:  # run as a script: `sample` is the folder above, not a package yet
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sample import formats
from sample.formats import KEPT, Image, Row
from sample.tricky import tricky_rows

HERE = Path(__file__).resolve().parent
DEFAULT_BASE = "http://127.0.0.1:8093"
EXPECTED = "expected.jsonl"
SOURCES = ("cc3m", "cc12m", "yfcc100m", "wit")
YFCC_FILES = ("yfcc100m_dataset-0", "yfcc100m_dataset-1.bz2")  # 23 fields, 25 fields
MAX_RATIO = 2  # of the longer side to the shorter; what the paper keeps
FILE_NAME_TITLES = ("IMG_{:04}", "DSC{:05}", "P101{:04}.JPG", "100_{:04}")
COORDINATES = {  # longitude and latitude in degrees, of images that YFCC100M lists
    "colosseum.webp": ("12.4922", "41.8902"),
    "indiagate.webp": ("77.2295", "28.6129"),
    "mysorepalace.webp": ("76.6552", "12.3052"),
    "victoria_memorial_london.webp": ("-0.1406", "51.5019"),
    "winter_palace.webp": ("30.3128", "59.9404"),
}
NOT_IN_WIKIPEDIA = ("openclipart", "sweethome3d")


def load_images() -> dict[str, Image]:
    """captions.jsonl by file name."""
    lines = (HERE / "captions.jsonl").read_text("utf-8").splitlines()
    images = (Image(**json.loads(line)) for line in lines)
    return {image.file: image for image in images}


def number_of(text: str) -> int:
    """A number below 2^32 that depends on nothing but the text: the order and the choices below come from it."""
    return int.from_bytes(hashlib.md5(text.encode()).digest()[:4], "big")


# which image goes where ---------------------------------------------------------------------------------------------


def source_of(image: Image) -> str:
    """The source that lists a picture: most JPEG photos, paintings and flags are WIT's, the rest is dealt out."""
    number = number_of(image.file)
    encyclopaedic = not any(word in image.source_url for word in NOT_IN_WIKIPEDIA)
    if encyclopaedic and not image.file.endswith(".webp") and number % 5:
        return "wit"
    return ("cc3m", "cc12m", "yfcc100m")[number // 5 % 3]


def ordinary_row(image: Image) -> Row:
    """A picture under its own URL. Those of an extreme ratio stay in: they should be rejected for it."""
    extreme = max(image.width, image.height) > MAX_RATIO * min(image.width, image.height)
    source = source_of(image)
    note = "a picture that is too wide or too tall" if extreme else ""
    row = Row(source, "aspect_ratio" if extreme else KEPT, note, f"images/{image.file}", image.caption, image)
    vary = {"yfcc100m": _yfcc_variant, "wit": _wit_variant}.get(source)
    return row._replace(fields=vary(image)) if vary else row


def _yfcc_variant(image: Image) -> dict[str, str]:
    """Where the words are: in the title, or in the description under a name or a camera's file name, with HTML."""
    number = number_of(image.caption)
    name = FILE_NAME_TITLES[number % len(FILE_NAME_TITLES)].format(number % 9000)
    first, _, rest = image.caption.partition(" ")
    link = f'<a href="{image.source_url}" rel="nofollow">{first}</a>'
    words = (
        {"title": image.caption.rstrip(".")},
        {"title": image.title, "description": image.caption},
        {"title": name, "description": image.caption},
        {"title": name, "description": f"{link}\n<i>{rest}</i>"},
    )[number // 7 % 4]
    place = zip(("longitude", "latitude"), COORDINATES.get(image.file, ()), strict=False)
    return words | dict(place)


def _wit_variant(image: Image) -> dict[str, str]:
    """Which of the three caption columns holds the words."""
    reference, attribution, alt = (f"caption_{kind}_description" for kind in ("reference", "attribution", "alt_text"))
    return (
        {reference: image.caption},
        {reference: image.caption, attribution: f"English: {image.title}", alt: image.title},
        {reference: "", attribution: f"English: {image.caption}"},
        {reference: "", attribution: "", alt: image.caption},
    )[number_of(image.caption) // 7 % 4]


def all_rows() -> dict[str, list[Row]]:
    """Every row by source, ordinary and tricky ones mixed, duplicates at the end, after the rows that they repeat.

    A picture that a tricky row keeps has no ordinary one.
    """
    images = load_images()
    tricky = tricky_rows(images)
    taken = {row.image.file for row in tricky if row.image and row.expected == KEPT}
    ordinary = [ordinary_row(image) for name, image in images.items() if name not in taken]
    rows: dict[str, list[Row]] = {source: [] for source in SOURCES}
    for row in sorted(ordinary + tricky, key=_place):
        rows[row.source].append(row)
    return rows


def _place(row: Row) -> tuple[bool, int]:
    return row.expected.startswith("duplicate"), number_of(row.url + row.note + row.caption)


# files ---------------------------------------------------------------------------------------------------------------


def write_sources(directory: str | Path, base_url: str = DEFAULT_BASE) -> list[dict]:
    """Writes the source files and expected.jsonl; returns the content of the latter, one entry a row.

    Pictures have URLs under `base_url`. A row's number counts from 0 in its file; WIT's header is no row.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rows = all_rows()
    halves = rows["yfcc100m"][0::2], rows["yfcc100m"][1::2]
    header = formats.wit_text(list(formats.WIT_COLUMNS)).encode()
    files = (
        ("cc3m.tsv", rows["cc3m"], _text(rows["cc3m"], base_url, formats.cc3m_line)),
        ("cc12m.tsv", rows["cc12m"], _text(rows["cc12m"], base_url, formats.cc12m_line)),
        (YFCC_FILES[0], halves[0], _text(halves[0], base_url, formats.yfcc_line)),
        (YFCC_FILES[1], halves[1], bz2.compress(_numbered(halves[1], base_url))),
        ("wit_v1.sample.tsv.gz", rows["wit"], _gzip(header + _text(rows["wit"], base_url, formats.wit_record))),
    )
    expected = []
    for name, file_rows, data in files:
        (directory / name).write_bytes(data)
        expected += [_expectation(row, name, number, base_url) for number, row in enumerate(file_rows)]
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in expected)
    (directory / EXPECTED).write_text("".join(lines), "utf-8")
    return expected


def _text(rows: Iterable[Row], base_url: str, write: Callable[[Row, str], str]) -> bytes:
    return _joined(write(row, base_url) if row.raw is None else row.raw for row in rows)


def _numbered(rows: Iterable[Row], base_url: str) -> bytes:
    """YFCC100M's 25 fields; a broken line counts, as any line does."""
    return _joined(
        formats.yfcc_numbered_line(row, base_url, number) if row.raw is None else row.raw
        for number, row in enumerate(rows)
    )


def _joined(lines: Iterable[str]) -> bytes:
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines).encode()


def _gzip(data: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as file:
        file.write(data)
    return out.getvalue()


def _expectation(row: Row, file: str, number: int, base_url: str) -> dict:
    """What should become of a row."""
    image = row.image.file if row.image else None
    url = "" if row.raw is not None else formats.address(row, base_url)
    return {
        "source": row.source,
        "file": file,
        "row": number,
        "url": url,
        "picture": image,
        "expected": row.expected,
        "note": row.note,
    }


# what people read -----------------------------------------------------------------------------------------------------


def credits_text() -> str:
    """The text of CREDITS."""
    licences = {"CC0-1.0": "CC0 1.0", "public-domain": "public domain"}
    lines = ["Every picture is in the public domain or under CC0 1.0: file - author - licence - source.", ""]
    for image in load_images().values():
        terms = licences[image.licence]
        lines.append(f"images/{image.file} - {image.author} - {terms} - {image.source_url}")
    lines += ["", "The files of odd/ were made from these by make_oddities.py and are under the same terms."]
    return "\n".join(lines) + "\n"


def tables() -> str:
    """README.md's two tables, in Markdown: rows by source, and what is odd about the others by what they come to."""
    rows = all_rows()
    every = list(itertools.chain.from_iterable(rows.values()))
    lines = ["| source | rows | to be kept | to be rejected |", "|---|--:|--:|--:|"]
    for source, of_source in (*rows.items(), ("all", every)):
        kept = sum(row.expected == KEPT for row in of_source)
        lines.append(f"| {source} | {len(of_source)} | {kept} | {len(of_source) - kept} |")
    notes: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row in every:
        if row.note:
            notes[row.expected, row.source][row.note] += 1
    lines += ["", "| comes to | in | odd rows | what is odd |", "|---|---|--:|---|"]
    for (expected, source), counts in sorted(notes.items()):
        described = "; ".join(note if n == 1 else f"{note} (x {n})" for note, n in sorted(counts.items()))
        lines.append(f"| `{expected}` | {source} | {sum(counts.values())} | {described} |")
    return "\n".join(lines)


def readme(text: str) -> str:
    """README.md with its tables made anew."""
    begin, end = "<!-- tables of make_sources.py -->", "<!-- end of tables -->"
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{tables()}\n{end}", text, flags=re.DOTALL)


def main() -> None:
    write_sources(HERE / "sources")
    (HERE / "CREDITS").write_text(credits_text(), "utf-8")
    page = HERE / "README.md"
    page.write_text(readme(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
