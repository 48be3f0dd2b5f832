"""How alike two images of one size are: PSNR and SSIM, which need no model."""

from __future__ import annotations

import math

import cv2
import numpy as np

WINDOW, DEVIATION = 11, 1.5  # px, of SSIM's Gaussian window (Wang et al., 2004)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # keep SSIM finite where an image is black or of one colour
MAX_PSNR = 100.0  # dB, of images that are the same, whose own value is infinite


def psnr(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two images, uint8 [H, W, 3], in dB; at most MAX_PSNR."""
    error = np.square(a_HWC.astype(np.float64) - b_HWC).mean()
    return min(MAX_PSNR, 10 * math.log10(255**2 / error)) if error else MAX_PSNR


def ssim(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """Structural similarity of two images, uint8 [H, W, 3], -1 to 1. Raises ValueError below 11 px a side.

    The mean over channels and over the pixels whose window lies inside the image, with the constants of Wang et al.
    (2004, "Image quality assessment").
    """
    if min(a_HWC.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW} px a side, got {a_HWC.shape[1]} x {a_HWC.shape[0]}")
    a, b = a_HWC.astype(np.float64), b_HWC.astype(np.float64)
    mean_a, mean_b = _windowed(a), _windowed(b)
    variance_a, variance_b = _windowed(a * a) - mean_a**2, _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return float((luminance * structure).mean())


def _windowed(x_HWC: np.ndarray) -> np.ndarray:
    """Means in the Gaussian window around each pixel whose window lies inside."""
    edge = WINDOW // 2
    return cv2.GaussianBlur(x_HWC, (WINDOW, WINDOW), DEVIATION)[edge:-edge, edge:-edge]
