"""Fréchet distance between two sets of images, by the features that a network gives for them.

With the features of the Inception network of 2015 this is FID (Heusel et al., 2017, arXiv 1706.08500); with those of
CLIP it is CLIP-FID (Kynkäänniemi et al., 2023, arXiv 2203.06026).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean and covariance of features."""

    mean_F: np.ndarray  # float64
    covariance_FF: np.ndarray  # float64, unbiased


def moments(features_BF: np.ndarray) -> Moments:
    """Moments of the features [B, F] of at least two images. Raises ValueError for fewer."""
    if len(features_BF) < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {len(features_BF)}")
    features_BF = features_BF.astype(np.float64)
    return Moments(features_BF.mean(axis=0), np.cov(features_BF, rowvar=False).reshape(2 * features_BF.shape[1:]))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)), 0 or more.

    The trace of (A B)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), whose matrix is symmetric: its eigenvalues are real
    also for covariances of fewer images than features, where those of A B come out complex.
    """
    root_FF = _root(a.covariance_FF)
    eigenvalues_F = np.linalg.eigvalsh(root_FF @ b.covariance_FF @ root_FF)
    cross = np.sqrt(eigenvalues_F.clip(min=0)).sum()
    traces = np.trace(a.covariance_FF) + np.trace(b.covariance_FF)
    return max(0.0, float(np.square(a.mean_F - b.mean_F).sum() + traces - 2 * cross))


def _root(covariance_FF: np.ndarray) -> np.ndarray:
    """The square root of a symmetric matrix; eigenvalues that rounding made negative are 0."""
    eigenvalues_F, vectors_FF = np.linalg.eigh(covariance_FF)
    return (vectors_FF * np.sqrt(eigenvalues_F.clip(min=0))) @ vectors_FF.T
