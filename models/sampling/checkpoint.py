"""A folder that `pairmill train` wrote -> a model and its tokenizers, ready to sample."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from models.errors import UserError
from models.files import BUNDLED
from models.tokenizers.image import ImageTokenizer, load_image_tokenizer
from models.tokenizers.text import TextTokenizer
from models.transformer.model import Transformer, TransformerConfig, block_parameters, inference_weights

BUNDLED_TRANSFORMER = BUNDLED / "transformer"
SMALL_MODEL_PARAMETERS = 10_000_000  # parameters: below, a product is done before a second thread has woken up


class ImageGenerator(NamedTuple):
    """A checkpoint, ready to draw."""

    model: Transformer
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    fingerprint: str  # SHA-256 of the weights
    knows_blank: bool = False  # was it trained with blank captions, so that guidance means something?


def load_model(directory: Path, averaged: bool = False) -> tuple[Transformer, str]:
    """The model of a checkpoint, without its head for text, and the SHA-256 of the weights' file. Raises UserError for
    a folder that is none."""
    described = read_config(directory)
    try:
        data = (directory / ("averaged.safetensors" if averaged else "model.safetensors")).read_bytes()
        model = Transformer(TransformerConfig(**described["model"]))
        model.text_head = None
        model.load_state_dict(inference_weights(load(data)))
    except FileNotFoundError as error:
        raise _missing(error) from None
    except RuntimeError:  # torch's words for it are a page
        raise UserError(
            f"{directory} is not a checkpoint that can be read: its weights are not of the sizes in "
            "config.json; copy all of the folder again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, SafetensorError) as error:
        raise _unreadable(directory, error) from None
    return model.eval(), hashlib.sha256(data).hexdigest()


def read_config(directory: Path) -> dict:
    """`config.json` of a checkpoint. Raises UserError."""
    try:
        described = json.loads((directory / "config.json").read_bytes())
        described["model"], described["training"]["blank_captions"], described["text_tokenizer"]["fingerprint"]
        described["image_tokenizer"]["spec"], described["image_tokenizer"]["fingerprint"]
    except FileNotFoundError as error:
        raise _missing(error) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(directory, error) from None
    return described


def _missing(error: FileNotFoundError) -> UserError:
    return UserError(f"{error.filename} does not exist: --checkpoint names a folder made by `pairmill train`")


def _unreadable(directory: Path, error: Exception) -> UserError:
    return UserError(f"{directory} is not a checkpoint that can be read: {str(error).splitlines()[0]}")


def load_generator(directory: Path, image_tokenizer_spec: str | None = None, averaged: bool = False) -> ImageGenerator:
    """Reads what `pairmill train` wrote. Raises UserError for a folder that is none, and for other tokenizers."""
    model, fingerprint = load_model(directory, averaged)
    described = read_config(directory)
    image, text = described["image_tokenizer"], described["text_tokenizer"]
    text_tokenizer = TextTokenizer.load(directory / "text_tokenizer.json")
    image_tokenizer = load_image_tokenizer(image_tokenizer_spec or image["spec"])
    for what, given, trained in (
        ("text tokenizer", text_tokenizer.info.fingerprint, text["fingerprint"]),
        ("image tokenizer", image_tokenizer.info.fingerprint, image["fingerprint"]),
    ):
        if given != trained:
            raise UserError(
                f"{directory} was trained on another {what} ({trained[:12]}, not {given[:12]}); "
                "its codes mean nothing here: give the one it was trained with"
            )
    knows_blank = described["training"]["blank_captions"] > 0
    return ImageGenerator(model, text_tokenizer, image_tokenizer, fingerprint, knows_blank)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--checkpoint",
        default="bundled",
        metavar="DIR",
        help="made by `pairmill train` (default: `bundled`, the small one in the package)",
    )
    model.add_argument("--image-tokenizer", metavar="SPEC", help="where it is now (default: where it was in training)")
    model.add_argument("--averaged", action="store_true", help="draw with the averaged weights, for long trainings")
    model.add_argument("--device", default=default_device(), help="cpu, cuda, cuda:1, ... (here: %(default)s)")
    model.add_argument("--threads", type=int, help="processor threads (default: all; 1 for a small model)")


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def find_checkpoint(name: str) -> Path:
    """The folder of a --checkpoint. Raises UserError for `bundled` in a package without one."""
    if name != "bundled":
        return Path(name)
    if not BUNDLED_TRANSFORMER.is_dir():
        raise UserError(
            "--checkpoint DIR is missing: give a folder made by `pairmill train` (`make demo` leaves a "
            "small one in demo/model); none is in this package"
        )
    return BUNDLED_TRANSFORMER


def generator_from_args(args: argparse.Namespace) -> ImageGenerator:
    """The artist of a command's add_model_arguments()."""
    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads {args.threads}: give 1 or more")
    artist = load_generator(find_checkpoint(args.checkpoint), args.image_tokenizer, args.averaged)
    try:
        artist.model.to(args.device)
    except (RuntimeError, AssertionError) as error:  # torch's way to say that it was built without this device
        raise UserError(f"--device {args.device}: {str(error).splitlines()[0]}") from None
    torch.set_num_threads(
        args.threads or (1 if block_parameters(artist.model) < SMALL_MODEL_PARAMETERS else os.cpu_count())
    )
    return artist
