"""The registry; Conceptual Captions; img2dataset's tables; readers and whatever bytes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import select_pairs
from models.errors import UserError
from pipeline.records import Candidate, Reason, Rejected, malformed
from pipeline.sources import cc3m, cc12m, img2dataset, wit, wit_base, yfcc100m
from pipeline.sources.file_ranges import FileRange, file_ranges, read_range
from pipeline.sources.paths import base_name
from pipeline.sources.precedence import source_rank
from pipeline.sources.readers import open_source
from pipeline.sources.registry import SOURCES
from pipeline.sources.source import Source
from tests.support.narrowing import instance, instances
from tests.support.repetition import examples
from tests.support.source_rows import PHOTO, wit_file, wit_row


def rows(module, data: bytes, **settings):
    return list(module.read(io.BytesIO(data), "f", **settings))


def reasons(found):
    return [row.reason if isinstance(row, Rejected) else "" for row in found]


def test_registry(tmp_path):
    assert list(SOURCES) == [
        "cc3m",
        "cc12m",
        "yfcc100m",
        "wit",
        "wit-base",
        "wikipedia-dump",
        "img2dataset",
        "redcaps",
        "sbu",
        "table",
    ]
    assert [source_rank(name) for name in (*SOURCES, "unknown")] == list(range(11))
    (tmp_path / "x").write_text("x")
    with pytest.raises(UserError, match="choose one of cc3m"):
        file_ranges("laion", f"{tmp_path}/x")


# A source from outside: one file and one line of the registry


@dataclasses.dataclass(frozen=True)
class ToySettings:
    shop_name: bool = False


class Toy(Source[ToySettings]):
    """A CSV file of id, caption and URL, whose captions end with the shop's name."""

    name = "toy-csv"
    settings = ToySettings()

    def read_range(self, file_range, settings, first_line_number=0):
        with open_source(file_range.path) as stream:
            for number, line in enumerate(csv.reader(io.TextIOWrapper(stream, "utf-8"))):
                if len(line) != 3:
                    yield malformed(self.name, base_name(file_range.path), number, ",".join(line), "not 3 fields")
                    continue
                yield Candidate(
                    source=self.name,
                    file=base_name(file_range.path),
                    row=number,
                    url=line[2],
                    fallback_urls=(),
                    raw_caption=line[1],
                    width=None,
                    height=None,
                    licence="",
                    page_url="",
                    mime_type="",
                )

    def add_arguments(self, group):
        group.add_argument("--toy-shop-name", action="store_true", help="keep the shop's name in captions")

    def settings_from(self, args):
        return ToySettings(shop_name=args.toy_shop_name)

    def tidy_caption(self, caption, settings):
        return caption if settings.shop_name else caption.removesuffix(" at Toyland")


@pytest.mark.parametrize("options", [[], ["--toy-shop-name"]])
def test_a_source_from_outside(tmp_path, monkeypatch, options):
    monkeypatch.setitem(SOURCES, "toy-csv", Toy())
    (tmp_path / "list.csv").write_text(
        "1,A brown dog runs across the beach at Toyland,http://a.example/1.jpg\n"
        "2,The same dog sleeps in the sun,http://a.example/1.jpg\n"
        "3,Ein brauner Hund am Strand,http://a.example/3.jpg\n"
        "4,no URL\n"
    )
    (tmp_path / "cc3m.tsv").write_text("a white cat sits on a wall .\thttp://a.example/2.jpg\n")
    arguments = [f"--source=toy-csv={tmp_path}/*.csv", f"--source=cc3m={tmp_path}/cc3m.tsv", *options]
    assert select_pairs.main([*arguments, f"--output={tmp_path}/out", "--direct_num_workers=1"]) == 0
    pairs = pq.read_table(tmp_path / "out" / "pairs").to_pylist()
    shop_name = " at Toyland" if options else ""
    assert [(pair["source"], pair["caption"]) for pair in pairs] == [
        ("cc3m", "a white cat sits on a wall."),
        ("toy-csv", f"A brown dog runs across the beach{shop_name}"),
    ]
    rejects = pq.read_table(tmp_path / "out" / "rejects").to_pylist()
    assert [row["reason"] for row in rejects] == ["duplicate_url", "not_english", "malformed_row"]
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())["select"]
    assert settings["toy_csv"] == {"shop_name": bool(options)}
    assert [file["name"] for file in settings["files"]] == ["list.csv", "cc3m.tsv"]
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())["sources"]
    assert (ledger["toy-csv"]["read"], ledger["toy-csv"]["kept"]) == (4, 1)


