"""How well images and captions agree, by their embeddings: CLIP score, and retrieval among all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RANKS = (1, 5, 10)  # k of recall@k
BLOCK = 1024  # queries compared at a time


def normalised(features_BE: np.ndarray) -> np.ndarray:
    """Features [B, E] as embeddings of length 1, float64 [B, E]."""
    features_BE = features_BE.astype(np.float64)
    return features_BE / np.linalg.norm(features_BE, axis=1, keepdims=True).clip(min=1e-12)


def clip_score(image_BE: np.ndarray, text_BE: np.ndarray) -> float:
    """100 times the mean cosine of each image and its caption, by embeddings [B, E] of length 1, at least 0 (Hessel et
    al., 2021, arXiv 2104.08718, with the factor that is in use)."""
    return max(0.0, 100 * float((image_BE * text_BE).sum(axis=1).mean()))


def recall(query_BE: np.ndarray, found_BE: np.ndarray, captions: Sequence[str]) -> dict[str, float]:
    """The share of queries whose own item is among the k most similar of all, for each k of RANKS: "recall@1", ...

    Embeddings are [B, E], of length 1; pair i has query i, item i and caption i. Items of the same caption are one
    answer, since nothing tells them apart; an item as similar as the answer counts as more similar, so that embeddings
    that are all alike find nothing.
    """
    ids_B = np.unique(np.asarray(captions), return_inverse=True)[1]
    ranks_B = np.concatenate(
        [
            _ranks(query_BE[first : first + BLOCK] @ found_BE.T, ids_B[first : first + BLOCK, None] == ids_B)
            for first in range(0, len(query_BE), BLOCK)
        ]
    )
    return {f"recall@{k}": float((ranks_B < k).mean()) for k in RANKS}


def _ranks(similarity_QB: np.ndarray, is_answer_QB: np.ndarray) -> np.ndarray:
    """The number of items that are no answer and at least as similar as the best answer, [Q]."""
    best_Q1 = np.where(is_answer_QB, similarity_QB, -np.inf).max(axis=1, keepdims=True)
    return ((similarity_QB >= best_Q1) & ~is_answer_QB).sum(axis=1)
