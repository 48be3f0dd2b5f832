"""Lists that are damaged, wrongly encoded or not what they should be: a reason for each row, and a count."""

from __future__ import annotations

import bz2
import collections
import functools
import gzip
import io
import json
import random
from collections.abc import Callable

import pytest

from beam_jobs import select_pairs
from pipeline.filters import SelectConfig, filter_candidate
from pipeline.records import Candidate, Pair, Reason, Rejected
from pipeline.select.stage import HashPartition, filter_range, groups_of_partition
from pipeline.sources import cc3m, cc12m, wikipedia_dump, wit, yfcc100m
from pipeline.sources.file_ranges import FileRange, file_ranges, read_range
from pipeline.sources.readers import MAX_ROW_BYTES
from pipeline.sources.registry import DEFAULTS, SOURCES
from tests.support.narrowing import instance
from tests.support.source_rows import (
    LINES,
    TEXTS,
    head,
    name_of,
    row,
    whole,
)

REASONS = {reason.value for reason in Reason}
MODULES = dict(zip(TEXTS, (cc3m, cc12m, yfcc100m, wit, wikipedia_dump), strict=True))


def read(folder, source: str, data: bytes) -> list[Candidate | Rejected]:
    path = folder / name_of(source)
    path.write_bytes(data)
    return [row for piece in file_ranges(source, str(path)) for row in read_range(piece)]


def reasons(found: list[Candidate | Rejected]) -> list[str]:
    return [row.reason if isinstance(row, Rejected) else "" for row in found]


# Damage of known kinds


@pytest.mark.parametrize("source", TEXTS)
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_compressed_file_that_is_cut_off(tmp_path, source, pack, share):
    """What was read stays, and one row says that more is missing."""
    data = pack(whole(source, 2000))
    found = read(tmp_path, source, data[: max(11, int(share * len(data)))])
    intact = read(tmp_path, source, whole(source, 2000))
    assert reasons(found)[-1] == "damaged_file" and "cut off or damaged" in instance(found[-1], Rejected).detail
    assert found[:-1] == intact[: len(found) - 1]
    assert len(found) > 100 or share < 0.9 or pack is bz2.compress  # all are in one block of bzip2


@pytest.mark.parametrize("source", TEXTS)
def test_an_empty_file_has_no_rows(tmp_path, source):
    for data in (b"", gzip.compress(b""), bz2.compress(b""), b"\n\r\n", b"\xef\xbb\xbf"):
        assert read(tmp_path, source, data) == []


@pytest.mark.parametrize("source", TEXTS)
def test_line_ends_and_byte_order_marks_are_not_content(tmp_path, source):
    expected = read(tmp_path, source, whole(source))
    assert read(tmp_path, source, b"\xef\xbb\xbf" + whole(source)) == expected
    if source in LINES:  # within a quoted field or a page a line end is content
        assert read(tmp_path, source, whole(source).replace(b"\n", b"\r\n") + b"\r\n\r\n") == expected


@pytest.mark.parametrize("source", (*LINES, "wit"))
def test_another_encoding(tmp_path, source):
    """UTF-16 with its mark is read. A row that is not UTF-8 says so; the others are read."""
    expected = read(tmp_path, source, whole(source, 5))
    assert read(tmp_path, source, whole(source, 5).decode().encode("utf-16")) == expected
    rows = whole(source, 5).replace(b"dog", b"d\xf6g")
    found = read(tmp_path, source, rows)
    assert len(found) == 5 and all(isinstance(row, Candidate) or "not UTF-8" in row.detail for row in found)
    assert reasons(found).count("malformed_row") == sum(b"\xf6" in line for line in rows.splitlines()) > 0


@pytest.mark.parametrize("source", (*LINES, "wit"))
@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        (lambda line: line[:-2] + b"\0" + line[-2:], "NUL byte"),
        (lambda line: line[:-1] + b"x" * 10_000_000 + b"\n", f"more than {MAX_ROW_BYTES}"),
        (lambda line: line[:-1] + b"\tone\ttwo\tthree\tfour\n", "fields, expected"),
        (lambda line: line[: line.index(b"\t")] + b"\n", "1 field, expected"),
    ],
)
def test_one_bad_row_costs_no_other(tmp_path, source, damage: Callable[[bytes], bytes], detail):
    rows = [row(source, number) for number in range(9)]
    expected = read(tmp_path, source, head(source) + b"".join(rows))
    found = read(tmp_path, source, head(source) + b"".join([*rows[:4], damage(rows[4]), *rows[5:]]))
    if source == "cc12m" and "fields" in detail:  # all that follows the URL is the caption, tabs included
        assert found[4].raw_caption.endswith("\tfour")
    else:
        assert reasons(found) == [""] * 4 + ["malformed_row"] + [""] * 4
        assert detail in instance(found[4], Rejected).detail
    assert found[:4] + found[5:] == expected[:4] + expected[5:]


def test_a_page_with_a_field_of_10_mb(tmp_path):
    long = row("wikipedia-dump", 1).replace(b"Text ", b"Text " + b"[[ {{ | " * 1_250_000)
    found = read(
        tmp_path, "wikipedia-dump", head("wikipedia-dump") + row("wikipedia-dump", 0) + long + row("wikipedia-dump", 2)
    )
    assert {row.page_url[-1] for row in found if isinstance(row, Candidate)} >= {"0", "2"}