def test_what_settings_of_sources_are_recorded_as():
    """Keys of manifests: they must stay as they are."""
    recorded: dict[str, object] = {}
    for source in SOURCES.values():
        recorded |= source.recorded(source.settings)
    assert json.loads(json.dumps(recorded)) == {
        "undo_cc3m_spacing": True,
        "cc12m": {"hashes": ""},
        "cc12m_person": "<PERSON>",
        "yfcc100m": {"caption": "title_and_description", "subset": "", "refused_machine_tags": []},
        "wit": {"pixels": [], "pixels_index": ""},
        "wikipedia_dump": {"width": 500},
    }


# Conceptual Captions


@pytest.mark.parametrize(
    ("person", "caption"),
    [
        ("<PERSON>", "<PERSON> at a fair"),
        ("a person", "a person at a fair"),
        ("", "at a fair"),
    ],
)
def test_cc12m_person(person, caption):
    settings = cc12m.Cc12mSettings(person=person)
    assert SOURCES["cc12m"].tidy_caption("<PERSON> at a fair", settings) == caption


def test_cc3m_spacing_is_undone_by_a_setting():
    tokens = "a brown dog runs across the beach ."
    assert SOURCES["cc3m"].tidy_caption(tokens, cc3m.DEFAULT) == "a brown dog runs across the beach."
    assert SOURCES["cc3m"].tidy_caption(tokens, cc3m.Cc3mSettings(undo_spacing=False)) == tokens


@pytest.mark.parametrize(
    ("module", "line", "caption", "url"),
    [
        (
            cc3m,
            'the sign says " stop " .\thttp://a.example/1.jpg',
            'the sign says " stop " .',
            "http://a.example/1.jpg",
        ),
        (cc12m, "https://a.example/1.jpg\t<PERSON> at a fair", "<PERSON> at a fair", "https://a.example/1.jpg"),
        (cc12m, 'http://a.example/1,2.jpg\t"Half a quote, commas', '"Half a quote, commas', "http://a.example/1,2.jpg"),
        (cc12m, "http://a.example/1.jpg\twith a\ttab", "with a\ttab", "http://a.example/1.jpg"),
        (cc3m, "HTTP://a.example/1.jpg\ta reversed row", "a reversed row", "HTTP://a.example/1.jpg"),
        (cc12m, "a reversed row\thttp://a.example/1.jpg", "a reversed row", "http://a.example/1.jpg"),
        (cc3m, "http://b.example/\thttp://a.example/1.jpg", "http://b.example/", "http://a.example/1.jpg"),
        (cc3m, "no link\tftp:/nowhere", "no link", "ftp:/nowhere"),
        (cc3m, "no link\t", "no link", ""),
        (cc3m, "a boat .\thttp://a.example/1.jpg\tboat,sea\t/m/1,/m/2\t0.9,0.8", "a boat .", "http://a.example/1.jpg"),
    ],
)
def test_conceptual_captions(module, line, caption, url):
    [row] = rows(module, line.encode() + b"\n")
    assert row == Candidate(module.NAME, "f", 0, url, (), caption, None, None, "", "", "")


@pytest.mark.parametrize("header", ["caption\turl", "url\tcaption", "Caption\tURL"])
def test_a_header_tells_the_order_and_is_no_row(header):
    found = rows(cc3m, f"{header}\r\none\ttwo\r\nthree\tfour\r\n".encode())
    assert [row.row for row in found] == [0, 1]
    assert found[0].url == ("two" if header.lower().startswith("caption") else "one")


def test_malformed_rows_are_counted_and_numbered():
    found = rows(cc3m, b"only one field\na\thttp://a\n\nnul\0byte\thttp://b\nq\thttp://c\textra\nz\thttp://z\n")
    assert reasons(found) == ["malformed_row", "", "malformed_row", "malformed_row", "malformed_row", ""]
    assert [row.row for row in found] == list(range(6))
    assert found[0].detail == "1 field, expected 2: only one field"
    assert len({row.key for row in found if isinstance(row, Rejected)}) == 4


# img2dataset


def test_img2dataset(tmp_path):
    table = pa.table(
        {
            "key": ["000000000", "000000001"],
            "url": ["http://a.example/1.jpg", None],
            "caption": ["A barn", None],
            "status": ["success", "failed_to_download"],
            "width": [256, None],
            "original_width": [640, None],
            "original_height": [480, None],
        }
    )
    pq.write_table(table, tmp_path / "00000.parquet")
    (tmp_path / "00000.tar").write_bytes(b"")
    for pattern in (tmp_path, tmp_path / "*.parquet", tmp_path / "00000.tar", tmp_path / "*.tar"):
        [piece] = file_ranges("img2dataset", str(pattern))
        first, second = read_range(piece)
        assert first == Candidate(
            "img2dataset",
            "00000.parquet",
            0,
            "http://a.example/1.jpg",
            (),
            "A barn",
            None,  # the size of the original is not that of the image that is stored
            None,
            "",
            "",
            "",
            stored_at=f"{tmp_path}/00000.tar#000000000",
        )
        assert isinstance(second, Candidate)
        assert (second.stored_at, second.row, second.url, second.raw_caption, second.width) == ("", 1, "", "", None)


