"""Options of score, and bounds on scores."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from functools import partial

from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.flags.common import Group, number, share, threads_of
from beam_jobs.flags.engine import has_remote_workers
from models.device import add_device_option, check_device, device_of
from models.errors import UserError
from pipeline.scores.bounds import Bound
from pipeline.scores.folder_bounds import FolderBounds
from pipeline.scores.image_filter import BLUR, REJECT, FaceConfig, ImageFilterConfig
from pipeline.scores.score_files import open_scores
from pipeline.scores.scorer import SIMILARITY, ScoreConfig, score_config


def add_score_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--model",
        metavar="DIR",
        help="folder of a CLIP or SigLIP model, as open_clip or transformers publish it: computes embeddings and the "
        "score clip, the cosine of an image's and its caption's (default: only measures that need no model)",
    )
    group.add_argument(
        "--head",
        action="append",
        type=named_file,
        default=[],
        metavar="NAME=FILE",
        help="file of linear layers (.safetensors) or a graph (.onnx) that turns the image's embedding into the score "
        "NAME, such as aesthetic=FILE; repeatable",
    )
    add_device_option(group, "the model")


def named_file(text: str) -> tuple[str, str]:
    """The argparse type of NAME=FILE."""
    name, _, path = text.partition("=")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not path:
        raise argparse.ArgumentTypeError(f"{text}: give NAME=FILE, with a name of a-z, 0-9 and _")
    return name, path


def scoring(args: argparse.Namespace, options: PipelineOptions) -> ScoreConfig:
    """Raises UserError for a model or heads that are missing, damaged or do not fit together, and for a device that
    this machine lacks if its workers run here."""
    return _score_config(args.model, args.head, args, options)


def _score_config(
    model: str | None, heads: Sequence[tuple[str, str]], args: argparse.Namespace, options: PipelineOptions
) -> ScoreConfig:
    device = device_of(args.device)
    if model and not has_remote_workers(options):
        check_device(device)
    return score_config(model, heads, device, threads_of(options))


def add_bound_options(parser: argparse.ArgumentParser, with_folder: bool) -> None:
    """Bounds on scores that the job computes or, `with_folder`, that `pairmill score` has computed."""
    group = parser.add_argument_group("bounds on scores")
    parser.set_defaults(scores=None, keep_top=None)
    if with_folder:
        _add_folder_options(group)
    group.add_argument(
        "--score-model",
        metavar="DIR",
        help="folder of a CLIP or SigLIP model, as `pairmill score --model` takes it: computes the score clip",
    )
    group.add_argument(
        "--score-head",
        action="append",
        type=named_file,
        default=[],
        metavar="NAME=FILE",
        help="head that computes the score NAME, as `pairmill score --head` takes it; repeatable",
    )
    group.add_argument(
        "--min-clip",
        type=number,
        metavar="X",
        help="reject pairs whose score clip, the cosine of image and caption, is below X",
    )
    for option, what, below in (("--min-score", "low", "below"), ("--max-score", "high", "above")):
        group.add_argument(
            option,
            action="append",
            type=partial(bound, what),
            default=[],
            metavar="NAME=X",
            help=f"reject pairs whose score NAME is {below} X, and those without it; repeatable",
        )


def add_face_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("faces")
    group.add_argument(
        "--faces",
        choices=(BLUR, REJECT),
        help="blur the faces in images before they are encoded, or reject images with faces; takes --face-model",
    )
    group.add_argument(
        "--face-model",
        metavar="FILE",
        help="ONNX file of OpenCV's YuNet, such as face_detection_yunet_2023mar.onnx",
    )


def _faces(args: argparse.Namespace) -> FaceConfig | None:
    """Raises UserError for a model that is missing or damaged, and for one of the two options without the other."""
    if bool(args.faces) != bool(args.face_model):
        raise UserError("--faces and --face-model go together; give both, or neither")
    if not args.faces:
        return None
    config = FaceConfig(args.faces, args.face_model)
    config.load()
    return config


def _add_folder_options(group: Group) -> None:
    group.add_argument(
        "--scores",
        metavar="DIR",
        help="folder that `pairmill score` wrote, to whose scores the bounds apply (default: the job computes scores)",
    )
    group.add_argument(
        "--keep-top",
        type=best_share,
        metavar="[NAME=]SHARE",
        help="keep this share of all pairs in --scores, above 0 and below 1: those with the largest score NAME, which "
        "is clip unless named",
    )


def bound(what: str, text: str) -> Bound:
    """The argparse type of NAME=X: the bound that `what`, low or high, names."""
    name, _, value = text.partition("=")
    try:
        return Bound(name, **{what: number(value)})
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text}: give NAME=X, such as sharpness=50") from None


def best_share(text: str) -> tuple[str, float]:
    """The argparse type of [NAME=]SHARE."""
    name, _, value = text.rpartition("=")
    fix = "give a share above 0 and below 1, such as 0.3 or aesthetic=0.3"
    return name or SIMILARITY, share(lambda value: 0 < value < 1, fix)(value)


def bounds_of(args: argparse.Namespace) -> FolderBounds | None:
    """The bounds on scores that are in a folder. Raises UserError for scores that are not there, and for options that
    do not go together."""
    bounds = _given_bounds(args)
    if not args.scores:
        if args.keep_top:
            raise UserError("--keep-top: takes the scores of all pairs; run `pairmill score`, then add --scores DIR")
        return None
    if args.score_model or args.score_head:
        raise UserError(f"--scores {args.scores} has the scores; leave out --score-model and --score-head")
    if not bounds and not args.keep_top:
        raise UserError(f"--scores {args.scores}: give a bound, such as --min-clip 0.28 or --keep-top 0.3")
    found = FolderBounds(open_scores(args.scores), bounds, args.keep_top)
    for name in found.names:
        if name not in found.scores.names:
            raise UserError(f"--scores {args.scores}: has no score {name}; it has {', '.join(found.scores.names)}")
    return found


def image_filter_of(args: argparse.Namespace, options: PipelineOptions) -> ImageFilterConfig | None:
    """What the job decides on whole images. Raises UserError as its parts."""
    scored, faces = _computed_bounds(args, options), _faces(args)
    return dataclasses.replace(scored or ImageFilterConfig(), faces=faces) if scored or faces else None


def _computed_bounds(args: argparse.Namespace, options: PipelineOptions) -> ImageFilterConfig | None:
    """Bounds on scores that the job computes itself. Raises UserError as `scoring`, and for bounds on other scores."""
    bounds = _given_bounds(args)
    if args.scores or not (bounds or args.score_model or args.score_head):
        return None
    if not bounds:
        raise UserError("--score-model, --score-head: give a bound, such as --min-clip 0.28")
    if args.score_head and not args.score_model:
        raise UserError(f"--score-head {args.score_head[0][0]}: takes a model; name one by --score-model")
    try:
        config = _score_config(args.score_model, args.score_head, args, options)
    except UserError as error:  # names the options of score
        raise UserError(re.sub("^--(model|head)", r"--score-\1", str(error))) from None
    if unknown := [bound.name for bound in bounds if bound.name not in config.names]:
        fix = "name a model by --score-model" if unknown[0] == SIMILARITY and not args.score_model else "choose another"
        raise UserError(f"bound on {unknown[0]}: the scores are {', '.join(config.names)}; {fix}")
    return ImageFilterConfig(config, bounds)


def _given_bounds(args: argparse.Namespace) -> tuple[Bound, ...]:
    min_clip = [Bound(SIMILARITY, low=args.min_clip)] if args.min_clip is not None else []
    return (*min_clip, *args.min_score, *args.max_score)
