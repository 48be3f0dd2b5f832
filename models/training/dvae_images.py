"""The pictures that the dVAE is trained and measured on: tar files, Listing 1's views of what is in them, batches."""

from __future__ import annotations

import concurrent.futures
import glob
import hashlib
import math
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from models import pixels
from models.errors import UserError

SUFFIXES = tuple(f".{suffix}" for suffix in sorted(pixels.IMAGE_SUFFIXES))
HELD_OUT_SHARE = 0.05


class Member(NamedTuple):
    """Where a picture's bytes lie inside a tar file."""

    path: str
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def list_images(pattern: str) -> tuple[list[Member], list[Member]]:
    """The pictures in the tar files of a glob, as (training, held out): 5 % by hash of the name are held out."""
    paths = sorted(glob.glob(pattern))
    if not paths:
        raise UserError(f"--images {pattern}: no such file; name tar files with pictures, for example 'shards/*.tar'")
    training, held_out = [], []
    for path in paths:
        try:
            with tarfile.open(path) as tar:
                for info in tar:
                    if info.isfile() and info.name.lower().endswith(SUFFIXES):
                        fraction = int(hashlib.sha256(info.name.encode()).hexdigest()[:8], 16) / 2**32
                        part = held_out if fraction < HELD_OUT_SHARE else training
                        part.append(Member(path, info.name, info.offset_data, info.size))
        except tarfile.TarError as error:
            raise UserError(f"--images: {path} is not a readable tar file: {error}") from error
    if not training:
        raise UserError(f"--images {pattern}: the tar files hold no pictures ({', '.join(SUFFIXES)})")
    return training, held_out


def training_view(member: Member, window: int, seed: str) -> np.ndarray | None:
    """One Listing 1 view at 256 px, and a random window of it: uint8 [window, window, 3]. None for a broken picture."""
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
    """The centre square at 256 px, uint8 [256, 256, 3]: what held-out pictures are measured on."""
    try:
        rgb_HWC = pixels.decode_rgb(member.read())
    except pixels.ImageError:
        return None
    return pixels.apply_crop(rgb_HWC, pixels.centre_crop(rgb_HWC.shape[1], rgb_HWC.shape[0], 256), 256)


class BatchPlan(NamedTuple):
    """Which batches a run takes: they follow from these alone."""

    batch_size: int  # over all ranks
    window: int  # px, the side of what is cut out of a view
    seed: int
    steps: int


def batches(
    members: list[Member], plan: BatchPlan, first_step: int, rank: int = 0, ranks: int = 1
) -> Iterator[torch.Tensor]:
    """One rank's part of the batches, [B / ranks, 3, window, window], for steps first_step, first_step + 1, ...;
    decoded in threads, a few steps ahead.

    A broken picture's place in the batch is taken by the next readable one of the same epoch.
    """
    share = plan.batch_size // ranks

    def batch(step: int) -> torch.Tensor:
        views: list[np.ndarray] = []
        position = step * plan.batch_size + rank * share
        while len(views) < share:
            epoch, place = divmod(position, len(members))
            view = training_view(members[_shuffled(epoch, place)], plan.window, f"{plan.seed}/{position}")
            if view is not None:
                views.append(view)
            position += 1
            if position > (step + 100) * plan.batch_size:
                raise UserError("--images: 99 of 100 pictures could not be decoded; check the tar files")
        return pixels.to_tensor(np.stack(views))

    def _shuffled(epoch: int, place: int) -> int:
        # An affine permutation instead of a stored one: any step can be computed without those before it.
        multiplier, shift = 2 * int(_hash(epoch, "m") % len(members)) + 1, _hash(epoch, "s") % len(members)
        while math.gcd(multiplier, len(members)) != 1:
            multiplier += 2
        return (place * multiplier + shift) % len(members)

    def _hash(epoch: int, what: str) -> int:
        return int(hashlib.sha256(f"{plan.seed}/{epoch}/{what}".encode()).hexdigest()[:12], 16)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(batch, step) for step in range(first_step, min(first_step + 4, plan.steps))]
        for step in range(first_step, plan.steps):
            if step + len(ahead) < plan.steps:
                ahead.append(pool.submit(batch, step + len(ahead)))
            yield ahead.pop(0).result()
