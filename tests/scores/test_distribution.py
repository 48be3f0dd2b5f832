"""Distributions of scores, and the pairs that show what a number means."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import UserError
from pipeline.cli import main
from pipeline.fetch import stored_shards
from pipeline.inspection import score_page, show
from pipeline.output.files import write_atomically
from pipeline.records import Pair
from pipeline.scores.distribution import EXAMPLES, distribution, strips
from tests.support.scores import write_scores

NAN = float("nan")


@settings(max_examples=40)
@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.just(NAN), max_size=80))
def test_a_histogram_counts_each_pair_once(numbers):
    found = distribution(np.array(numbers, np.float32))
    known = [number for number in numbers if number == number]
    assert found.pairs == len(numbers) and found.missing == len(numbers) - len(known)
    if len(set(known)) > 1:
        assert sum(found.counts) == len(known) and len(found.edges) == len(found.counts) + 1
        assert found.edges == sorted(found.edges)
        assert found.quantiles["min"] == pytest.approx(min(known), rel=1e-6)
    json.dumps(found.to_json(), allow_nan=False)


def test_strips_have_both_ends_quantiles_and_both_sides_of_a_threshold():
    numbers = np.random.default_rng(0).permutation(1000).astype(np.float32) / 1000
    numbers[:10] = NAN
    found = {strip.title: numbers[strip.positions].tolist() for strip in strips(numbers, 0.28)}
    assert all(values == sorted(values) and len(values) == EXAMPLES for values in found.values())
    known = np.sort(numbers[10:])
    assert found["lowest"] == known[:EXAMPLES].tolist() and found["highest"] == known[-EXAMPLES:].tolist()
    below, above = list(found)[:2]
    cut = int((known < 0.28).sum())
    assert below == f"just below 0.28: {cut} pairs are below, {cut / 990:.1%}"
    assert found[below] == known[cut - EXAMPLES : cut].tolist()
    assert found[above] == known[cut : cut + EXAMPLES].tolist()
    middle = next(values for title, values in found.items() if title.startswith("50 %"))
    assert abs(np.mean(middle) - np.median(known)) < 0.005


def test_strips_of_equal_and_of_no_numbers():
    """Of equal numbers the first keys are shown; keys are hashes, so that these are any pairs."""
    [lowest, *_] = strips(np.zeros(50, np.float32), None)
    assert lowest.positions == list(range(EXAMPLES))
    assert strips(np.full(5, NAN, np.float32), 1.0) == []
    assert [len(strip.positions) for strip in strips(np.array([1, 2], np.float32), 5.0)] == [2, 0] + [2] * 7


@pytest.fixture(scope="module")
def scored(images, tmp_path_factory) -> Path:
    """Made-up scores of the pairs of the images: one that all have, one that half of them have."""
    rows = [row for path in stored_shards.find_image_shards(str(images)) for row in stored_shards.list_rows(path)]
    keys = sorted(row.key for row in rows if isinstance(row, Pair))
    scores = {
        key: {"clip": number / 100, "jpeg_quality": float(number) if number % 2 else NAN}
        for number, key in enumerate(keys)
    }
    output = write_scores(tmp_path_factory.mktemp("scored") / "<scores>", scores)
    write_atomically(str(output / "ledger.json"), b'{"sources": {}}')
    return output


def test_the_numbers_of_stats(scored, capsys):
    assert main(["stats", str(scored), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)["scores"]
    pairs = stats["clip"]["pairs"]
    assert stats["clip"]["quantiles"]["max"] == pytest.approx((pairs - 1) / 100)
    assert stats["jpeg_quality"]["missing"] == (pairs + 1) // 2
    assert sum(stats["jpeg_quality"]["histogram"]["counts"]) == pairs // 2
    assert main(["stats", str(scored)]) == 0
    assert re.search(rf"^clip +{pairs} ", capsys.readouterr().out, re.MULTILINE)


def test_the_page_of_scores(scored, images, tmp_path, monkeypatch):
    decoded: list[str] = []
    read = stored_shards.read_images

    def recorded(path, pairs, config):
        decoded.extend(pairs)
        return read(path, pairs, config)

    monkeypatch.setattr(stored_shards, "read_images", recorded)
    monkeypatch.setattr(score_page, "strips", lambda *given: strips(*given)[:2])
    command = ["show", str(scored), "--html", str(tmp_path / "p.html"), "--images", str(images)]
    assert main([*command, "--threshold", "clip=0.1"]) == 0
    text = (tmp_path / "p.html").read_text()
    assert "&lt;scores&gt;" in text and "<scores>" not in text
    assert text.count('<section id="') == 2 and 'class="even"' in text
    assert text.count("data:image/webp;base64,") + text.count("not among the images") == 24
    assert len(decoded) < 24 and "pairs lack it" in text
    assert main(command) == 0 and 'class="even"' not in (tmp_path / "p.html").read_text()


def test_what_the_page_of_scores_refuses(scored, images, tmp_path):
    page = ["show", str(scored), "--html", str(tmp_path / "p.html")]
    for arguments, fault in (
        (page, "name the images that were scored by --images"),
        ([*page, "--images", str(images), "--threshold", "beauty=1"], "--threshold beauty: the scores are clip"),
        ([*page, "--images", str(tmp_path)], "--images"),
        (["show", str(scored), "--threshold", "clip=1"], "add --html FILE"),
    ):
        with pytest.raises(UserError, match=re.escape(fault)):
            show.main(arguments[1:])
    assert not (tmp_path / "p.html").exists()
