"""How well an image tokenizer brings images back."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np

from models import pixels
from models.errors import UserError
from models.evaluation.judges import ImageFeatures, Judges
from models.evaluation.similarity import WINDOW, psnr, ssim
from models.hashing import stable_hash
from models.progress import Progress, ProgressLine
from models.tokenizers.image import ImageTokenizer
from models.training.dvae_images import Member, list_images


def first_images(pattern: str, limit: int) -> list[Member]:
    """At most `limit` images of the tar files of a glob, by the hash of their names: those that `pairmill train-dvae`
    holds out come first. Raises UserError if there are none."""
    training, held_out = list_images(pattern)
    return sorted([*training, *held_out], key=lambda member: stable_hash(member.name))[:limit]


def compare_reconstructions(
    tokenizer: ImageTokenizer, members: list[Member], judges: Judges, line: ProgressLine
) -> dict[str, Any]:
    """Encodes and decodes the centre square of each image: means of PSNR (dB), SSIM and LPIPS, the Fréchet distances
    by each judge ("rfid", "clip_rfid"), and the codes in use with their perplexity. Damaged images are counted.

    Raises UserError if fewer than two images can be read, and for images too small for SSIM.
    """
    if tokenizer.info.image_size < WINDOW:
        raise UserError(f"images of {tokenizer.info.image_size} px: SSIM needs {WINDOW} or more")
    before, after = ImageFeatures(judges), ImageFeatures(judges)
    values: dict[str, list[float]] = collections.defaultdict(list)
    counts: collections.Counter[int] = collections.Counter()
    for image in _images(members, tokenizer.info.image_size, line):
        codes_N = tokenizer.encode(image)
        back = tokenizer.decode(codes_N)
        values["psnr"].append(psnr(image, back))
        values["ssim"].append(ssim(image, back))
        if judges.lpips:
            values["lpips"].append(judges.lpips.distance(image, back))
        counts.update(codes_N.tolist())
        before.add([image])
        after.add([back])
    images = len(values["psnr"])
    if images < 2:
        raise UserError(f"--images: {images} of {len(members)} images could be read; give at least 2")
    distances = {name.replace("fid", "rfid"): value for name, value in before.distances(after).items()}
    return {
        "images": images,
        "damaged": len(members) - images,
        **{name: float(np.mean(found)) for name, found in values.items()},
        **distances,
        "codes_used": len(counts),
        "perplexity": perplexity(np.array(list(counts.values()))),
    }


def perplexity(counts_C: np.ndarray) -> float:
    """The number of codes that, used equally often, would have the entropy of codes with these counts [C], all above
    0."""
    shares_C = counts_C / counts_C.sum()
    return float(np.exp(-(shares_C * np.log(shares_C)).sum()))


def _images(members: list[Member], size: int, line: ProgressLine) -> Iterator[np.ndarray]:
    """The centre square of each image that can be read, uint8 [size, size, 3]."""
    for done, member in enumerate(members, 1):
        try:
            rgb_HWC = pixels.decode_rgb(member.read())
        except pixels.ImageError:
            rgb_HWC = None
        if rgb_HWC is not None:
            height, width, _ = rgb_HWC.shape
            yield pixels.apply_crop(rgb_HWC, pixels.centre_crop(width, height, size), size)
        line.show(Progress(done, "images", len(members), "reconstruction"))
