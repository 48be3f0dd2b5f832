"""PSNR and SSIM, beside scikit-image's where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.similarity import psnr, ssim
from tests.support.images import photo


def pair(strength: int, width: int = 61, height: int = 47) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(photo(width, height))
    noise = np.random.RandomState(strength).randint(-strength, strength + 1, image.shape)
    return image, (image + noise).clip(0, 255).astype(np.uint8)


def test_psnr_of_a_known_error():
    grey = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(grey, grey + 10) == pytest.approx(20 * np.log10(25.5))
    assert psnr(grey + 10, grey) == psnr(grey, grey + 10)
    assert psnr(grey, grey) == 100


def window() -> np.ndarray:
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    return np.outer(line, line) / line.sum() ** 2


def plain_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The formula of the paper, window by window."""
    weights, values = window(), []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (image[top : top + 11, left : left + 11].astype(float) for image in (a, b))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
            variances = (weights * (x - mean_x) ** 2).sum() + (weights * (y - mean_y) ** 2).sum()
            c1, c2 = 6.5025, 58.5225
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            values.append(luminance * (2 * covariance + c2) / (variances + c2))
    return float(np.mean(values))


@pytest.mark.parametrize("strength", [4, 60])
def test_ssim_is_the_formula(strength):
    a, b = pair(strength, 24, 20)
    expected = np.mean([plain_ssim(a[..., channel], b[..., channel]) for channel in range(3)])
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert ssim(a, a) == pytest.approx(1)


def test_ssim_needs_a_window():
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(*pair(3, 30, 10))


@pytest.mark.parametrize("strength", [1, 20, 120])
def test_as_scikit_image(strength):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(strength)
    assert psnr(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(a, b, data_range=255))
    options = {"channel_axis": -1, "gaussian_weights": True, "use_sample_covariance": False, "data_range": 255}
    assert ssim(a, b) == pytest.approx(metrics.structural_similarity(a, b, **options), abs=1e-9)
