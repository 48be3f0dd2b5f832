"""Draws pictures from text: `pairmill generate --checkpoint DIR --prompt TEXT --count 4 --seed 0 --output DIR`.

Picture i of a seed is the same drawn alone or among others: its random numbers are its own, and pictures go through
the model in groups of one fixed size. DIR receives 0000.png, 0001.png, ... with prompt, seed and fingerprints in their
text chunks, and grid.png with all of them. `--complete FILE` goes on from the upper part of a picture; `--rank N` keeps
the best by an image-text model, as the paper does (section 2.6).

Shape letters: B pictures drawn together, T text positions, N codes, V codes in the vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.errors import UserError
from models.files import write_atomically
from models.image_files import image_grid, png
from models.pixels import CropBox, ImageError, apply_crop, decode_rgb
from models.sampling.checkpoint import ImageGenerator, add_model_arguments, generator_from_args
from models.sampling.reranking import Ranking, load_ranker
from models.sampling.sampler import BATCH_SIZE, PAPER_SAMPLING, ImageRequest, SamplingConfig, image_seed, sample_codes

MAX_COUNT = 1024  # the paper draws 512


class GenerationRequest(NamedTuple):
    """What one command, or one request, wants drawn."""

    prompt: str
    count: int
    seed: int
    sampling: SamplingConfig = PAPER_SAMPLING
    given: Sequence[int] = ()  # codes that every image begins with


def image_requests(artist: ImageGenerator, task: GenerationRequest) -> list[ImageRequest]:
    """One for each picture. Raises UserError for a prompt without text."""
    tokens = artist.text_tokenizer.encode(task.prompt) if task.prompt.strip() else []
    if not tokens:
        raise UserError("--prompt is empty: describe the picture in a few words")
    return [
        ImageRequest(tokens, image_seed(task.seed, index), task.sampling, task.given) for index in range(task.count)
    ]


def png_metadata(artist: ImageGenerator, task: GenerationRequest) -> dict[str, str]:
    """What a picture's file says of its making; with its `index` that is enough to draw it again."""
    return {
        "prompt": task.prompt,
        "seed": str(task.seed),
        "sampling": json.dumps(task.sampling._asdict()),
        "given_codes": str(len(task.given)),
        "model": artist.fingerprint,
        "image_tokenizer": artist.image_tokenizer.info.fingerprint,
        "text_tokenizer": artist.text_tokenizer.info.fingerprint,
        "software": "pairmill",
    }


def generate(artist: ImageGenerator, task: GenerationRequest, output: Path, ranking: Ranking | None = None) -> None:
    """Draws the task's pictures into `output`; with a ranking only the best of them, best first."""
    texts, started, images = png_metadata(artist, task), time.monotonic(), []
    todo = image_requests(artist, task)
    output.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(todo), BATCH_SIZE):
        for codes_N in sample_codes(artist.model, todo[first : first + BATCH_SIZE]).cpu().numpy():
            images.append(artist.image_tokenizer.decode(codes_N))
            if not ranking:
                index = len(images) - 1
                write_atomically(output / f"{index:04d}.png", png(images[-1], {**texts, "index": str(index)}))
        print(f"generate: {len(images)} of {len(todo)} pictures, {time.monotonic() - started:.1f} s", flush=True)
    if ranking:
        scores = ranking.ranker.scores(task.prompt, images)
        best = sorted(range(len(images)), key=lambda index: -scores[index])[: ranking.keep]
        for place, index in enumerate(best):
            score = {"index": str(index), "score": f"{scores[index]:.4f}"}
            write_atomically(output / f"{place:04d}.png", png(images[index], {**texts, **score}))
        images = [images[index] for index in best]
    write_atomically(output / "grid.png", png(image_grid(np.stack(images)), texts))


def first_rows(artist: ImageGenerator, path: Path, rows: int) -> list[int]:
    """The codes of a picture's upper part: `rows` rows of them. Raises UserError for a file that is no picture."""
    info = artist.image_tokenizer.info
    if not 1 <= rows < info.grid:
        raise UserError(f"--rows {rows}: give 1 to {info.grid - 1} of the picture's {info.grid} rows of codes")
    try:
        rgb_HWC = decode_rgb(path.read_bytes())
    except OSError as error:
        raise UserError(f"--complete {path}: {error.strerror}") from None
    except ImageError as error:
        raise UserError(f"--complete {path} is no picture that can be read: {error}") from None
    height, width, _ = rgb_HWC.shape
    side = min(height, width)
    middle = CropBox((width - side) // 2, (height - side) // 2, side, info.image_size, 0, 0)
    return artist.image_tokenizer.encode(apply_crop(rgb_HWC, middle, info.image_size))[: rows * info.grid].tolist()


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--temperature", type=float, default=1.0, help="lower is safer, higher bolder (default 1)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest codes; 0: all")
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw among the likeliest codes that have this share of the probability (default 1)",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        metavar="G",
        help="above 1: follow the caption more closely, at twice the time; for a model that was "
        "trained with --blank-captions (default 1)",
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill generate", description=__doc__.split("\n")[0])
    parser.add_argument("--prompt", required=True, metavar="TEXT")
    parser.add_argument("--count", type=int, default=4, metavar="N", help=f"1 to {MAX_COUNT} (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default %(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    add_sampling_arguments(parser)
    parser.add_argument("--complete", type=Path, metavar="FILE", help="go on from the upper part of this picture")
    parser.add_argument("--rows", type=int, metavar="R", help="rows of codes to keep of it (default: half)")
    parser.add_argument("--rank", type=int, metavar="N", help="keep the N pictures that fit the prompt best")
    parser.add_argument("--rank-model", type=Path, metavar="DIR", help="an open_clip model's folder, for --rank")
    add_model_arguments(parser)
    args = parser.parse_args(arguments)
    if not 1 <= args.count <= MAX_COUNT:
        raise UserError(f"--count {args.count}: give 1 to {MAX_COUNT}")
    if not (
        0 < args.temperature < math.inf and args.top_k >= 0 and 0 < args.top_p <= 1 and 0 <= args.guidance < math.inf
    ):
        raise UserError(
            "--temperature is above 0, --top-k 0 or more, --top-p above 0 and at most 1, --guidance 0 or more"
        )
    if (args.rank is None) != (args.rank_model is None) or (args.rank is not None and not 1 <= args.rank <= args.count):
        raise UserError("--rank N, from 1 to --count, goes with --rank-model DIR, a folder with an open_clip model")
    if args.rows is not None and not args.complete:
        raise UserError("--rows goes with --complete FILE")
    artist = generator_from_args(args)
    if args.guidance != 1 and not artist.knows_blank:
        print(f"generate: {args.checkpoint} was trained without --blank-captions: --guidance says little", flush=True)
    ranking = Ranking(load_ranker(args.rank_model), args.rank) if args.rank else None
    rows = artist.image_tokenizer.info.grid // 2 if args.rows is None else args.rows
    given = first_rows(artist, args.complete, rows) if args.complete else ()
    sampling = SamplingConfig(args.temperature, args.top_k, args.top_p, args.guidance)
    try:
        generate(artist, GenerationRequest(args.prompt, args.count, args.seed, sampling, given), args.output, ranking)
    except OSError as error:
        raise UserError(f"--output {args.output}: {error.strerror}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
