"""Samples images for held-out captions and counts the satisfied ones: `python -m sample.scenes.score`.

Each caption gets one image, and the judge decides. A caption is satisfied if the image shows all its objects and no
others, each of its size, colour and shape, in the relations that it names. `--output DIR` receives `scores.jsonl`, with
what was found in each image, and `grid.png`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError, report_errors
from models.files import write_atomically
from models.image_files import image_grid, png
from models.pixels import seeded_randint
from models.sampling.checkpoint import ImageGenerator, add_model_arguments, generator_from_args
from models.sampling.generate import add_sampling_arguments, sampling_options
from models.sampling.sampler import ImageRequest, SamplingConfig, image_seed, sample_codes
from sample.scenes.captions import HELD_OUT_OBJECTS, Caption, is_held_out, random_caption
from sample.scenes.judge import find_objects, satisfies


def held_out_captions(count: int, seed: int) -> list[Caption]:
    """The first `count` held-out captions of a seed, all different: the held-out objects alone, then as many captions
    of two objects as of three. Each has a held-out object or names a held-out fact."""
    found = dict.fromkeys(Caption((thing,)) for thing in sorted(HELD_OUT_OBJECTS))
    integers = seeded_randint(f"score/{seed}")
    while len(found) < count:
        caption = random_caption(2 + len(found) % 2, integers)
        if held_out_in(caption):
            found[caption] = None
    return list(found)[:count]


def held_out_in(caption: Caption) -> str:
    """What of a caption is held out: "object", "fact" or "both"; "" for a caption that training may see."""
    objects, facts = bool(HELD_OUT_OBJECTS & {*caption.objects}), any(map(is_held_out, caption.facts))
    return {(True, True): "both", (True, False): "object", (False, True): "fact"}.get((objects, facts), "")


def sample_images(
    generator: ImageGenerator, captions: Sequence[Caption], sampling: SamplingConfig, seed: int
) -> Iterator[np.ndarray]:
    """Samples one image for each caption, uint8 [H, W, 3]."""
    requests = [
        ImageRequest(generator.text_tokenizer.encode(str(caption)), image_seed(seed, index), sampling)
        for index, caption in enumerate(captions)
    ]
    return map(generator.image_tokenizer.decode, sample_codes(generator.model, requests).cpu().numpy())


def table(captions: Sequence[Caption], satisfied: Sequence[bool]) -> str:
    """The numbers of satisfied captions and of all: by number of objects, by what is held out, and together."""
    total, good = Counter[str](), Counter[str]()
    for caption, is_satisfied in zip(captions, satisfied, strict=True):
        for group in (f"objects: {len(caption.objects)}", f"held out: {held_out_in(caption)}", "satisfied"):
            total[group] += 1
            good[group] += is_satisfied
    lines = (
        f"{name:<18}{good[name]:>5} of {total[name]:>5}  {good[name] / total[name]:6.1%}" for name in sorted(total)
    )
    return "\n".join(lines)


def write_results(output: Path, captions: Sequence[Caption], images: Sequence[np.ndarray]) -> None:
    """Writes a line for each caption, and all images."""
    output.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_result(*pair)) for pair in zip(captions, images, strict=True)]
    write_atomically(output / "scores.jsonl", "\n".join([*lines, ""]))
    write_atomically(output / "grid.png", png(image_grid(np.stack(images)), {}))


def _result(caption: Caption, image_HWC: np.ndarray) -> dict[str, Any]:
    found = [str(region.object) if region.object else None for region in find_objects(image_HWC)]
    return {"caption": str(caption), "satisfied": satisfies(image_HWC, caption), "found": found}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sample.scenes.score", description=__doc__.split("\n")[0])
    parser.add_argument("--captions", type=int, default=300, metavar="N", help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of captions and images (default %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the images and what is found in them")
    add_sampling_arguments(parser)
    add_model_arguments(parser)
    args = parser.parse_args(arguments)
    if args.captions < 1:
        raise UserError(f"--captions {args.captions}: give 1 or more")
    generator = generator_from_args(args)
    captions = held_out_captions(args.captions, args.seed)
    sampling = generator.sampling._replace(**sampling_options(args))
    images = list(sample_images(generator, captions, sampling, args.seed))
    if args.output:
        write_results(args.output, captions, images)
    print(table(captions, [satisfies(*pair) for pair in zip(images, captions, strict=True)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(report_errors(main))
