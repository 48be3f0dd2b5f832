"""Measures a transformer on a dataset or an image tokenizer on images: `pairmill evaluate --dataset DIR`.

| given | measured |
|---|---|
| `--dataset` | the checkpoint's losses on a split, by source |
| also `--samples N` | images sampled for N captions: CLIP score, retrieval, CLIP-FID (`--model`), FID (`--inception`) |
| `--images` | the image tokenizer: PSNR, SSIM, LPIPS (`--lpips`), rFID (`--inception`, `--model`) |

Judges are the user's own files: a folder of a CLIP or SigLIP model, FID's network, a folder of LPIPS's two files. The
result is printed as tables, and `--output` receives it as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from models.command_line import CommandParser
from models.data.format import SPLITS
from models.device import available_processors, check_device, device_of
from models.errors import UserError, report_errors
from models.evaluation.judges import ContrastiveJudge, InceptionJudge, Judges
from models.evaluation.loss import split_losses
from models.evaluation.measured_pairs import MeasuredPairs
from models.evaluation.perceptual import load_lpips
from models.evaluation.reconstruction import compare_reconstructions, first_images
from models.evaluation.samples import Sampler, compare_samples
from models.evaluation.tables import report_tables
from models.files import check_file_place, write_atomically
from models.next_command import beside, print_next, print_output
from models.process_end import run_as_process
from models.progress import ProgressLine
from models.sampling.checkpoint import (
    add_model_arguments,
    find_checkpoint,
    generator_from_args,
    model_options,
    read_config,
)
from models.sampling.generate import add_sampling_arguments, sampling_options
from models.tokenizers.image import ComputeOptions, load_image_tokenizer, require_no_code

DEFAULT_LIMIT = 1000


def load_judges(args: argparse.Namespace, device: str) -> Judges:
    """The judges that the options name. Raises UserError for files of another kind."""
    return Judges(
        ContrastiveJudge(args.model, device) if args.model else None,
        InceptionJudge(args.inception, device) if args.inception else None,
        load_lpips(args.lpips).to(device) if args.lpips else None,
    )


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that the options ask for: "loss", "samples" and "reconstruction", as far as they do.

    Raises UserError for unusable input.
    """
    device = device_of(args.device)
    check_device(device)
    judges = load_judges(args, device)
    report: dict[str, Any] = {}
    with ProgressLine("evaluate") as line:
        if args.dataset:
            checkpoint = find_checkpoint(args.checkpoint)
            pairs = MeasuredPairs(args.dataset, args.split, args.limit, args.cache)
            of = {
                "checkpoint": args.checkpoint,
                "averaged": args.averaged,
                "dataset": args.dataset,
                "split": pairs.split,
            }
            losses = split_losses(checkpoint, pairs, line, args.batch_size, args.averaged, device)
            report["loss"] = of | losses
        if args.dataset and args.samples:
            report["samples"] = of | {"judges": judges.descriptions()}
            report["samples"] |= _samples(args, checkpoint, pairs._replace(limit=args.samples), judges, line)
        if args.images:
            report["reconstruction"] = {"judges": judges.descriptions(), **_reconstruction(args, device, judges, line)}
    return report


def _samples(
    args: argparse.Namespace, checkpoint: Path, pairs: MeasuredPairs, judges: Judges, line: ProgressLine
) -> dict[str, Any]:
    generator = generator_from_args(args)
    sampling = generator.sampling._replace(**sampling_options(args))
    return compare_samples(Sampler(checkpoint, generator, sampling, args.seed), pairs, judges, line)


def _reconstruction(args: argparse.Namespace, device: str, judges: Judges, line: ProgressLine) -> dict[str, Any]:
    tokenizer = load_image_tokenizer(_tokenizer_spec(args), ComputeOptions(device=device))
    found = compare_reconstructions(tokenizer, first_images(args.images, args.limit), judges, line)
    info = tokenizer.info
    return {"image_tokenizer": {"spec": info.spec, "fingerprint": info.fingerprint}, "image_set": args.images, **found}


