"""Tells how well a checkpoint draws from memory: `python -m sample.clipart.recall --dataset DIR --checkpoint DIR`.

One image of each caption is sampled with seed 1, and its codes are compared with those of the training images that have
this caption: an image is recalled when at least 90 % of the codes are those of one of them. The captions are drawn from
the training split with a seed, without the prompts in prompts.txt, so that sampling settings can be chosen by them and
the prompts stay a test.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from models.data.format import read_manifest, read_token_shard
from models.sampling.checkpoint import ImageGenerator, load_generator
from models.sampling.sampler import ImageRequest, SamplingConfig, image_seed, sample_codes

PROMPTS = Path(__file__).with_name("prompts.txt")
RECALLED = 0.9  # share of an image's codes


def training_codes(dataset: Path) -> dict[str, list[np.ndarray]]:
    """The codes [N] of the images of each caption in the training split. Raises UserError for a damaged dataset."""
    manifest = read_manifest(dataset)
    found = defaultdict(list)
    for shard in manifest.shards:
        if shard.split == "train":
            for sample in read_token_shard(dataset / shard.path, manifest.image_tokenizer.code_type):
                found[sample.caption].append(sample.codes[0])
    return found


def agreement(
    generator: ImageGenerator, sampling: SamplingConfig, known: dict[str, list[np.ndarray]], captions: list[str]
) -> np.ndarray:
    """The largest share of equal codes between a caption's sampled image and one of its training images: [captions]."""
    encode = generator.text_tokenizer.encode
    requests = [ImageRequest(encode(caption), image_seed(1, 0), sampling) for caption in captions]
    sampled = sample_codes(generator.model, requests).numpy()
    return np.array(
        [
            max((codes == image).mean() for image in known[caption])
            for caption, codes in zip(captions, sampled, strict=True)
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sample.clipart.recall", description=__doc__.split(":")[0])
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="that the checkpoint was trained on")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--captions", type=int, default=60, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0], metavar="G", help="values to try")
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0], metavar="T", help="values to try")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    args = parser.parse_args(arguments)
    known = training_codes(args.dataset)
    captions = sorted(known.keys() - set(PROMPTS.read_text().splitlines()))
    random.Random(5).shuffle(captions)
    torch.set_num_threads(1)  # products of a small model end before a second thread wakes up
    generator = load_generator(args.checkpoint)
    for guidance in args.guidance:
        for temperature in args.temperature:
            sampling = SamplingConfig(temperature, top_p=args.top_p, guidance=guidance)
            equal = agreement(generator, sampling, known, captions[: args.captions])
            print(
                f"guidance {guidance:g}, temperature {temperature:g}, top-p {args.top_p:g}: "
                f"{np.mean(equal >= RECALLED):.0%} of {len(equal)} captions recalled",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
