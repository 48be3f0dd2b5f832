"""`pairmill select` as a job: exact account, the same bytes whoever worked, interrupted or not."""

from __future__ import annotations

import bz2
import collections
import hashlib
import io
import json
import random
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import select_pairs
from models.errors import UserError
from pipeline.filters import SelectConfig
from pipeline.inspection import show
from pipeline.output import parquet
from pipeline.output.progress import read_progress
from pipeline.records import Pair, Rejected
from pipeline.select import spill, url_duplicates
from pipeline.select.stage import HashPartition, RangeResult, filter_range, groups_of_partition, plan_partitions
from pipeline.sources import canonical_urls, precedence, yfcc100m
from pipeline.sources.file_ranges import FileRange
from pipeline.sources.registry import DEFAULTS
from pipeline.sources.registry import SOURCES as ALL_SOURCES
from tests.support.dumps import article as german_article
from tests.support.dumps import write_dump
from tests.support.paths import ROOT, files_of
from tests.support.source_rows import caption, row

ONE_WORKER = ["--direct_num_workers=1"]
SOURCES = ROOT / "sample" / "sources"
FILES = (
    ("cc3m", "cc3m.tsv"),
    ("cc12m", "cc12m.tsv"),
    ("yfcc100m", "yfcc100m_dataset-*"),
    ("wit", "wit_v1.sample.tsv.gz"),
)


MADE_ROWS = {"wit-base": 30, "wikipedia-dump": 82, "img2dataset": 20, "redcaps": 14, "sbu": 14, "table": 14}
REASON = spill.ROWS.get_field_index("reason")
SHARED_URL = "http://shared.example/boat.jpg"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[str]:
    """All of them: the sample's four lists, and of the others files as they are published."""
    folder = tmp_path_factory.mktemp("lists")
    made = {
        "wit-base": write_wit_base(folder / "train-00000-of-00330.parquet"),
        "img2dataset": write_images(folder),
        "wikipedia-dump": folder / "*multistream*.bz2",
        **write_tables(folder),
    }
    pages = [row("wikipedia-dump", number).decode() for number in range(40)]
    write_dump(folder, ["".join(pages[:20]), "".join(pages[20:]), german_article(99)])
    lists = [*((name, SOURCES / pattern) for name, pattern in FILES), *made.items()]
    assert {name for name, _ in lists} == set(ALL_SOURCES)
    return [f"--source={name}={pattern}" for name, pattern in lists]


def write_wit_base(path: Path) -> Path:
    """One picture is another source's too, one caption is German, one row has no URL."""
    number = range(MADE_ROWS["wit-base"])
    pages = [
        {
            "language": "en",
            "page_url": f"https://en.wikipedia.org/wiki/Boat_{n}",
            "page_title": f"Boat {n}",
            "caption_reference_description": caption(n),
            "caption_alt_text_description": None,
        }
        for n in number
    ]
    pages[3] |= {"language": "de", "caption_reference_description": "Ein altes Boot liegt am Ufer des Sees"}
    urls: list[str | None] = [f"https://upload.wikimedia.org/wikipedia/commons/a/ab/Boat_{n}.jpg" for n in number]
    urls[1], urls[2] = SHARED_URL, None
    pq.write_table(
        pa.table(
            {
                "image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}] * len(urls),
                "image_url": urls,
                "original_height": [300] * len(urls),
                "original_width": [400] * len(urls),
                "mime_type": ["image/jpeg"] * len(urls),
                "caption_attribution_description": [None] * len(urls),
                "wit_features": [[page] for page in pages],
            }
        ),
        path,
    )
    return path


def write_tables(folder: Path) -> dict[str, Path]:
    """A document of each publisher, and somebody's table in two groups of rows."""
    rows = {
        name: [(f"http://{name}.example/{n}.jpg", f"{caption(n)} in {name}") for n in range(MADE_ROWS[name])]
        for name in ("redcaps", "sbu", "table")
    }
    for table in rows.values():
        table[3] = (table[3][0], "Ein altes Boot liegt am Ufer des Sees")
    posts = [{"url": url, "raw_caption": text, "caption": text.lower()} for url, text in rows["redcaps"]]
    (folder / "boats_2017.json").write_text(json.dumps({"info": {}, "annotations": posts}))
    urls, texts = zip(*rows["sbu"], strict=True)
    (folder / "sbu-captions-all.json").write_text(json.dumps({"image_urls": urls, "captions": texts}))
    table = pa.Table.from_pylist([{"URL": url, "TEXT": text} for url, text in rows["table"]])
    pq.write_table(table, folder / "part-0.parquet", row_group_size=7)
    names = {"redcaps": "boats_2017.json", "sbu": "sbu-captions-all.json", "table": "part-0.parquet"}
    return {source: folder / name for source, name in names.items()}


