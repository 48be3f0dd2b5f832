"""Balance: concepts of captions, what a group keeps, and the report on head and tail."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from models.errors import UserError
from pipeline.dataset.balance import HOST, Balance, BalanceRecords, rejection
from pipeline.dataset.balance_report import merge_reports, report_json
from pipeline.dataset.concepts import Concepts, read_concepts
from pipeline.records import EncodedPair
from tests.support.datasets import tiny_text_tokenizer
from tests.support.records import make_record
from tests.support.transforms import apply

WORDS = ("cat", "red cat", "boat", "dog", "New York", "cat's", "a", "the snow", "the")


def metaclip_matches(caption: str, words: tuple[str, ...]) -> set[str]:
    """The words of a caption as the paper's own code finds them: spaced substrings of the spaced text."""
    for mark in ",.;:?!`":
        caption = caption.replace(mark, f" {mark} ")
    return {word for word in words if f" {word} " in f" {caption} "}


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A red cat, in the snow.", ["a", "red cat", "cat", "the snow", "the"]),
        ("Concatenated boats", []),
        ("NEW YORK!", ["New York"]),
        ("The cat's dog; the dog", ["the", "cat's", "dog"]),
        ("", []),
    ],
)
def test_concepts_of_a_caption(caption, found):
    assert sorted(Concepts(WORDS).found_in(caption)) == sorted(found)


def test_concepts_are_those_of_metaclip():
    """In lower case: the paper's code tells capitals apart."""
    rng, words = random.Random(1), tuple(word.lower() for word in WORDS)
    parts = [*words, "concat", "york", "new", "snow", ",", "."]
    for _ in range(300):
        caption = "".join(rng.choice(parts) + rng.choice([" ", " ", ", "]) for _ in range(rng.randrange(9)))
        assert set(Concepts(words).found_in(caption)) == metaclip_matches(caption, words), caption


def test_files_of_concepts(tmp_path):
    (tmp_path / "words.txt").write_text("cat\n\n  New York \nCat\n")
    (tmp_path / "words.json").write_text(json.dumps(["cat", "New York"]))
    for name in ("words.txt", "words.json"):
        concepts = read_concepts(str(tmp_path / name))
        assert len(concepts) == 2 and concepts.found_in("new york cat") == ["New York", "cat"]
    for name, data, fault in (
        ("empty.txt", b"\n \n", "holds no word"),
        ("latin.txt", b"caf\xe9", "give UTF-8 text"),
        ("map.json", b"{}", "or a JSON list"),
        ("none.txt", None, "is not readable"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=fault):
            read_concepts(str(tmp_path / name))


def test_hosts():
    text = tiny_text_tokenizer()
    urls = ("https://I.Example.org:8080/a.jpg", "http://[bad/", "not a url", "")
    pairs = [make_record(1, text)._replace(url=url) for url in urls]
    assert [Balance(HOST, 1).groups_of(pair) for pair in pairs] == [["i.example.org"], *[["(no host)"]] * 3]


@pytest.fixture(scope="module")
def records() -> list[EncodedPair]:
    """500 of host big, 5 of each of 20 small ones; captions repeat 32 of them."""
    text = tiny_text_tokenizer()
    return [
        make_record(i, text)._replace(url=f"https://{'big' if i < 500 else f'small{i % 20}'}.org/{i}")
        for i in range(600)
    ]


@pytest.fixture
def words(tmp_path) -> str:
    """Concepts of which `cat` and `red cat` are in 1 of 8 captions, the same ones, and `snow` in 1 of 4."""
    path = tmp_path / "words.txt"
    path.write_text("cat\nred cat\nsnow\nzebra\n")
    return str(path)


def balanced(records: list[EncodedPair], balance: Balance, output: Path):
    found = apply(BalanceRecords(balance, str(output)), records)
    return found["records"], found["rejected"], report_json(merge_reports(found["reports"]), balance.by, balance.limit)


def test_a_host_keeps_about_its_limit_and_small_ones_all(records, tmp_path):
    kept, rejected, report = balanced(records, Balance("host", 100), tmp_path)
    big = [record.key for record in kept if "big" in record.url]
    assert 70 < len(big) < 130 and len(kept) == len(big) + 100 and len(rejected) == 500 - len(big)
    assert {(row.reason, row.detail) for row in rejected} == {("balanced_out", "host big.org 500; limit 100")}
    assert report["pairs"] == {"before": 600, "after": len(kept)}
    assert report["head"] == {"groups": 1, "before": 500, "after": len(big)}
    assert report["tail"] == {"groups": 20, "before": 100, "after": 100}
    assert report["largest"][0] == {"name": "big.org", "before": 500, "after": len(big)}
    assert [(each["to"], each["before"]) for each in report["sizes"] if each["before"]] == [(9, 20), (999, 1)]


def test_a_larger_limit_keeps_what_a_smaller_one_keeps(records):
    kept = [
        {
            record.key
            for record in records
            if not rejection(record, ["big.org"], {"big.org": 600}, Balance("host", limit))
        }
        for limit in (50, 100, 300, 600)
    ]
    assert kept[0] < kept[1] < kept[2] < kept[3] and len(kept[3]) == 600


def test_a_pair_stays_if_one_of_its_concepts_keeps_it(records, words, tmp_path):
    kept, rejected, report = balanced(records, Balance("concept", 75, words), tmp_path)
    counts = {each["name"]: each["before"] for each in report["largest"]}
    assert counts == {"cat": 76, "red cat": 76, "snow": 150}
    reasons = [row.reason for row in rejected]
    assert reasons.count("no_concept") == sum("cat" not in r.caption and "snow" not in r.caption for r in records)
    assert report["pairs"] == {"before": 600, "after": len(kept)} and len(kept) + len(rejected) == 600


def test_the_chance_is_that_of_metaclip(records, words):
    """That at least one of the concepts draws the pair, each with limit / count."""
    balance, above = Balance("concept", 100, words), {"cat": 200, "red cat": 200, "snow": 400}
    for groups, chance in (["cat", "red cat"], 0.75), (["snow"], 0.25), (["cat", "red cat", "snow"], 1 - 0.75 / 4):
        kept = sum(rejection(record, groups, above, balance) is None for record in records)
        assert abs(kept / len(records) - chance) < 0.05


def test_what_a_reject_names(records, words):
    balance = Balance("concept", 1, words)
    record = records[0]._replace(key="f" * 32, caption="A red cat in the snow")
    rejected = rejection(record, balance.groups_of(record), {"cat": 10**9, "red cat": 10**9, "snow": 10**9}, balance)
    assert rejected and rejected.detail == "concept red cat 1000000000, cat 1000000000, snow 1000000000; limit 1"
    assert rejection(record, ["cat", "rare"], {"cat": 10**9}, balance) is None


def test_nothing_to_balance(tmp_path):
    kept, rejected, report = balanced([], Balance("source", 5), tmp_path)
    assert kept == rejected == [] and report["pairs"] == {"before": 0, "after": 0} and report["largest"] == []
