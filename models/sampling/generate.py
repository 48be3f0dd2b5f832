"""Draws images from text: `pairmill generate --checkpoint DIR --prompt TEXT --count 4 --seed 0 --output DIR`.

Image i of a seed is the same whether it is sampled alone or among others: each image has a random generator of its
own, and all go through the model in batches of one fixed size. DIR receives 0000.png, 0001.png, ... with prompt, seed
and fingerprints in their text chunks, and grid.png with all of them. `--complete FILE` continues from the upper part of
an image; `--rank N` keeps the images that an image-text model scores best, as the paper does (section 2.6).

Shape letters: H W pixels, N codes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.command_line import CommandParser
from models.errors import UserError, report_errors
from models.files import make_folder, output_folder, write_atomically
from models.image_files import image_grid, png
from models.next_command import print_output
from models.pixels import ImageError, apply_crop, centre_crop, decode_rgb
from models.process_end import run_as_process
from models.progress import Progress, ProgressLine
from models.sampling.checkpoint import ImageGenerator, add_model_arguments, generator_from_args, model_options
from models.sampling.reranking import Ranking, load_ranker
from models.sampling.sampler import BATCH_SIZE, PAPER_SAMPLING, ImageRequest, SamplingConfig, image_seed, sample_steps

SAMPLING_DEFAULT = "default: the checkpoint's own, else"
MAX_COUNT = 1024  # images; the paper samples 512 a caption


@dataclasses.dataclass(frozen=True)
class GenerationRequest:
    """The images that one command or one HTTP request asks for."""

    prompt: str
    count: int
    seed: int
    sampling: SamplingConfig = PAPER_SAMPLING
    prefix_codes: Sequence[int] = ()  # fixed codes that every image starts with, in raster order


def image_requests(generator: ImageGenerator, request: GenerationRequest) -> list[ImageRequest]:
    """Makes one ImageRequest an image. Raises UserError for a prompt without text."""
    tokens = generator.text_tokenizer.encode(request.prompt) if request.prompt.strip() else []
    if not tokens:
        raise UserError("--prompt is empty: describe the image in a few words")
    return [
        ImageRequest(tokens, image_seed(request.seed, index), request.sampling, request.prefix_codes)
        for index in range(request.count)
    ]


def png_metadata(generator: ImageGenerator, request: GenerationRequest) -> dict[str, str]:
    """The text chunks of every PNG of a request; with the image's `index` they suffice to sample it again."""
    return {
        "prompt": request.prompt,
        "seed": str(request.seed),
        "sampling": json.dumps(request.sampling._asdict()),
        "given_codes": str(len(request.prefix_codes)),
        "model": generator.fingerprint,
        "image_tokenizer": generator.image_tokenizer.info.fingerprint,
        "text_tokenizer": generator.text_tokenizer.info.fingerprint,
        "software": "pairmill",
    }


def generate(
    generator: ImageGenerator, request: GenerationRequest, output: Path, ranking: Ranking | None = None
) -> None:
    """Writes the request's images into `output`; with a ranking only the best, in that order."""
    metadata = png_metadata(generator, request)
    images: list[np.ndarray] = []
    requests = image_requests(generator, request)
    make_folder(output)
    with ProgressLine("generate") as line:
        for codes_N in _sample(generator, requests, line):
            images.append(generator.image_tokenizer.decode(codes_N))
            if not ranking:
                index = len(images) - 1
                write_atomically(output / f"{index:04d}.png", png(images[-1], {**metadata, "index": str(index)}))
    if ranking:
        scores = ranking.ranker.scores(request.prompt, images)
        best = sorted(range(len(images)), key=lambda index: -scores[index])[: ranking.keep]
        for rank, index in enumerate(best):
            score = {"index": str(index), "score": f"{scores[index]:.4f}"}
            write_atomically(output / f"{rank:04d}.png", png(images[index], {**metadata, **score}))
        images = [images[index] for index in best]
    write_atomically(output / "grid.png", png(image_grid(np.stack(images)), metadata))


def _sample(generator: ImageGenerator, requests: Sequence[ImageRequest], line: ProgressLine) -> Iterator[np.ndarray]:
    """Yields the codes of each image, int64 [N]. Shows the position in the batch, and the images done."""
    positions = generator.model.config.codes
    for first in range(0, len(requests), BATCH_SIZE):
        batch = requests[first : first + BATCH_SIZE]
        for codes_BN in sample_steps(generator.model, batch):
            drawn = codes_BN.shape[1]
            share = (first + len(batch) * drawn / positions) / len(requests)
            detail = f"position {drawn:,}/{positions:,} of images {first + 1} to {first + len(batch)}"
            line.show(Progress(first, "images", len(requests), share=share, detail=detail))
        yield from codes_BN.cpu().numpy()
        line.show(Progress(first + len(batch), "images", len(requests)))