def write_images(folder: Path) -> Path:
    """img2dataset's tar, and its table of all rows, of which one was not downloaded."""
    number = range(MADE_ROWS["img2dataset"])
    rows: list[dict[str, str | int | None]] = [
        {
            "key": f"{n:09d}",
            "url": f"http://a.example/{n}.jpg",
            "caption": f"{caption(n)} again",
            "status": "success",
            "width": 256,
            "height": 256,
            "original_width": 640,
            "original_height": 480,
        }
        for n in number
    ]
    rows[4]["url"] = SHARED_URL
    rows[5] |= {
        "status": "failed_to_download",
        "width": None,
        "height": None,
        "original_width": None,
        "original_height": None,
    }
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for each in (each for each in rows if each["status"] == "success"):
            for ending, data in (
                (".jpg", b"\xff\xd8"),
                (".txt", str(each["caption"]).encode()),
                (".json", json.dumps(each).encode()),
            ):
                member = tarfile.TarInfo(f"{each['key']}{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return folder / "00000.tar"


@pytest.fixture(scope="module")
def selected(sources, tmp_path_factory):
    output = tmp_path_factory.mktemp("selected")
    assert select_pairs.main([*sources, "--rows-per-file=100", f"--output={output}", *ONE_WORKER]) == 0
    return output


def test_the_account_is_exact(selected):
    pairs, rejects = (pq.read_table(selected / name).to_pylist() for name in ("pairs", "rejects"))
    ledger = json.loads((selected / "ledger.json").read_text())["sources"]
    assert sum(account["read"] for account in ledger.values()) == len(pairs) + len(rejects)
    assert sum(ledger[name]["read"] for name, _ in FILES) == 506
    assert {name: ledger[name]["read"] for name in MADE_ROWS} == MADE_ROWS
    assert all(account["kept"] > 10 for account in ledger.values())
    assert {row["source"]: row["reason"] for row in rejects if row["url"] == SHARED_URL} == {
        "img2dataset": "duplicate_url"
    }
    for name, account in ledger.items():
        assert account["kept"] == sum(row["source"] == name for row in pairs)
        for reason, number in account["rejected"]["select"].items():
            assert number == sum((row["source"], row["reason"]) == (name, reason) for row in rejects)
    assert {row["stage"] for row in rejects} == {"select"}
    assert len({row["key"] for row in pairs}) == len(pairs)
    assert len(list((selected / "pairs").iterdir())) == len(list((selected / "rejects").iterdir())) == 7


@pytest.mark.parametrize("workers", [["--direct_num_workers=2"], [*ONE_WORKER, "--direct_runner_bundle_repeat=2"]])
def test_the_same_bytes_whoever_works(selected, sources, workers, tmp_path, elsewhere):
    options = [*sources, "--rows-per-file=100", f"--output={tmp_path / 'out'}", *workers]
    status, said = elsewhere.run(["select", *options], tmp_path)
    assert status == 0, said
    assert files_of(tmp_path / "out") == files_of(selected)


def test_show_has_a_sample_of_each_reason(selected, capsys):
    assert show.main([str(selected), "--count=5"]) == 0
    text = capsys.readouterr().out
    ledger = json.loads((selected / "ledger.json").read_text())["sources"]
    numbers: collections.Counter[str] = collections.Counter()
    for account in ledger.values():
        numbers.update(account["rejected"]["select"])
    said = re.findall(r"^rejected in select, (\w+): ([\d,]+) rows?$", text, re.MULTILINE)
    assert {reason: int(number) for reason, number in said} == numbers and len(numbers) > 8
    kept = {row["key"]: row for row in pq.read_table(selected / "pairs").to_pylist()}
    assert f"5 of {len(kept)} pairs, drawn by seed 0." in text
    shown = re.findall(r"^([0-9a-f]{32})  ", text, re.MULTILINE)
    assert len(set(shown)) == 5 and all(kept[key]["url"] in text for key in shown)
    assert show.main([str(selected), f"--key={shown[0]}"]) == 0
    text = capsys.readouterr().out
    assert "rejected in" not in text and kept[shown[0]]["url"] in text
    assert show.main([str(selected), "--source=cc3m", "--count=3"]) == 0
    assert not re.search(r"^ *(cc12m|wit) ", capsys.readouterr().out, re.MULTILINE)
    with pytest.raises(UserError, match="leave out --html"):
        show.main([str(selected), "--html=/dev/null"])


def test_dry_run_only_counts(selected, sources, tmp_path):
    assert select_pairs.main([*sources, f"--output={tmp_path}", "--dry-run", *ONE_WORKER]) == 0
    assert set(files_of(tmp_path)) == {"ledger.json", "settings.json"}
    assert (tmp_path / "ledger.json").read_text() == (selected / "ledger.json").read_text()
    with pytest.raises(UserError, match="only counts"):
        show.main([str(tmp_path)])


def account(tmp_path, lines: bytes, number: int = 0) -> RangeResult:
    path = tmp_path / f"cc3m-{number}.tsv"
    path.write_bytes(lines)
    return filter_range((number, FileRange("cc3m", str(path))), [], SelectConfig(), DEFAULTS, str(tmp_path))


def test_a_piece_that_is_done_is_not_read_again(tmp_path, monkeypatch):
    made = account(tmp_path, b"a brown dog on the beach\thttp://a.example/1.jpg\n")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.select.stage.read_range", None)
        assert account_again(tmp_path) == made
    (tmp_path / "cc3m-0.tsv").write_bytes(b"")  # another file by now
    assert account_again(tmp_path).rows == 0


def test_rejects_are_counted_as_they_come(tmp_path):
    account(tmp_path, b"a brown dog on the beach\thttp://a.example/1.jpg\nun chien brun sur la plage\tno url\n")
    assert read_progress(str(tmp_path), "select").detail == "bad_url 1"


def account_again(tmp_path) -> RangeResult:
    return filter_range((0, FileRange("cc3m", f"{tmp_path}/cc3m-0.tsv")), [], SelectConfig(), DEFAULTS, str(tmp_path))


def rows_of_part(part: HashPartition, accounts: list[RangeResult], output: Path) -> list[dict]:
    found = groups_of_partition(part, accounts, str(output))
    rows = [row for table in found.tables() for row in table.to_pylist()]
    assert collections.Counter((row["source"], row["reason"]) for row in rows) == found.counts
    return rows


def test_the_parts_hold_every_row_once_whatever_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "BATCH_ROWS", 100)
    monkeypatch.setattr(spill, "SPILL_BATCHES", 3)
    draw = random.Random(0)
    accounts = [
        account(
            tmp_path,
            b"".join(
                b"a brown dog on the beach number %d\thttp%s://a.example/%d.jpg\n"
                % (n, draw.choice([b"", b"s"]), draw.randrange(800))
                for n in range(1000)
            ),
            number,
        )
        for number in range(2)
    ]
    assert len(accounts[0].spills) == 4

    def rows(parts):
        return sorted(tuple(row.values()) for part in parts for row in rows_of_part(part, accounts, tmp_path))

    whole = rows([HashPartition(0, 1)])
    kept = [row for row in whole if not row[REASON]]
    assert len(whole) == 2000 and len(kept) == len({canonical_urls.canonical_url(row[4]) for row in whole})
    assert {row[2] for row in whole if row[REASON] == "duplicate_url"} == {"cc3m-0.tsv", "cc3m-1.tsv"}
    assert rows(plan_partitions(2000, 300)) == rows(plan_partitions(10**9, 1)) == whole


