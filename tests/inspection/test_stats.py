"""What `pairmill stats` and `pairmill diff` say of datasets whose content is known."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from models.errors import UserError
from pipeline.inspection import diff, stats
from tests.support.records import write_records


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """60 pairs; 60 of which the first ten are in the other one, too; the first 60 in other shards."""
    base = tmp_path_factory.mktemp("stats")
    write_records(base / "one", 60)
    write_records(base / "two", 60, first=50)
    write_records(base / "same", 60, shards=3)
    return base


def test_zipf_duplicates_and_medians(datasets, capsys):
    assert stats.main([str(datasets / "one"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["duplicates_left"] == {"same_picture": 0, "same_perceptual_hash": 0, "same_caption": 60 - 32}
    assert set(told["medians_by_source"]) == {"cc3m", "cc12m", "wit"}
    assert told["medians_by_source"]["wit"] == {
        "words": 6.0,
        "tokens": 9.0,
        "shorter_side_px": 48.0,
    }
    assert told["codes"]["zipf_exponent"] < 0.5 < told["text"]["zipf_exponent"]  # noise; words
    assert stats.main([str(datasets / "one")]) == 0
    text = capsys.readouterr().out
    assert "duplicates left" in text and "Zipf exponent" in text and "median by source" in text


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.6])
def test_the_exponent_of_a_known_law(exponent):
    counts = np.random.RandomState(0).permutation(np.round(1e9 * np.arange(1, 500) ** -exponent).astype(np.int64))
    assert abs(stats.zipf_exponent(counts) - exponent) < 0.01


def test_quantiles_of_skewed_values():
    """The mean, or a neighbour of the median, is another number here."""
    values = np.array([90, 4, 1, 3, 2])
    assert stats.quantiles(values) == {"min": 1, "p5": 1.2, "median": 3, "p95": 72.8, "max": 90, "mean": 20}
    assert stats.quantiles(np.arange(101)) == {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100, "mean": 50}
    assert stats.quantiles(np.array([])) == {}


def test_medians_by_source_are_those_of_the_source():
    index = pa.table({"source": ["wit", "cc3m", "wit", "cc3m", "wit"]})
    words, tokens = np.array([1, 10, 2, 40, 60]), np.array([3, 11, 4, 44, 500])
    width, height = np.array([70, 10, 64, 20, 900]), np.array([80, 40, 65, 14, 64])
    none = np.array([])
    assert stats.medians_by_source(stats.Measures(index, words, tokens, width, height, none, none)) == {
        "cc3m": {"words": 25, "tokens": 27.5, "shorter_side_px": 12},
        "wit": {"words": 2, "tokens": 4, "shorter_side_px": 64},
    }


def test_zipf_of_little():
    assert stats.zipf_exponent(np.zeros(9, np.int64)) == stats.zipf_exponent(np.array([0, 4])) == 0


def test_diff(datasets, capsys):
    assert diff.main([str(datasets / "one"), str(datasets / "same")]) == 0
    assert "60 pairs in both, 0 only in A, 0 only in B; 0 of those in both differ" in capsys.readouterr().out
    assert diff.main([str(datasets / "one"), str(datasets / "two")]) == 1
    said = capsys.readouterr().out
    assert "10 pairs in both, 50 only in A, 50 only in B; 0 of those in both differ" in said
    assert said.count("only in A: ") == 6 and "only in A: 45 more" in said


def test_diff_of_changed_pairs_and_settings(datasets, tmp_path, capsys, monkeypatch):
    from tests.support import records as helpers_records

    make = helpers_records.make_record
    monkeypatch.setattr(
        helpers_records,
        "make_record",
        lambda i, *rest: make(i, *rest)._replace(
            codes=bytes(32) if i == 7 else make(i, *rest).codes, licence="new" if i < 3 else make(i, *rest).licence
        ),
    )
    write_records(tmp_path / "changed", 60)
    assert diff.main([str(datasets / "one"), str(tmp_path / "changed")]) == 1
    said = capsys.readouterr().out
    assert "4 of those in both differ" in said
    assert [line.split()[:2] for line in said.splitlines() if line.startswith(("codes", "licence"))] == [
        ["codes", "1"],
        ["licence", "3"],
    ]


def test_diff_of_no_dataset(datasets, tmp_path):
    with pytest.raises(UserError, match="not a finished dataset"):
        diff.main([str(datasets / "one"), str(tmp_path)])
    with pytest.raises(UserError, match="are the same folder"):
        diff.main([str(datasets / "one"), str(datasets / "one") + "/"])
