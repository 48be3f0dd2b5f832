"""Of each kind of boilerplate little is kept, and of captions that resemble it hardly one is lost."""

from __future__ import annotations

import pytest

from benchmarks.boilerplate import is_kept
from benchmarks.boilerplate_texts import KINDS, LATER, LATER_REAL, REAL, texts_of
from pipeline.text import boilerplate, meta_words
from pipeline.text.boilerplate import without_tail
from pipeline.text.meta_words import is_meta


@pytest.mark.parametrize("kind", KINDS)
def test_at_most_five_in_a_hundred_of_each_kind_are_kept(kind):
    texts = texts_of(KINDS[kind])
    assert sum(map(is_kept, texts)) <= 0.05 * len(texts)


def test_few_of_the_phrases_that_were_written_later_are_kept():
    texts = [text for block in LATER.values() for text in texts_of(block)]
    assert sum(map(is_kept, texts)) <= 0.06 * len(texts)


def test_at_most_one_real_caption_in_a_hundred_is_lost():
    texts = texts_of(REAL) + texts_of(LATER_REAL)
    assert sum(not is_kept(text) for text in texts) <= 0.01 * len(texts)


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
    assert is_meta(caption) == expected


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
    assert [text for text in texts_of(REAL) + texts_of(LATER_REAL) if without_tail(text) != text] == []


def all_texts() -> list[str]:
    blocks = (*KINDS.values(), *LATER.values(), REAL, LATER_REAL)
    return [text for block in blocks for text in texts_of(block)]


def test_quick_answers_are_those_of_the_whole_way(monkeypatch):
    quick = [is_meta(text) for text in all_texts()]
    monkeypatch.setattr(meta_words, "_has_other_words", lambda caption: False)
    assert [is_meta(text) for text in all_texts()] == quick
    assert 0 < sum(quick) < len(quick)


def test_every_hint_in_a_caption_is_found():
    for text in ("Camera: Nikon D90\tand a LENS", "photo  by Jane Doe, 12 May 2009", *all_texts()):
        folded = f" {' '.join(text.lower().split())} ".translate(boilerplate._DIGITS)
        hinted = [
            number for number, (hints, _) in enumerate(boilerplate._PATTERNS) if any(hint in folded for hint in hints)
        ]
        assert boilerplate._hinted(text) == hinted