def test_pages_without_an_end_or_with_an_id_out_of_range(tmp_path):
    rows = [row("wikipedia-dump", number) for number in range(4)]
    rows[1] = rows[1].replace(b"</page>", b"")
    rows[3] = rows[3].replace(b"<id>4</id>", b"<id>" + b"9" * 40 + b"</id>")
    found = read(tmp_path, "wikipedia-dump", head("wikipedia-dump") + b"".join(rows))
    assert reasons(found) == ["", "", "malformed_row", "", "", "malformed_row"]
    assert "no end" in instance(found[2], Rejected).detail
    assert "page id 999" in instance(found[5], Rejected).detail


def test_a_list_that_ends_early(tmp_path, capsys):
    """What was read stays; the account holds the break, and a line at the end names the file."""
    (tmp_path / "a.tsv").write_bytes(gzip.compress(whole("cc3m"))[:600])
    (tmp_path / "b.tsv").write_bytes(b"")
    options = [f"--source=cc3m={tmp_path}/*.tsv", f"--output={tmp_path / 'out'}", "--direct_num_workers=1"]
    assert select_pairs.main(options) == 0
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert ledger["damaged_files"] == {"cc3m": ["a.tsv"]}
    account = ledger["sources"]["cc3m"]
    assert account["read"] == account["kept"] + sum(account["rejected"]["select"].values()) > 10
    assert account["rejected"]["select"]["damaged_file"] == 1
    assert "warning: cc3m: a.tsv ends too early" in capsys.readouterr().err


# Damage of any kind

SPLICES = (
    b"\0",
    b"\t",
    b"\n",
    b"\r",
    b'"',
    b'""',
    b"\xff",
    b"\xed\xa0\x80",
    b"%",
    b"%00",
    b"%ED%A0%80",
    b"&#xD800;",
    b"&#0;",
    b"&#x110000;",
    b"<b",
    b"]]>",
    b"<ref>",
    b"{{",
    b"}}",
    b"[[File:",
    b"[[",
    b"]]",
    b"|",
    b"http://",
    b"://[::1",
    b"9" * 40,
    b"-1",
    b"1e999",
    b"nan",
    b"null",
    "\u202e\u200b\u0085\u2028".encode(),
    b"\xf0\x9f",
    b"x" * 5000,
    b"<page>",
    b"</page>",
    b"</text>",
    b"caption\turl",
    b"\xef\xbb\xbf",
    b"#" * 50,
    b"<PERSON>",
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        at, other = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        kind = dice.randrange(6)
        if kind == 0:
            data = data[:at] + dice.choice(SPLICES) + data[at:]
        elif kind == 1:
            data = data[:at] + dice.choice(SPLICES) + data[other:]
        elif kind == 2:
            data = data[:at] + dice.randbytes(dice.randrange(1, 5)) + data[at:]
        elif kind == 3 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
        elif kind == 4:
            fields = data.split(b"\t")
            dice.shuffle(fields)
            data = b"\t".join(fields)
        else:
            data = data[:at] + data[other:]
    return data


def file_of_mutated(source: str, number: int, seed: int) -> tuple[bytes, int]:
    """Rows that are mutated, each followed by one that is not; and how many lines with content there are."""
    dice = random.Random(f"{source} {seed}")
    rows = [row(source, 0)]
    for each in range(number):
        text = mutated(row(source, 2 * each + 1), dice)
        rows += [text if text.endswith(b"\n") else text + b"\n", row(source, 2 * each + 2)]
    data = b"".join(rows)
    return head(source) + data, data.count(b"\n")


@pytest.mark.parametrize("source", TEXTS)
def test_every_mutated_row_is_kept_or_rejected_with_a_reason(tmp_path, source, exhaustive):
    number = 20_000 if exhaustive else 400
    data, lines = file_of_mutated(source, number, seed=1)
    path = tmp_path / name_of(source)
    path.write_bytes(data)
    config = SelectConfig(language_detector="cld3")  # the quickest
    piece = FileRange(source, str(path))
    tidy = functools.partial(SOURCES[source].tidy_caption, settings=SOURCES[source].settings)
    read = [filter_candidate(row, config, tidy) if isinstance(row, Candidate) else row for row in read_range(piece)]
    assert all(isinstance(row, Pair) or row.reason in REASONS for row in read)
    numbers = [row.row for row in read]
    if source in LINES:
        assert numbers == list(range(lines))
    elif source == "wit":
        assert numbers == list(range(len(read)))
    intact = {outcome.url for outcome in read if isinstance(outcome, Pair)}
    for each in range(number + 1):  # a bad row costs no other
        for found in MODULES[source].read(io.BytesIO(head(source) + row(source, 2 * each)), path.name):
            assert found.url in intact or not isinstance(filter_candidate(found, config, tidy), Pair)

    account = filter_range((0, piece), [], config, DEFAULTS, str(tmp_path / "out"))
    counts: collections.Counter[str] = collections.Counter()
    for (_, reason), rows in groups_of_partition(HashPartition(0, 1), [account], str(tmp_path / "out")).counts.items():
        counts[reason] += rows
    assert account.rows == len(read) == sum(counts.values()) and counts.keys() <= REASONS | {""}
    assert counts[""] + counts["duplicate_url"] == sum(isinstance(row, Pair) for row in read)