def _tokenizer_spec(args: argparse.Namespace) -> str:
    """The SPEC that the options name, else that of the checkpoint."""
    if args.image_tokenizer:
        return args.image_tokenizer
    checkpoint = find_checkpoint(args.checkpoint)
    return require_no_code(read_config(checkpoint)["image_tokenizer"]["spec"], str(checkpoint))


# --- the command -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("evaluate", __doc__.split("\n")[0])
    add = parser.add_argument
    add("--dataset", metavar="DIR", help="measure the checkpoint on this dataset: folder or URL")
    add("--split", choices=SPLITS, default="val", help="split of --dataset to measure on (default: %(default)s)")
    add("--images", metavar="PATTERN", help="measure the image tokenizer on the images in these tar files")
    add(
        "--limit",
        type=int,
        default=DEFAULT_LIMIT,
        metavar="N",
        help="largest number of pairs or images to measure, chosen by a hash (default: %(default)s)",
    )
    add("--samples", type=int, metavar="N", help="sample an image for each of N captions of the split, and judge it")
    add("--seed", type=int, default=0, metavar="S", help="seed of the sampled images (default: %(default)s)")
    add(
        "--batch-size",
        type=int,
        default=8,
        metavar="B",
        help="pairs whose losses are computed at once (default: %(default)s)",
    )
    add("--cache", type=Path, metavar="DIR", help="local folder for the shards of a dataset that is a URL")
    add("--output", type=Path, metavar="FILE", help="JSON file to write all numbers to")
    judges = parser.add_argument_group("the judges")
    judges.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="folder of a CLIP or SigLIP model of open_clip or transformers, for CLIP score, retrieval and CLIP-FID",
    )
    judges.add_argument(
        "--inception",
        type=Path,
        metavar="FILE",
        help="weights of FID's network, such as pt_inception-2015-12-05-6726825d.pth, for FID and rFID",
    )
    judges.add_argument(
        "--lpips",
        type=Path,
        metavar="DIR",
        help="folder with torchvision's AlexNet or VGG16 and LPIPS's layers for it, for LPIPS of --images",
    )
    add_model_arguments(parser)
    add_sampling_arguments(parser)
    return parser


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for options that do not fit together, and numbers outside their ranges."""
    if not args.dataset and not args.images:
        raise UserError("give --dataset DIR to measure a checkpoint, --images PATTERN to measure an image tokenizer")
    if args.limit < 1 or args.batch_size < 1:
        raise UserError("--limit and --batch-size start at 1")
    if args.samples is not None and (args.samples < 2 or not args.dataset or not (args.model or args.inception)):
        raise UserError("--samples N, from 2, goes with --dataset and a judge: --model or --inception")
    if (args.model or args.inception) and not (args.samples or args.images):
        raise UserError("--model and --inception judge images: give --samples N or --images PATTERN")
    if args.lpips and not args.images:
        raise UserError("--lpips goes with --images PATTERN")
    sampling_options(args)
    if args.output:
        check_file_place("--output", args.output)


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    _check(args)
    torch.set_num_threads(args.threads or available_processors())
    try:
        report = evaluate(args)
    except torch.OutOfMemoryError as error:
        raise UserError(f"--batch-size {args.batch_size}: {str(error).splitlines()[0]}; give less") from None
    print(report_tables(report))
    if args.output:
        write_atomically(args.output, json.dumps(report, indent=1) + "\n")
        print_output("evaluate", args.output, _next_command(args))
    else:
        print_next(_next_command(args))
    return 0


def _next_command(args: argparse.Namespace) -> list[str]:
    """Images of the transformer that was measured, or a dataset of codes of the image tokenizer."""
    if args.dataset:
        images = beside(args.checkpoint, "images")
        return ["generate", *model_options(args), "--prompt", "a red cat", "--output", images]
    return ["encode", "--images", args.images, "--image-tokenizer", _tokenizer_spec(args), "--output", "DATASET"]


if __name__ == "__main__":
    run_as_process(lambda: report_errors(main))
