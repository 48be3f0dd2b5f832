"""The Fréchet distance, beside SciPy's matrix root and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.evaluation.frechet import Moments, frechet_distance, moments


def features(seed: int, count: int = 60, width: int = 12, shift: float = 0.0) -> np.ndarray:
    draw = np.random.RandomState(seed)
    return (draw.randn(count, width) @ draw.randn(width, width) + shift).astype(np.float32)


def test_of_gaussians_with_known_distance():
    """Along one axis: (difference of means)^2 + (difference of deviations)^2."""
    a, b = Moments(np.array([1.0]), np.array([[4.0]])), Moments(np.array([3.0]), np.array([[9.0]]))
    assert frechet_distance(a, b) == pytest.approx(2**2 + 1**2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [60, 7])  # 7 of 12 features: the covariance has no inverse
def test_as_with_scipy_s_root(count):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = moments(features(0, count)), moments(features(1, count, shift=0.5))
    root = linalg.sqrtm(a.covariance_FF @ b.covariance_FF)
    expected = np.square(a.mean_F - b.mean_F).sum() + np.trace(a.covariance_FF + b.covariance_FF - 2 * root).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_as_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    both = [moments(features(seed, shift=seed)) for seed in (0, 1)]
    theirs = fid._compute_fid(*(torch.from_numpy(values) for moment in both for values in moment))
    assert frechet_distance(*both) == pytest.approx(float(theirs), rel=1e-6)


def test_moments():
    values = features(3)
    assert moments(values).covariance_FF == pytest.approx(np.cov(values.astype(float), rowvar=False))
    assert moments(values[:, :1]).covariance_FF.shape == (1, 1)
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        moments(values[:1])