def test_files_of_one_name_and_a_file_given_twice(tmp_path, monkeypatch):
    """Their rows lie among each other; the order in which a runner hands them over is nothing to go by."""
    monkeypatch.setattr(spill, "BATCH_ROWS", 8)
    monkeypatch.setattr(spill, "SPILL_BATCHES", 2)
    monkeypatch.setattr(url_duplicates, "TABLE_ROWS", 10)
    accounts = []
    for number, folder in enumerate(("a", "b", "b")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "list.tsv").write_text(
            "".join(f"a brown dog on the beach\thttp://{folder}.example/{n % 60}.jpg\n" for n in range(70))
        )
        piece = FileRange("cc3m", f"{tmp_path}/{folder}/list.tsv")
        accounts.append(filter_range((number, piece), [], SelectConfig(), DEFAULTS, str(tmp_path)))
    table = rows_of_part(HashPartition(0, 1), accounts, tmp_path)
    assert [row["row"] for row in table] == [n for n in range(70) for _ in range(3)]
    kept = [(row["row"], row["url"][7]) for row in table if not row["reason"]]
    assert sorted(kept) == [(n, folder) for n in range(60) for folder in "ab"]
    assert rows_of_part(HashPartition(0, 1), accounts[::-1], tmp_path) == table


def test_a_file_written_in_parts_has_the_bytes_of_one_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 100)
    rows = pa.table({"a": range(1050), "b": [f"text {n % 7}" for n in range(1050)]})
    for table in (rows, rows.slice(0, 300), rows.slice(0, 0)):
        for step in (1, 70, 100, 350, 2000):
            file = io.BytesIO()
            writer = parquet.FileWriter(file, table.schema)
            for begin in range(0, len(table), step):
                writer.write(table.slice(begin, step))
            written = writer.close("x.parquet")
            assert file.getvalue() == parquet.file_bytes(table)
            assert written == (written.path, len(file.getvalue()), hashlib.sha256(file.getvalue()).hexdigest())