def sample_tar(path, samples: dict[str, dict[str, bytes]]):
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for ending, data in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def test_img2dataset_tars_and_folders_alone(tmp_path):
    said = {"url": "http://a.example/1.jpg", "caption": "A barn", "original_width": 640, "original_height": 480}
    sample_tar(
        tmp_path / "00000.tar",
        {
            "000000000": {"jpg": b"\xff\xd8", "json": json.dumps(said).encode(), "txt": b"A barn"},
            "000000001": {"png": b"\x89PNG", "json": json.dumps(said | {"caption": None}).encode()},
            "000000002": {"jpg": b"\xff\xd8", "json": b"[1]"},
            "000000003": {"jpg": b"\xff\xd8", "txt": b"A \xff"},
            "000000004": {"json": b"{}"},  # no image
        },
    )
    for pattern in (tmp_path, tmp_path / "*.tar"):
        [piece] = file_ranges("img2dataset", str(pattern))
        found = list(read_range(piece))
        assert found[0] == Candidate(
            "img2dataset",
            "00000.tar",
            0,
            "http://a.example/1.jpg",
            (),
            "A barn",
            None,  # the size of the original is not that of the image that is stored
            None,
            "",
            "",
            "",
            stored_at=f"{tmp_path}/00000.tar#000000000",
        )
        second = instance(found[1], Candidate)
        assert (second.raw_caption, second.stored_at) == ("", f"{tmp_path}/00000.tar#000000001")
        assert reasons(found) == ["", "", "malformed_row", "malformed_row"]
        assert [row.row for row in found] == [0, 1, 2, 3]
    whole = (tmp_path / "00000.tar").read_bytes()
    for cut in (100, 700, 1024 * 3):
        (tmp_path / "00000.tar").write_bytes(whole[:cut])
        assert "not readable as a tar" in instance(list(read_range(piece))[-1], Rejected).detail
    pq.write_table(
        pa.table(
            {"key": ["000000000"], "url": ["http://a.example/1.jpg"], "caption": ["A barn"], "status": ["success"]}
        ),
        tmp_path / "00001.parquet",
    )
    (tmp_path / "00001").mkdir()
    assert [piece.path for piece in file_ranges("img2dataset", f"{tmp_path}/00001/")] == [f"{tmp_path}/00001.parquet"]
    assert [piece.path[-9:] for piece in file_ranges("img2dataset", str(tmp_path))] == ["00000.tar", "1.parquet"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no Parquet file and no tar"):
        file_ranges("img2dataset", f"{tmp_path}/empty")


def test_img2dataset_other_parquet(tmp_path):
    pq.write_table(pa.table({"URL": ["http://a"], "TEXT": ["A barn"]}), tmp_path / "laion.parquet")
    pq.write_table(pa.table({"URL": [b"\xff"], "TEXT": [3]}), tmp_path / "types.parquet")
    pq.write_table(pa.table({"link": ["http://a"]}), tmp_path / "no.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "no.parquet").read_bytes()[:50])
    [row] = read_range(FileRange("img2dataset", f"{tmp_path}/laion.parquet"))
    assert (row.url, row.raw_caption) == ("http://a", "A barn")
    faults = {"types": "not text", "no": "no column url or image_url among link", "cut": "not readable as Parquet"}
    damaged = {"cut": Reason.DAMAGED_FILE}
    for name, detail in faults.items():
        [row] = instances(read_range(FileRange("img2dataset", f"{tmp_path}/{name}.parquet")), Rejected)
        assert row.reason == damaged.get(name, Reason.MALFORMED_ROW) and detail in row.detail


# Whatever the bytes are


@given(
    st.sampled_from([cc3m, cc12m, yfcc100m, wit, wit_base, img2dataset]),
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [
                    b"\n",
                    b"\t",
                    b'"',
                    b"\r\n",
                    b"\0",
                    b"http://a.example/x.jpg",
                    "\t".join(PHOTO).encode(),
                    b"\xff\xfe",
                    wit_file(wit_row()),
                    b"caption\turl\n",
                ]
            ),
        )
    ),
)
@examples(60)
def test_readers_never_raise_and_number_every_row(module, parts):
    found = rows(module, b"".join(parts))
    assert [row.row for row in found] == list(range(len(found)))
    assert all(isinstance(row, (Candidate, Rejected)) for row in found)
