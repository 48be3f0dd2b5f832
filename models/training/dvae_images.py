"""Images for training and measuring the dVAE: lists tar files, crops the views of Listing 1, and makes batches."""

from __future__ import annotations

import concurrent.futures
import glob
import math
import tarfile
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import torch

from models import pixels
from models.errors import UserError
from models.hashing import hash_fraction, stable_hash

SUFFIXES = tuple(f".{suffix}" for suffix in sorted(pixels.IMAGE_SUFFIXES))
HELD_OUT_SHARE = 0.05


class Member(NamedTuple):
    """An image file inside a tar file; offset and size in bytes."""

    path: str
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes of the image file."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def list_images(pattern: str) -> tuple[list[Member], list[Member]]:
    """Lists the images in the tar files of a glob as (training, held out); 5 % by hash of the name are held out.

    Raises UserError if no file matches, a file is not a tar file, or none holds images.
    """
    paths = sorted(glob.glob(pattern))
    if not paths:
        raise UserError(f"--images {pattern}: no such file; give tar files with images, for example 'shards/*.tar'")
    training: list[Member] = []
    held_out: list[Member] = []
    for path in paths:
        try:
            with tarfile.open(path) as tar:
                for info in tar:
                    if info.isfile() and info.name.lower().endswith(SUFFIXES):
                        part = held_out if hash_fraction(stable_hash(info.name)) < HELD_OUT_SHARE else training
                        part.append(Member(path, info.name, info.offset_data, info.size))
        except tarfile.TarError as error:
            raise UserError(f"--images: {path} is not a readable tar file: {error}") from error
    if not training:
        raise UserError(f"--images {pattern}: the tar files hold no images ({', '.join(SUFFIXES)})")
    return training, held_out


def training_view(member: Member, window: int, seed: str) -> np.ndarray | None:
    """A random window of a Listing 1 view at 256 px, uint8 [window, window, 3]; None for a damaged image."""
    try:
        rgb_HWC = pixels.decode_rgb(member.read())
    except pixels.ImageError:
        return None
    integers = pixels.seeded_randint(seed)
    box, flip = pixels.dvae_crop(rgb_HWC.shape[1], rgb_HWC.shape[0], 256, integers)
    view = pixels.apply_crop(rgb_HWC, box, 256)
    top, left = (integers(0, 256 - window + 1) for _ in range(2))
    view = view[top : top + window, left : left + window]
    return view[:, ::-1] if flip else view


def centre_view(member: Member) -> np.ndarray | None:
    """The centre square of a held-out image at 256 px, uint8 [256, 256, 3]; None for a damaged image."""
    try:
        rgb_HWC = pixels.decode_rgb(member.read())
    except pixels.ImageError:
        return None
    return pixels.apply_crop(rgb_HWC, pixels.centre_crop(rgb_HWC.shape[1], rgb_HWC.shape[0], 256), 256)


class BatchPlan(NamedTuple):
    """The settings that determine the batches of a run."""

    batch_size: int  # over all ranks
    window: int  # px, the side of the crop from a view
    seed: int
    steps: int


def batches(
    members: list[Member], plan: BatchPlan, first_step: int, rank: int = 0, ranks: int = 1
) -> Generator[torch.Tensor, None, None]:
    """Yields one rank's share of each batch from `first_step` on, float32 [B / ranks, 3, window, window] in 0..1,
    decoded in threads a few steps ahead.

    The next readable image replaces a damaged one. Raises UserError if nearly all images are damaged.
    """
    share = plan.batch_size // ranks

    def batch(step: int) -> torch.Tensor:
        views: list[np.ndarray] = []
        position = step * plan.batch_size + rank * share
        while len(views) < share:
            epoch, index = divmod(position, len(members))
            view = training_view(members[_shuffled(epoch, index)], plan.window, f"{plan.seed}/{position}")
            if view is not None:
                views.append(view)
            position += 1
            if position > (step + 100) * plan.batch_size:
                raise UserError("--images: 99 of 100 images could not be decoded; check the tar files")
        return pixels.to_tensor(np.stack(views))

    def _shuffled(epoch: int, index: int) -> int:
        # An affine permutation, which any step can compute without those before it.
        multiplier, shift = 2 * int(_hash(epoch, "m") % len(members)) + 1, _hash(epoch, "s") % len(members)
        while math.gcd(multiplier, len(members)) != 1:
            multiplier += 2
        return (index * multiplier + shift) % len(members)

    def _hash(epoch: int, name: str) -> int:
        return stable_hash(f"{plan.seed}/{epoch}/{name}") >> 16

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(batch, step) for step in range(first_step, min(first_step + 4, plan.steps))]
        for step in range(first_step, plan.steps):
            if step + len(ahead) < plan.steps:
                ahead.append(pool.submit(batch, step + len(ahead)))
            yield ahead.pop(0).result()
