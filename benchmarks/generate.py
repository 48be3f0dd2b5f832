"""Seconds an image, beside dalle-pytorch's DALLE.generate_images of the same size if it is installed.

    python -m benchmarks.generate [--whole] [--passes N] [--threads N] [--size NAME ...]

An image has 1,024 codes. The peer draws without a cache, its own default: each code costs a pass over all that is
there. By default it is measured by N such passes, at lengths spread evenly over an image, and their mean is taken
1,024 times; `--whole` draws a whole image with it (some six minutes). On a GPU the script measures ours alone.
"""

from __future__ import annotations

import argparse
import os
import time

import torch

from benchmarks.train import CONFIGS, VOCABULARIES, make_peer
from models.device import AUTO, device_of
from models.sampling.sampler import BATCH_SIZE, ImageRequest, sample_codes
from models.text_table import table
from models.transformer.model import SIZES, Transformer, TransformerConfig

PROMPT = [1, 2, 3]


def ours(config: TransformerConfig, images: int, device: str) -> float:
    """Seconds for so many images, at most a group: it is always computed whole."""
    model = Transformer(config).eval().to(device)
    requests = [ImageRequest(PROMPT, seed) for seed in range(images)]
    started = time.perf_counter()
    sample_codes(model, requests).cpu()
    return time.perf_counter() - started


def peers(config: TransformerConfig, passes: int, whole: bool) -> float:
    """Seconds for one image of 1,024 codes."""
    model = make_peer(config).eval()
    text_1T = torch.zeros(1, config.text_length, dtype=torch.int64)
    text_1T[0, : len(PROMPT)] = torch.tensor(PROMPT)
    with torch.inference_mode():
        if whole:
            started = time.perf_counter()
            model.generate_images(text_1T)
            return time.perf_counter() - started
        codes_1N = torch.zeros(1, config.codes, dtype=torch.int64)
        times_s = []
        for i in range(passes + 1):  # the first one warms up
            drawn = max(1, config.codes * i // passes - 1)
            started = time.perf_counter()
            model.forward_with_cond_scale(text_1T, codes_1N[:, :drawn], cond_scale=1.0, cache=None)
            times_s.append(time.perf_counter() - started)
        return sum(times_s[1:]) / passes * config.codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--passes", type=int, default=16, metavar="N")
    parser.add_argument("--whole", action="store_true", help="draw one whole image with the peer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--size", action="append", choices=SIZES, help="instead of the small ones (repeatable)")
    args = parser.parse_args()
    device = device_of(AUTO)
    configs = {name: TransformerConfig.named(name, *VOCABULARIES) for name in args.size} if args.size else CONFIGS
    rows, missing = [], ""
    for name, config in configs.items():
        alone_s, group_s = float("inf"), float("inf")
        for threads in sorted({1, args.threads}):  # small products are quicker on one
            torch.set_num_threads(threads)
            alone_s = min(alone_s, ours(config, 1, device))
            group_s = min(group_s, ours(config, BATCH_SIZE, device))
        print(f"{name}: {alone_s:.2f} s alone, {group_s / BATCH_SIZE:.2f} s of {BATCH_SIZE} together", flush=True)
        peer_s = None
        torch.set_num_threads(args.threads)
        try:
            peer_s = peers(config, args.passes, args.whole) if device == "cpu" else None
        except ImportError as error:
            missing = f"dalle-pytorch is not installed ({error}); beside it, run: pip install dalle-pytorch"
        ratios = [f"{peer_s / alone_s:.0f} x", f"{peer_s / (group_s / BATCH_SIZE):.0f} x"] if peer_s else ["", ""]
        rows.append((name, round(alone_s, 2), round(group_s / BATCH_SIZE, 2), round(peer_s) if peer_s else "", *ratios))
    print(
        table(["size", "s, alone", f"s, of {BATCH_SIZE} together", "dalle-pytorch, s", "ratio alone", "together"], rows)
    )
    if missing:
        print(missing)


if __name__ == "__main__":
    main()
