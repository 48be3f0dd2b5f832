"""Whatever the cuts, every line of a big file is read once, with its number."""

import bz2
import io
import random
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Candidate, Rejected
from pipeline.sources.byte_ranges import RangeLines, bzip2_chunks, count_line_ends, plain_chunks
from pipeline.sources.file_ranges import count_lines, file_ranges, first_line_number, read_range
from pipeline.sources.readers import line_ranges, lines
from tests.support.repetition import examples


def text_of(size: int, seed: int = 0) -> bytes:
    draw = random.Random(seed)
    parts = [b"%d %s\n" % (n, draw.randbytes(draw.choice([3, 30, 60])).hex().encode()) for n in range(size // 70)]
    return b"".join(parts)


def read_in_ranges(data: bytes, chunks, size: int) -> list[list]:
    ranges = [(first, min(first + size, len(data))) for first in range(0, len(data), size)]
    streams = [RangeLines(chunks(io.BytesIO(data), *ends), ends[0] == 0) for ends in ranges]
    return [list(lines(cast(BinaryIO, stream))) for stream in streams]  # `lines` needs no more of a stream


@given(
    st.lists(st.sampled_from([b"a", b"bb", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\xff"]), max_size=30), st.integers(1, 12)
)
@examples(60)
def test_plain_text_in_ranges(parts, size):
    data = b"".join(parts)
    found = read_in_ranges(data, plain_chunks, size)
    assert [line for part in found for line in part] == list(lines(io.BytesIO(data)))
    ends = [
        count_line_ends(plain_chunks(io.BytesIO(data), first, min(first + size, len(data))))
        for first in range(0, len(data), size)
    ]
    assert sum(ends) == data.count(b"\n")


TEXT = text_of(2_000_000)
BZIP2 = {
    "one stream": bz2.compress(TEXT),
    "small blocks": bz2.compress(TEXT[:700_000], 1),
    "several streams": bz2.compress(TEXT[:1_000_001], 5) + bz2.compress(b"") + bz2.compress(TEXT[1_000_001:], 9),
}


@pytest.mark.parametrize("kind", BZIP2)
@pytest.mark.parametrize("size", [200_000, 700_000, 10_000_000])
def test_bzip2_in_ranges(kind, size):
    found = read_in_ranges(BZIP2[kind], bzip2_chunks, size)
    assert [line for part in found for line in part] == list(lines(io.BytesIO(bz2.decompress(BZIP2[kind]))))


@pytest.mark.parametrize("cut", [0.3, 0.8, 0.999])
def test_bzip2_in_ranges_cut_off(cut):
    data = BZIP2["one stream"]
    data = data[: int(len(data) * cut)]
    found = [line for part in read_in_ranges(data, bzip2_chunks, 700_000) for line in part]
    good = [line for line in found if not line.fault]
    assert good == list(lines(io.BytesIO(TEXT)))[: len(good)]
    # two where a line goes on into the block that is cut off
    assert [line.fault for line in found[len(good) :]] == [found[-1].fault] * (len(found) - len(good)) != [""]
    assert len(found) - len(good) in (1, 2)


@pytest.mark.parametrize("header", [b"", b"url\tcaption\n"])
@pytest.mark.parametrize("packed", [bytes, bz2.compress])
def test_rows_keep_their_numbers(tmp_path, monkeypatch, header, packed):
    draw = random.Random(1)
    rows = [b"http://a.example/%d.jpg\t%s" % (n, draw.randbytes(40).hex().encode()) for n in range(12_000)]
    rows[100:103] = [b"", b"", b"one field"]
    (tmp_path / "cc12m.tsv").write_bytes(header + b"\n".join(rows) + b"\n\n")
    whole = list(read_range(file_ranges("cc12m", f"{tmp_path}/cc12m.tsv")[0]))
    (tmp_path / "cc12m.tsv").write_bytes(packed(header + b"\n".join(rows) + b"\n\n"))
    monkeypatch.setattr("pipeline.sources.source.RANGE_BYTES", 200_000)
    parts = file_ranges("cc12m", f"{tmp_path}/cc12m.tsv")
    assert len(parts) > 2 and {part.kind for part in parts} == {"lines"}
    counts = [count_lines(part) for part in parts]
    found = [row for part in parts for row in read_range(part, first_line=first_line_number(part, counts + counts))]
    assert found == whole and [row.row for row in found] == list(range(12_000))
    assert {type(row) for row in found} == {Candidate, Rejected}


def test_a_damaged_range_is_one_row_and_the_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.source.RANGE_BYTES", 1_000_000)
    packed = bytearray(
        bz2.compress(b"".join(b"an image\thttp://a.example/%s.jpg\n" % line.split()[-1] for line in TEXT.splitlines()))
    )
    packed[len(packed) // 2] ^= 1
    (tmp_path / "cc3m.bz2").write_bytes(packed)
    parts = file_ranges("cc3m", f"{tmp_path}/cc3m.bz2")
    counts = [count_lines(part) for part in parts]
    found = [row for part in parts for row in read_range(part, first_line=first_line_number(part, counts))]
    faults = [row for row in found if isinstance(row, Rejected)]
    assert len({row.row for row in found}) == len(found) > 10_000
    assert 1 <= len(faults) <= 2 and all("damaged" in row.detail for row in faults)


def test_what_does_not_split_is_read_whole(tmp_path):
    import gzip

    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT))
    (tmp_path / "small.tsv").write_bytes(b"a\tb\n")
    assert line_ranges(f"{tmp_path}/a.gz", 1000) == line_ranges(f"{tmp_path}/small.tsv", 1000) == []