def first_rows(generator: ImageGenerator, path: Path, rows: int) -> list[int]:
    """Encodes an image file's centre square and returns its first `rows` rows of codes.

    Raises UserError for codes without rows, a number of rows outside those of the grid and for a file that is not a
    readable image.
    """
    info = generator.image_tokenizer.info
    if info.shape.grid is None:
        raise UserError(f"--complete needs codes in rows; this model's image is {info.shape} codes: leave it out")
    if not 1 <= rows < info.shape.rows:
        raise UserError(
            f"--rows {rows}: give 1 to {info.shape.rows - 1} of the image's {info.shape.rows} rows of codes"
        )
    try:
        rgb_HWC = decode_rgb(path.read_bytes())
    except OSError as error:
        raise UserError(f"--complete {path}: {error.strerror}") from None
    except ImageError as error:
        raise UserError(f"--complete {path} is not a readable image: {error}") from None
    height, width, _ = rgb_HWC.shape
    view_HWC = apply_crop(rgb_HWC, centre_crop(width, height, info.image_size), info.image_size)
    return generator.image_tokenizer.encode(view_HWC)[: rows * info.shape.columns].tolist()


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `sampling_options` reads."""
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help=f"number that divides the logits: below 1 images are safer, above 1 more varied ({SAMPLING_DEFAULT} 1)",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help=f"sample each code among the K most likely ones; 0 samples among all ({SAMPLING_DEFAULT} 0)",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help=f"sample each code among the most likely that hold this share of the probability ({SAMPLING_DEFAULT} 1)",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        metavar="G",
        help="follow the caption more closely, the more G is above 1, at twice the time; for a model that was "
        "trained with --blank-captions "
        f"({SAMPLING_DEFAULT} 1)",
    )


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of SamplingConfig that the command line names. Raises UserError for a value outside its range."""
    named = {name: getattr(args, name) for name in SamplingConfig._fields if getattr(args, name) is not None}
    if not PAPER_SAMPLING._replace(**named).is_valid:
        raise UserError(
            "--temperature is above 0, --top-k 0 or more, --top-p above 0 and at most 1, --guidance 0 or more"
        )
    return named


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser("generate", __doc__.split("\n")[0])
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="text that describes the images")
    parser.add_argument(
        "--count", type=int, default=4, metavar="N", help=f"number of images, 1 to {MAX_COUNT} (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="seed of the images: the same one gives the same images (default: %(default)s)",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the PNG files")
    add_sampling_arguments(parser)
    parser.add_argument(
        "--complete", type=Path, metavar="FILE", help="keep the upper part of this image and sample the remainder"
    )
    parser.add_argument(
        "--rows", type=int, metavar="R", help="rows of codes that --complete keeps (default: half of them)"
    )
    parser.add_argument(
        "--rank",
        type=int,
        metavar="N",
        help="keep only the N images that fit the prompt best, by the model of --rank-model",
    )
    parser.add_argument(
        "--rank-model", type=Path, metavar="DIR", help="folder of the open_clip model that ranks images for --rank"
    )
    add_model_arguments(parser)
    args = parser.parse_args(arguments)
    if not 1 <= args.count <= MAX_COUNT:
        raise UserError(f"--count {args.count}: give 1 to {MAX_COUNT}")
    named_sampling = sampling_options(args)
    if (args.rank is None) != (args.rank_model is None) or (args.rank is not None and not 1 <= args.rank <= args.count):
        raise UserError("--rank N, from 1 to --count, goes with --rank-model DIR, a folder with an open_clip model")
    if args.rows is not None and not args.complete:
        raise UserError("--rows goes with --complete FILE")
    generator = generator_from_args(args)
    sampling = generator.sampling._replace(**named_sampling)
    if sampling.guidance != 1 and not generator.supports_guidance:
        print(
            f"generate: {args.checkpoint} was trained without --blank-captions: --guidance has little effect",
            flush=True,
        )
    ranking = Ranking(load_ranker(args.rank_model), args.rank) if args.rank else None
    rows = generator.image_tokenizer.info.shape.rows // 2 if args.rows is None else args.rows
    prefix_codes = first_rows(generator, args.complete, rows) if args.complete else []
    request = GenerationRequest(
        prompt=args.prompt, count=args.count, seed=args.seed, sampling=sampling, prefix_codes=prefix_codes
    )
    with output_folder(args.output):
        generate(generator, request, args.output, ranking)
    print_output("generate", args.output, ["serve", *model_options(args)])
    return 0


if __name__ == "__main__":
    run_as_process(lambda: report_errors(main))
