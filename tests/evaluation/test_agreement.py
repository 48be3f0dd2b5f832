"""CLIP score and retrieval."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.evaluation.agreement import clip_score, normalised, recall


def embeddings(seed: int, count: int = 40) -> np.ndarray:
    return normalised(np.random.RandomState(seed).randn(count, 6).astype(np.float32))


CAPTIONS = [f"caption {i}" for i in range(40)]


def test_clip_score():
    image, text = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [0.6, 0.8]])
    assert clip_score(image, text) == pytest.approx(100 * (1 + 0.8) / 2)
    assert clip_score(image, -text) == 0


def test_recall_is_a_sort():
    query, found = embeddings(0), embeddings(0) + 0.6 * embeddings(1)
    order = np.argsort(-(query @ found.T), axis=1)
    expected = {f"recall@{k}": np.mean([i in order[i, :k] for i in range(40)]) for k in (1, 5, 10)}
    assert recall(query, found, CAPTIONS) == pytest.approx(expected)
    assert 0 < expected["recall@1"] < expected["recall@10"] < 1


def test_equal_captions_are_one_answer():
    query = embeddings(2)
    found = np.roll(query, -1, axis=0)  # each query finds the item before its own
    assert recall(query, found, CAPTIONS)["recall@1"] == 0
    assert recall(query, found, ["one caption"] * 40)["recall@1"] == 1
    pairs = [f"caption {i // 2}" for i in range(40)]
    assert recall(query, found, pairs)["recall@1"] == 0.5


def test_embeddings_that_are_all_alike_find_nothing():
    alike = normalised(np.ones((40, 6)))
    assert recall(alike, alike, CAPTIONS) == {"recall@1": 0, "recall@5": 0, "recall@10": 0}


def test_more_queries_than_a_block(monkeypatch):
    query, found = embeddings(0), embeddings(0) + 0.6 * embeddings(1)
    whole = recall(query, found, CAPTIONS)
    monkeypatch.setattr("models.evaluation.agreement.BLOCK", 7)
    assert recall(query, found, CAPTIONS) == whole


def test_as_torchmetrics():
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    query, found = embeddings(0), embeddings(0) + 0.6 * embeddings(1)
    scores = torch.from_numpy(query @ found.T)
    rows = torch.arange(40)[:, None].expand(40, 40)
    for name, value in recall(query, found, CAPTIONS).items():
        metric = retrieval.RetrievalHitRate(top_k=int(name.partition("@")[2]))
        theirs = metric(scores.flatten(), torch.eye(40, dtype=torch.bool).flatten(), indexes=rows.flatten())
        assert value == pytest.approx(float(theirs))
