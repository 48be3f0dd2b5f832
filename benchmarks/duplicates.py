"""Look-alikes: how many changed copies are found, how many different images are joined.

    python -m benchmarks.duplicates 'DIR/*.tar' [--pictures N] [--seed S]

Each of N images (at least 64 px on the shorter side, ratio from 1/2 to 2, as the pipeline keeps them) is resized,
recompressed, cropped by up to 5 % of each side, re-toned (brightness, contrast, gamma, saturation), and all of these at
once; the copy counts as found if keys bring the two together and the comparison joins them. Different images: every
one of the set against all others, through the same keys. A set may hold real look-alikes (one image in several
sizes, an emoji in several skins); they count as joined here. Beside it: the 64-bit perceptual hash of the imagehash
package, at the distances that are in use."""

from __future__ import annotations

import argparse
import io
import math
import random
import tarfile
import time
from collections.abc import Callable, Sequence

import cv2
import imagehash
import numpy as np
from PIL import Image

from models import pixels
from models.text_table import table
from pipeline.dataset import hash_bands, image_signature
from pipeline.dataset.exclusion_list import files_of
from pipeline.images.validate import ImageConfig, ImageRejected, decode
from pipeline.sources.paths import expand

Change = Callable[[np.ndarray, random.Random], np.ndarray]


def resize(rgb: np.ndarray, draw: random.Random) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = max(draw.uniform(0.4, 1.5), 64 / min(height, width))
    method = draw.choice([cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LINEAR])
    return cv2.resize(rgb, (round(width * scale), round(height * scale)), interpolation=method)


def recompress(rgb: np.ndarray, draw: random.Random) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, draw.choice(["JPEG", "WEBP"]), quality=draw.randint(30, 85))
    return pixels.decode_rgb(file.getvalue())


def crop(rgb: np.ndarray, draw: random.Random) -> np.ndarray:
    height, width = rgb.shape[:2]
    top, bottom = (round(height * draw.uniform(0, 0.05)) for _ in range(2))
    left, right = (round(width * draw.uniform(0, 0.05)) for _ in range(2))
    return rgb[top : height - bottom, left : width - right]


def retone(rgb: np.ndarray, draw: random.Random) -> np.ndarray:
    tones = (rgb / 255) ** draw.uniform(0.75, 1.33)
    tones = (tones - 0.5) * draw.uniform(0.8, 1.2) + 0.5 + draw.uniform(-0.08, 0.08)
    grey = tones.mean(2, keepdims=True)
    return (np.clip(grey + (tones - grey) * draw.uniform(0.6, 1.4), 0, 1) * 255).round().astype(np.uint8)


CHANGES: dict[str, tuple[Change, ...]] = {
    "resized": (resize,),
    "recompressed": (recompress,),
    "cropped": (crop,),
    "re-toned": (retone,),
    "all four": (crop, retone, resize, recompress),
}


def read(pattern: str, count: int, seed: int) -> dict[str, np.ndarray]:
    """A random part of the images, at most 512 px."""
    names = []
    for path in expand(pattern):
        with tarfile.open(path) as tar:
            names += [f"{path.rsplit('/', 1)[-1]}/{member.name}" for member in tar if member.isfile()]
    wanted, found = set(random.Random(seed).sample(sorted(names), min(count, len(names)))), {}
    for path in expand(pattern):
        for name, data in files_of(path):
            if name in wanted:
                try:
                    found[name] = decode(data, ImageConfig())
                except ImageRejected:
                    continue
    return found


def seen(rgb: np.ndarray) -> bytes:
    return image_signature.compute_signature(np.ascontiguousarray(rgb))


def candidates_among(signatures: Sequence[bytes]) -> list[list[int]]:
    """Pairs of positions that keys bring together."""
    images = np.arange(len(signatures), dtype=np.uint64)
    entries = hash_bands.band_entries(signatures, images, np.zeros(len(signatures), np.uint8))
    return hash_bands.candidates_of(entries, True)[0].tolist()


def is_near(one: bytes, other: bytes) -> bool:
    return image_signature.is_near_duplicate(*map(image_signature.unpack_signature, (one, other)))


def phash(rgb: np.ndarray) -> np.ndarray:
    return imagehash.phash(Image.fromarray(rgb)).hash.ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pattern", help="tar files of images")
    parser.add_argument("--pictures", type=int, default=3000, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    images = read(args.pattern, args.pictures, args.seed)
    print(f"{len(images):,} images")
    started = time.process_time()
    whole = {name: seen(rgb) for name, rgb in images.items()}
    signature_ms = (time.process_time() - started) / len(images) * 1e3
    hashes = {name: phash(rgb) for name, rgb in images.items()}
    distances = (6, 8, 10, 12)
    rows = []
    for change, steps in CHANGES.items():
        by_key = found = 0
        near = np.zeros(len(distances), int)
        for name, rgb in images.items():
            draw, copy = random.Random(f"{args.seed} {change} {name}"), rgb
            for step in steps:
                copy = step(copy, draw)
            copy = np.ascontiguousarray(copy)
            other = seen(copy)
            together = bool(candidates_among([whole[name], other]))
            by_key += together
            found += together and is_near(whole[name], other)
            near += (hashes[name] != phash(copy)).sum() <= np.array(distances)
        rows.append((change, *(round(100 * number / len(images), 2) for number in (found, by_key, *near))))
    print(table(["changed copies", "found %", "met by key %", *(f"phash <= {each} %" for each in distances)], rows))

    names, signatures = list(whole), list(whole.values())
    candidates = candidates_among(signatures)
    started = time.process_time()
    joined = [(names[one], names[other]) for one, other in candidates if is_near(signatures[one], signatures[other])]
    compare_ms = (time.process_time() - started) / max(1, len(candidates)) * 1e3
    matrix = np.array(list(hashes.values()), np.float32)
    apart = matrix.sum(1)[:, None] + matrix.sum(1)[None] - 2 * matrix @ matrix.T
    np.fill_diagonal(apart, math.inf)
    pairs, total = math.comb(len(images), 2), len(images)
    rows = [
        (
            "pairmill",
            len(joined),
            100 * len(joined) / pairs,
            100 * len({name for pair in joined for name in pair}) / total,
        )
    ]
    for distance in distances:
        close = apart <= distance
        rows.append(
            (
                f"phash <= {distance}",
                int(close.sum()) // 2,
                100 * close.sum() / 2 / pairs,
                100 * close.any(1).sum() / total,
            )
        )
    print()
    print(
        table(
            ["different images", "pairs joined", "of all pairs %", "of the images %"],
            [(name, number, round(share, 5), round(part, 2)) for name, number, share, part in rows],
        )
    )
    print(
        f"\n{signature_ms:.2f} ms a signature, {len(candidates) / total:.1f} candidates an image, "
        f"{compare_ms:.2f} ms a comparison, one core"
    )
    for names_joined in joined:
        print(f"  joined: {' = '.join(names_joined)}")


if __name__ == "__main__":
    main()
