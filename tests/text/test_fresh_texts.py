"""Texts that were written before anybody looked at what the rules do with them stay as well judged as they are."""

from __future__ import annotations

import pytest

from benchmarks.boilerplate import FITTED, JUDGED, REAL, boilerplate_texts, is_kept, is_lost
from benchmarks.fresh_texts import read_texts
from pipeline.text.language import is_english

LOWEST = {"plain": 0.99, "flickr": 0.96, "wikipedia": 0.93, "products": 0.95, "names": 0.91, "places": 0.9}
"""Shares of the English captions of each kind."""


@pytest.mark.parametrize("name", ["captions_1", "captions_7", "captions_8", "captions_11", "captions_13"])
def test_captions(name):
    texts = read_texts(name)
    shares = {kind: sum(map(is_english, texts[kind])) / len(texts[kind]) for kind in texts}
    assert shares.pop("foreign") <= 0.04
    assert {kind: share for kind, share in shares.items() if share < LOWEST[kind]} == {}


@pytest.mark.parametrize("name", [*FITTED, *JUDGED])
def test_boilerplate(name):
    texts = boilerplate_texts(name)
    real = texts.pop(REAL)
    assert sum(map(is_lost, real)) <= 0.01 * len(real)
    kept = {kind: sum(map(is_kept, texts[kind])) / len(texts[kind]) for kind in texts}
    assert {kind: share for kind, share in kept.items() if share > 0.05} == {}
