"""Bounds on scores: the look-up of any key, the best share of all pairs, reasons with values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scores.best import cutoff
from pipeline.scores.bounds import Bound, ScoreFilter
from pipeline.scores.lookup import Lookup, write_lookup
from pipeline.scores.score_files import Scores, open_scores
from tests.support.scores import write_scores


def key_of(number: int) -> str:
    return f"{((number + 1) * 0x9E3779B97F4A7C15) % 2**64:016x}{number:016x}"


@pytest.fixture
def scores(tmp_path) -> Scores:
    rows: dict[str, dict[str, float | None]] = {key_of(i): {"clip": i / 100, "nsfw": 1 - i / 100} for i in range(60)}
    rows[key_of(7)] = {"clip": None, "nsfw": 0.5}
    return open_scores(str(write_scores(tmp_path / "scores", rows, total=4)))


def test_every_key_is_found(scores, tmp_path):
    lookup = write_lookup(scores, ("nsfw", "clip"), str(tmp_path / "out")).open()
    for i in range(60):
        found = lookup.scores_of(key_of(i))
        assert found["clip"] == pytest.approx(i / 100) or (i == 7 and math.isnan(found["clip"]))
        assert found["nsfw"] == pytest.approx(0.5 if i == 7 else 1 - i / 100)
    for key in ("0" * 32, "f" * 32, key_of(61)):
        assert all(map(math.isnan, lookup.scores_of(key).values()))


def test_keys_that_end_in_zeros(tmp_path):
    keys = ["ab" + "0" * 30, "ab" * 15 + "00", "ab" * 16]
    scores = open_scores(str(write_scores(tmp_path / "s", {key: {"a": i} for i, key in enumerate(keys)})))
    lookup = write_lookup(scores, ("a",), str(tmp_path / "out")).open()
    assert [lookup.scores_of(key)["a"] for key in keys] == [0, 1, 2]


def test_no_scores_at_all(tmp_path):
    scores = open_scores(str(write_scores(tmp_path / "s", {key_of(1): {"a": 1}})))
    empty = Scores(scores.folder, scores.names, scores.paths[:0], scores.sha256)
    assert math.isnan(write_lookup(empty, ("a",), str(tmp_path / "out")).open().scores_of(key_of(1))["a"])


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.sampled_from([0.0, -0.0, 1.5, -2.0]),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=40,
    ),
    st.floats(0.01, 0.99),
)
def test_the_best_share_is_that_of_a_sorted_list(tmp_path_factory, values, share):
    folder: Path = tmp_path_factory.mktemp("best")
    rows = {key_of(i): {"a": value} for i, value in enumerate(values)}
    best = cutoff(open_scores(str(write_scores(folder / "s", rows, total=3))), "a", share)
    known = sorted((-row["a"] or 0.0, key) for key, row in rows.items() if row["a"] is not None)
    expected = {key for _, key in known[: round(share * len(values))]}
    kept = {key for key, row in rows.items() if best.keeps(key, math.nan if row["a"] is None else row["a"])}
    assert kept == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"clip": 0.3, "nsfw": 0.1, "sharpness": 90.0}, None),
        ({"clip": 0.21, "nsfw": 0.9, "sharpness": 90.0}, ("low_similarity", "clip 0.21, below 0.28")),
        ({"clip": 0.28, "nsfw": 0.75, "sharpness": 90.0}, ("unsafe", "nsfw 0.75, above 0.5")),
        ({"clip": 0.3, "nsfw": 0.5, "sharpness": 12.0}, ("low_quality", "sharpness 12, below 50")),
        ({"clip": math.nan, "nsfw": 0.5, "sharpness": 12.0}, ("low_similarity", "clip missing")),
    ],
)
def test_reasons(values, expected):
    bounds = (Bound("clip", low=0.28), Bound("nsfw", high=0.5), Bound("sharpness", low=50))
    found = ScoreFilter(Lookup("", 0, ()), bounds).rejection("0" * 32, values)
    assert (found and (found[0].value, found[1])) == expected


def test_the_reason_of_those_that_are_not_among_the_best(scores):
    best = cutoff(scores, "clip", 0.25)
    judge = ScoreFilter(Lookup("", 0, ()), (), best)
    kept = [i for i in range(60) if judge.rejection(key_of(i), {"clip": float(np.float32(i / 100))}) is None]
    assert kept == list(range(45, 60))
    reason, detail = judge.rejection(key_of(3), {"clip": 0.03}) or ("", "")
    assert reason == "low_similarity" and detail == "clip 0.03, not among the best 0.25 of all, which end at 0.45"
