"""Words by which a caption is judged, the tails that are cut, and how phrases are found."""

from __future__ import annotations

import math

import pytest

from benchmarks.boilerplate import REAL, boilerplate_texts
from pipeline.text import boilerplate, boilerplate_odds
from pipeline.text.boilerplate import without_tail
from pipeline.text.boilerplate_odds import BIAS, CAPITALS, LENGTH, MAX_LOG_ODDS, features, log_odds


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Taken through the window with my old phone", True),
        ("Taken through the window of the castle", False),
        ("Pentax K-x with DA 50-200", True),
        ("Canon in D, sheet music", False),
        ("Exposure mode: manual, 1/60", True),
        ("Exposure of limestone on the coast", False),
        ("Photograph taken by the uploader", True),
        ("Photograph of the author", False),
        ("Start free trial", True),
        ("Start of the marathon", False),
        ("Sign in to comment", True),
        ("Sign in the window", False),
        ("View from the back", False),
        ("All rights reserved by Jane Doe", True),
        ("Rights march in the capital", False),
        ("Team member photo", True),
        ("Team photo of 1920", False),
        ("", False),
        ("2009", False),
    ],
)
def test_words_alone(caption, expected):
    assert (log_odds(caption) > MAX_LOG_ODDS) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog on a beach. Photo by Jane Doe", "A dog on a beach."),
        ("A dog on a beach | stock photo", "A dog on a beach"),
        ("A dog on a beach - Click to enlarge", "A dog on a beach"),
        ("A dog on a beach (Canon EOS 5D Mark II)", "A dog on a beach"),
        ("A dog on a beach, taken with my phone", "A dog on a beach"),
        ("A dog on a beach. All rights reserved.", "A dog on a beach."),
        ("Kew Gardens, 3 May 2010", "Kew Gardens, 3 May 2010"),
        ("photo of a dog taken on 12 May 2009", "photo of a dog taken on 12 May 2009"),
        ("Photo by Jane Doe", "Photo by Jane Doe"),
        ("", ""),
    ],
)
def test_tails(caption, expected):
    assert without_tail(caption) == expected


def test_no_real_caption_has_a_tail():
    real = boilerplate_texts("patterns")[REAL] + boilerplate_texts("later")[REAL]
    assert [text for text in real if without_tail(text) != text] == []


def test_the_features_of_a_caption():
    found = features("Taken on 12 May, taken")
    names = ["taken", "take~", "~ken", "on", "00", "may", ","]
    names += ["<start> taken", "taken on", "on 00", "00 may", "may ,", ", taken", "taken <end>"]
    names += ["<start> _ on", "taken _ 00", "on _ may", "00 _ ,", "may _ taken", ", _ <end>"]
    assert found.keys() == {*names, BIAS, CAPITALS, LENGTH}
    assert found["on"] == 1 / math.sqrt(23) and found["taken"] == found["take~"] == 2 / math.sqrt(23)
    assert (found[BIAS], found[CAPITALS], found[LENGTH]) == (1, 0.25, 0.3)


@pytest.mark.parametrize("kind", ["dates", "exposure", "file names", REAL])
def test_the_quick_sum_is_that_of_all_features(kind):
    rule = boilerplate_odds._rule()
    weights = {
        **rule.words,
        **{" ".join(pair): weight for pair, weight in rule.beside.items()},
        **{" _ ".join(pair): weight for pair, weight in rule.near.items()},
    }
    for text in ("", "Photo, photo; photo: 123456 _x", *boilerplate_texts("14")[kind]):
        total = sum(value * weights.get(name, 0.0) for name, value in features(text).items())
        assert math.isclose(log_odds(text), total, abs_tol=1e-9)


def test_unknown_words_are_no_boilerplate():
    assert log_odds("Xylqua brontofex") < 0 and log_odds("Katze auf dem Tisch") < 0


def test_every_hint_in_a_caption_is_found():
    for text in (
        "Camera: Nikon D90\tand a LENS",
        "photo  by Jane Doe, 12 May 2009",
        *boilerplate_texts("patterns")["cameras"],
    ):
        folded = f" {' '.join(text.lower().split())} ".translate(boilerplate._DIGITS)
        hinted = [
            number for number, (hints, _) in enumerate(boilerplate._PATTERNS) if any(hint in folded for hint in hints)
        ]
        assert boilerplate._hinted(text) == hinted


REPEATED = (
    "ab 10% ",
    "photo by A ",
    "1/100 ",
    "taken with my ",
    "may be an image of ",
    "photo by A. ",
    "© A ",
    "3 May 2010 ",
    "in the ",
)
"""Beginnings and insides of phrases."""


@pytest.mark.timeout(20)  # each takes some milliseconds
@pytest.mark.parametrize("unit", REPEATED)
def test_the_search_for_phrases_ends_soon(unit):
    """Also where a phrase may be divided in many ways, and none is there."""
    for caption in (unit * 300, unit * 300 + "x", unit * 100 + "!", "cc0 " + unit * 300):
        assert len(boilerplate.phrases(caption)) <= len(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "Photo by Jane Doe in Regent's Park. May be an image of swan.",
        "Photo shared by John A. Smith on 3 May 2020 tagging @rye.and.co. May be art of bread.",
        "Photo in Lisbon with @tomas. May be a selfie of 1 person.",
        "May be a black-and-white image of 1 person and studio",
        "Machine generated alternative text: Sales 2019 North",
    ],
)
def test_what_machines_write_is_covered_to_its_end(caption):
    covered, words = boilerplate.boilerplate_words(caption)
    assert covered == words


@pytest.mark.parametrize(
    "caption",
    ["This may be a painting of Shakespeare", "May be a map of Crete, 1570", "This may be a picture of my aunt"],
)
def test_what_people_suppose_is_not_covered(caption):
    assert boilerplate.phrases(caption) == []