def test_duplicates_are_the_ones_that_first_of_leaves(tmp_path):
    made = account(
        tmp_path, b"".join(b"a brown dog on the beach %d\thttp://a.example/%d.jpg\n" % (n, n % 7) for n in range(50))
    )
    table = rows_of_part(HashPartition(0, 1), [made], tmp_path)
    pairs = [Pair(**{name: row[name] for name in Pair._fields}) for row in table]
    first = {
        precedence.preferred_pair([pair for pair in pairs if pair.url == url]).key
        for url in {pair.url for pair in pairs}
    }
    assert {row["key"] for row in table if not row["reason"]} == first
    assert {row["detail"].removeprefix("kept ") for row in table if row["reason"]} == first
    assert [row["row"] for row in table] == list(range(50))


def test_a_duplicate_url_keeps_its_raw_caption_cut(tmp_path):
    caption = "a brown dog runs over the beach with a café, " * 20
    rows = "".join(f"{caption}\thttp://a.example/x\n" for _ in range(3))
    table = rows_of_part(HashPartition(0, 1), [account(tmp_path, rows.encode())], tmp_path)
    assert [row["raw_caption"] for row in table] == [caption, caption[:500], caption[:500]]
    assert [row["reason"] for row in table] == ["", "duplicate_url", "duplicate_url"]


def test_yfcc_options_reach_the_parser(tmp_path):
    lines = bz2.decompress((SOURCES / "yfcc100m_dataset-1.bz2").read_bytes()).decode().splitlines()
    photos = [fields for line in lines if len(fields := line.split("\t")) == 25 and fields[-1] == "0"]
    chosen = photos[:20]
    (tmp_path / "subset.tsv.bz2").write_bytes(
        bz2.compress("".join(f"{n}\t{fields[1]}\t{fields[2]}\n" for n, fields in enumerate(chosen)).encode())
    )
    options = [
        f"--source=yfcc100m={SOURCES}/yfcc100m_dataset-1.bz2",
        f"--yfcc-subset={tmp_path}/subset.tsv.bz2",
        "--yfcc-refuse-machine-tag=sample:part",
        "--yfcc-caption=title",
        "--language-threshold=0.25",
    ]
    assert select_pairs.main([*options, f"--output={tmp_path / 'out'}", *ONE_WORKER]) == 0
    rejected = json.loads((tmp_path / "out" / "ledger.json").read_text())["sources"]["yfcc100m"]["rejected"]["select"]
    outside = sum(fields[1] not in {each[1] for each in chosen} for fields in photos)
    tagged = sum("sample%3Apart" in fields[11] for fields in photos if fields[1] in {each[1] for each in chosen})
    assert rejected["not_in_subset"] >= outside > 10 and rejected["machine_tag"] == tagged > 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())["select"]
    assert settings["yfcc100m"]["caption"] == "title" and settings["language_threshold"] == 0.25
    assert settings["yfcc100m"]["refused_machine_tags"] == ["sample:part"]
    with pytest.raises(UserError, match=r"--language-threshold 2: give a number from 0 to 1"):
        select_pairs.main([*options, "--language-threshold=2", f"--output={tmp_path / 'other'}"])


def test_a_subset_that_is_none(tmp_path):
    (tmp_path / "no.tsv").write_text("a\tb\nc\td\n")
    with pytest.raises(UserError, match=r"no\.tsv, line 2: no photo id"):
        yfcc100m.subset_ids(f"{tmp_path}/no.tsv")


def test_a_reject_keeps_what_it_says():
    reject = Rejected(
        key="k" * 32,
        source="cc3m",
        file="f",
        row=3,
        url="",
        stage="select",
        reason="malformed_row",
        detail="1 field, expected 2",
    )
    row = spill._row(reject)
    assert len(row) == len(spill.ROWS) + 1 and row[spill.ROWS.get_field_index("detail")] == reject.detail


def test_a_side_file_that_is_mended_needs_no_other_output(tmp_path):
    options = [f"--source=yfcc100m={SOURCES}/yfcc100m_dataset-0", f"--output={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="can't open /nowhere"):
        select_pairs.main([*options, "--direct_num_workers=1", "--yfcc-subset=/nowhere"])
    assert select_pairs.main([*options, "--direct_num_workers=1"]) == 0
