"""What an image looks like, in a few kilobytes, and whether two images are copies in spite of a resize, another
compression, a light crop or another tone (`benchmarks/duplicates.py` measures both errors).

Candidates come from keys: signs of the lowest frequencies (the discrete cosine transform that perceptual hashes use),
of the image and of 16 crops of it, so that a crop of one meets the other. Two signatures are laid over each other by
the crop that fits best (Lucas and Kanade's method, with one scale and one shift for each axis), tones are mapped by a
curve, and what then differs must be small all over and at every place: a face with another mouth, or a flag with
another coat of arms, is another image. So are two star clusters: what fills them is one glow, and only their fine
detail, at every place measured by how much of it there is, tells them apart."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

GREY_SIDE, COLOUR_SIDE = 48, 16  # px
SIGNATURE_BYTES = GREY_SIDE**2 + 2 * COLOUR_SIDE**2

BLUR = 1.2  # px: finer detail depends on how a small image was sampled
BORDER = 3  # px that a blur at the edge of a crop makes unlike
MAX_CROP = 0.08  # of a side: what a crop of 5 % may seem to be
STEPS = ((4, 6), (2, 6), (BLUR, 6))  # (blur in px, iterations): coarse, then fine


MIN_EXPLAINED, MAX_WORST, MAX_COLOUR, MIN_DETAIL = 0.95, 0.3, 10.0, 0.75
"""Thresholds for `AlignmentScores`. Among images that only look alike, flags and emoji need the second. Of the last,
pairs of different star clusters have at most 0.70, and one changed copy in a hundred has less than 0.83."""
DETAIL_BLUR, LOCAL_BLUR = 2.0, 3.0  # px: what is finer is detail; how large a place is
DETAIL_NOISE, MIN_DETAIL_SPREAD = 3.0, 0.15  # luma; of the detail measured by itself and the noise

KEY_SIDE, BITS, BAND_BITS = 32, 96, 16
KEY_CROPS = (0.0, 0.045)  # of each of the four sides
MAX_UNEQUAL_BITS = 24  # of BITS; candidates differ in no more


TONE_KNOTS = 8
_BEND = np.diff(np.eye(TONE_KNOTS), 2, axis=0)
_STRAIGHT = 3.0 * _BEND.T @ _BEND + 1e-4 * np.eye(TONE_KNOTS)


class Signature(NamedTuple):
    """A signature, ready to compare."""

    grey: np.ndarray  # float32 [GREY_SIDE, GREY_SIDE], 0 to 255
    colour: np.ndarray  # float32 [COLOUR_SIDE, COLOUR_SIDE, 2], Cr and Cb about 0


def compute_signature(rgb_HWC: np.ndarray) -> bytes:
    """The image in 48 x 48 luma and 2 x 16 x 16 chroma bytes, whatever its ratio. `rgb_HWC`: uint8 [H, W, 3]."""
    if min(rgb_HWC.shape[:2]) < GREY_SIDE:
        rgb_HWC = cv2.resize(rgb_HWC, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(rgb_HWC, (GREY_SIDE, GREY_SIDE), interpolation=cv2.INTER_AREA)
    grey, *colour = cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb))
    parts = [cv2.resize(part, (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA) for part in colour]
    return b"".join(part.tobytes() for part in (grey, *parts))


def unpack_signature(data: bytes) -> Signature:
    """The signature from the SIGNATURE_BYTES bytes of `compute_signature`; ValueError for any other number of bytes."""
    pixels = np.frombuffer(data, np.uint8).astype(np.float32)
    grey = pixels[: GREY_SIDE**2].reshape(GREY_SIDE, GREY_SIDE)
    colour = pixels[GREY_SIDE**2 :].reshape(2, COLOUR_SIDE, COLOUR_SIDE).transpose(1, 2, 0)
    return Signature(grey, colour - 128)


class AlignmentScores(NamedTuple):
    """How well one image matches another when it is laid over it."""

    explained: float  # share of the luma's variance, 1 at best
    worst: float  # largest local difference of luma, in standard deviations of the image's
    colour: float  # difference of chroma that no change of saturation explains, root mean square, 0 to 255
    detail: float  # correlation of the luma's fine detail, brought to one strength all over; 1 where there is none


def is_near_duplicate(one: Signature, other: Signature) -> bool:
    """Whether one image is a copy or a crop of the other; symmetric."""
    return any(
        found.explained > MIN_EXPLAINED
        and found.worst < MAX_WORST
        and found.colour < MAX_COLOUR
        and found.detail > MIN_DETAIL
        for found in (align(one, other), align(other, one))
    )


def hash_bits(image: Signature) -> np.ndarray:
    """Bits of the uncropped image and of its 16 crops, bool [17, 96], the uncropped image first."""
    grey = cv2.resize(image.grey, (KEY_SIDE, KEY_SIDE), interpolation=cv2.INTER_AREA)
    cropped = _CROPS[:, None] @ (grey @ _CROPS.transpose(0, 2, 1))  # matrix products: one einsum takes 50 times as long
    crops = np.concatenate([grey[None], cropped.reshape(-1, KEY_SIDE, KEY_SIDE)])
    found = (_COSINES @ crops @ _COSINES.T)[:, _FREQUENCIES[:, 0], _FREQUENCIES[:, 1]]
    # A little over zero: the frequencies that a symmetric image lacks are zero up to rounding.
    return found > 0.1 * np.abs(found).mean(1, keepdims=True) + 1e-3


def band_keys(bits: np.ndarray) -> np.ndarray:
    """Keys of 16 bits with the number of their band above them, int64 [..., 6]."""
    groups = bits.reshape(*bits.shape[:-1], BITS // BAND_BITS, BAND_BITS)
    return (groups << np.arange(BAND_BITS)).sum(-1) + (np.arange(BITS // BAND_BITS) << BAND_BITS)


def _resampling(first: float, last: float) -> np.ndarray:
    """The matrix that crops one axis by two shares and brings it back to its length, float32 [KEY_SIDE, KEY_SIDE]."""
    positions = (first + (1 - first - last) * (np.arange(KEY_SIDE) + 0.5) / KEY_SIDE) * KEY_SIDE - 0.5
    return _linear(np.clip(positions, 0, KEY_SIDE - 1))


def _linear(x: np.ndarray) -> np.ndarray:
    """The matrix that interpolates at the positions x, float32 [N, N]. `x`: float [N], from 0 to N - 1."""
    rows, left = np.arange(len(x)), np.minimum(x.astype(int), len(x) - 2)
    matrix = np.zeros((len(x), len(x)), np.float32)
    matrix[rows, left] = 1 - (x - left)
    matrix[rows, left + 1] += x - left
    return matrix


_FREQUENCIES = np.array(
    sorted(
        ((y, x) for y in range(16) for x in range(16) if y or x),
        key=lambda frequency: (frequency[0] ** 2 + frequency[1] ** 2, frequency),
    )[:BITS]
)
_COSINES = np.cos(np.pi * np.outer(np.arange(KEY_SIDE), np.arange(KEY_SIDE) + 0.5) / KEY_SIDE).astype(np.float32)
_CROPS = np.stack([_resampling(first, last) for first in KEY_CROPS for last in KEY_CROPS])


def align(moved: Signature, fixed: Signature) -> AlignmentScores:
    """How well `moved` matches `fixed` when it is laid over it. Plain images have nothing to match and score 0."""
    if min(moved.grey.std(), fixed.grey.std()) < 1:
        return AlignmentScores(0.0, 0.0, 0.0, 0.0)
    frame = _align(moved.grey, fixed.grey)
    rows, columns, inside = _warp(frame, GREY_SIDE)
    grey = (rows @ cv2.GaussianBlur(moved.grey, (0, 0), BLUR) @ columns.T)[inside]
    blurred = cv2.GaussianBlur(fixed.grey, (0, 0), BLUR)
    target = blurred[inside]
    tones = _tone_curve(grey, target)
    local = cv2.blur(target - tones, (5, 5))[BORDER:-BORDER, BORDER:-BORDER]
    difference = target - tones
    spread = target.var()
    explained = 1 - difference.var() / max(spread, 1)
    rows, columns, _ = _warp(frame, COLOUR_SIDE)
    colour = np.einsum("ij,jkc,lk->ilc", rows, moved.colour, columns)
    worst = np.abs(local).max() / np.sqrt(spread + 100)  # a little over: a plain image's noise is no difference
    return AlignmentScores(
        float(explained), float(worst), _colour_difference(colour, fixed.colour), _common_detail(tones, target)
    )


def _warp(frame: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
    """Matrices that resample rows and columns, float32 [side, side] each, and the part of the result that lies inside
    the image. `frame`: float [4], shift and scale of y, then of x, in shares of the side."""
    matrices, inside = [], []
    for shift, scale in (frame[:2], frame[2:]):
        positions = ((np.arange(side) + 0.5) / side - 0.5) * scale + 0.5 + shift
        within = np.flatnonzero((positions > -0.5 / side) & (positions < 1 + 0.5 / side))
        inside.append(slice(within[0], within[-1] + 1))
        matrices.append(_linear(np.clip(positions * side - 0.5, 0, side - 1)))
    return matrices[0], matrices[1], (inside[0], inside[1])


def _align(moved: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """The frame, float [4] as for `_warp`, by which `moved` comes nearest to `fixed`, up to contrast; both are float32
    [GREY_SIDE, GREY_SIDE]."""
    frame = np.array([0.0, 1.0, 0.0, 1.0])
    axis = ((np.arange(GREY_SIDE) + 0.5) / GREY_SIDE - 0.5).astype(np.float32)
    for blur, iterations in STEPS:
        a, b = (cv2.GaussianBlur(each, (0, 0), blur) for each in (moved, fixed))
        for _ in range(iterations):
            rows, columns, inside = _warp(frame, GREY_SIDE)
            warped = rows @ a @ columns.T
            y, x = np.gradient(warped * GREY_SIDE)
            parts = [
                part[inside].ravel()
                for part in (y, y * axis[:, None], x, x * axis[None, :], warped, np.ones_like(warped))
            ]
            system = np.stack(parts, 1).astype(np.float64)
            normal = system.T @ system
            normal[np.diag_indices(4)] += 1e-3 * normal.diagonal()[:4].mean() + 1e-6
            normal[np.diag_indices(6)] += 1e-6
            step = np.linalg.solve(normal, system.T @ b[inside].ravel())
            if abs(step[4]) < 0.05:
                return frame
            # The gradients are those of the warped image, whose contrast is matched by the fifth number.
            move = step[:4] / step[4]
            move *= frame[[1, 1, 3, 3]]
            frame = frame + np.clip(move, -0.04, 0.04)
            frame[[0, 2]] = np.clip(frame[[0, 2]], -MAX_CROP, MAX_CROP)
            frame[[1, 3]] = np.clip(frame[[1, 3]], 1 - 2 * MAX_CROP, 1 / (1 - 2 * MAX_CROP))
            if np.abs(move).max() < 1e-4:
                break
    return frame


def _tone_curve(grey: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`grey` with the tone curve that brings it nearest to `target`: brightness, contrast, gamma, tones cut off at the
    ends. A curve that fell anywhere would be no change of tone. All are float [H, W]."""
    knots = np.linspace(grey.min(), grey.max() + 1e-3, TONE_KNOTS)
    position = (grey.ravel() - knots[0]) / (knots[1] - knots[0])
    left = np.minimum(position.astype(int), TONE_KNOTS - 2)
    share = position - left
    # Least squares over a polygon; its own slope is kept a little straight where few pixels say anything.
    diagonal = np.bincount(left, (1 - share) ** 2, TONE_KNOTS) + np.bincount(left + 1, share**2, TONE_KNOTS)
    beside = np.bincount(left, share * (1 - share), TONE_KNOTS)[:-1]
    normal = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1) + _STRAIGHT
    y = target.ravel()
    right_side = np.bincount(left, (1 - share) * y, TONE_KNOTS) + np.bincount(left + 1, share * y, TONE_KNOTS)
    curve = np.linalg.solve(normal, right_side)
    rising = (np.maximum.accumulate(curve) + np.minimum.accumulate(curve[::-1])[::-1]) / 2
    return np.interp(grey, knots, rising)


def _common_detail(one: np.ndarray, other: np.ndarray) -> float:
    """AlignmentScores.detail of two images, float [H, W] each."""
    parts = []
    for grey in (one.astype(np.float32), other.astype(np.float32)):
        detail = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_BLUR)
        parts.append(detail / np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), LOCAL_BLUR) + DETAIL_NOISE**2))
    if min(part.std() for part in parts) < MIN_DETAIL_SPREAD:
        return 1.0
    return float((parts[0] * parts[1]).sum() / np.sqrt((parts[0] ** 2).sum() * (parts[1] ** 2).sum()))


def _colour_difference(colour: np.ndarray, target: np.ndarray) -> float:
    """AlignmentScores.colour: what remains after the saturation that fits best (from 0.4 to 2.5) and a cast of at most
    12. Both are float32 [COLOUR_SIDE, COLOUR_SIDE, 2]."""
    scale = np.clip((colour * target).sum() / max((colour * colour).sum(), 1e-3), 0.4, 2.5)
    cast = np.clip((target - scale * colour).mean((0, 1)), -12, 12)
    return float(np.sqrt(((target - scale * colour - cast) ** 2).mean()))
