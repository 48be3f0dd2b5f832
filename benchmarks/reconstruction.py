"""How well an image tokenizer brings back pictures it was not trained on: PSNR, vocabulary used, perplexity.

    python -m benchmarks.reconstruction 'pictures/*.tar' [--tokenizer FILE] [--prefix NAME] [--pictures N]

Of the tar files only the 5 % that `pairmill train-dvae` holds out count (by hash of the member's name), centre square.
Names decide: a picture that was trained on under another name is not held out. `--prefix` narrows the names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from models import pixels
from models.dvae import load_dvae
from models.image_tokenizers import BUNDLED
from models.train_dvae import centre_view, list_pictures, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", metavar="PATTERN")
    parser.add_argument("--tokenizer", type=Path, default=BUNDLED, metavar="FILE")
    parser.add_argument("--prefix", action="append", metavar="NAME", help="repeatable; default: all names")
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="at most (default %(default)s)")
    args = parser.parse_args()
    _, held_out = list_pictures(args.images)
    prefixes = tuple(args.prefix or [""])
    chosen = [member for member in held_out if member.name.startswith(prefixes)][: args.pictures]
    views = [view for view in map(centre_view, chosen) if view is not None]
    found = measure(load_dvae(args.tokenizer), pixels.to_tensor(np.stack(views)))
    print(f"{len(views)} pictures held out: " + ", ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
