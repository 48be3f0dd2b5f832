"""Loads a checkpoint folder of `pairmill train`: the model and its tokenizers, ready to sample."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from models.device import add_device_option, add_threads_option, available_processors, check_device, device_of
from models.errors import UserError
from models.files import AVERAGED_FILE, BUNDLED, CONFIG_FILE, WEIGHTS_FILE
from models.sampling.sampler import PAPER_SAMPLING, SamplingConfig
from models.tokenizers.elsewhere import require_decoder
from models.tokenizers.image import ImageTokenizer, load_image_tokenizer, require_no_code
from models.tokenizers.info import TEXT_TOKENIZER_FILE, ImageTokenizerInfo, require_same_tokenizer, upgrade_info
from models.tokenizers.text import TextTokenizer
from models.transformer.model import Transformer, TransformerConfig, block_parameters, inference_weights

CHECKPOINT_FORMAT, CHECKPOINT_VERSION = "pairmill-transformer", 2
BUNDLED_TRANSFORMER = BUNDLED / "transformer"
BUNDLED_SCENES = BUNDLED / "scenes"
SMALL_MODEL_PARAMETERS = 10_000_000  # below, one thread is faster: a product ends before a second thread wakes up


class ImageGenerator(NamedTuple):
    """A transformer with its tokenizers, ready to sample images."""

    model: Transformer
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    fingerprint: str  # SHA-256 of the weights
    supports_guidance: bool = False  # whether it was trained with blank captions, which guidance needs
    sampling: SamplingConfig = PAPER_SAMPLING  # used where a command or a request names no other values
    prompts: tuple[str, ...] = ()  # examples that the model draws well


def load_model(directory: Path, averaged: bool = False) -> tuple[Transformer, str]:
    """Loads (model without its text head, SHA-256 of the weights' file); `averaged` takes averaged.safetensors.

    Raises UserError for a folder that is not a checkpoint or is damaged.
    """
    config = read_config(directory)
    try:
        data = (directory / (AVERAGED_FILE if averaged else WEIGHTS_FILE)).read_bytes()
        model = Transformer(TransformerConfig(**config["model"]))
        del model.text_head  # sampling predicts no text, and the file holds no weights for it
        model.load_state_dict(inference_weights(load(data)))
    except FileNotFoundError as error:
        raise _missing(error) from None
    except RuntimeError:  # torch's message fills a page
        raise UserError(
            f"{directory} is not a readable checkpoint: its weights do not have the sizes in "
            "config.json; copy the full folder again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, SafetensorError) as error:
        raise _malformed(directory, error) from None
    return model.eval(), hashlib.sha256(data).hexdigest()


def read_config(directory: Path) -> dict:
    """Reads `config.json` of a checkpoint.

    Raises UserError for a file that is missing, damaged, lacks a field or has another format or version.
    """
    try:
        config = json.loads((directory / CONFIG_FILE).read_bytes())
        found = config["format"], config["version"]
        if found != (CHECKPOINT_FORMAT, CHECKPOINT_VERSION):
            raise _other_version(directory, *found)
        config["model"], config["training"]["blank_captions"], config["text_tokenizer"]["fingerprint"]
        config["image_tokenizer"]["spec"], config["image_tokenizer"]["fingerprint"]
    except FileNotFoundError as error:
        raise _missing(error) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _malformed(directory, error) from None
    return config


def _missing(error: FileNotFoundError) -> UserError:
    return UserError(f"{error.filename} does not exist: give a folder made by `pairmill train` with --checkpoint")


def _other_version(directory: Path, name: object, version: object) -> UserError:
    return UserError(
        f"{directory / CONFIG_FILE} has format {json.dumps(name)} version {json.dumps(version)}, expected "
        f'"{CHECKPOINT_FORMAT}" version {CHECKPOINT_VERSION}; use the pairmill that wrote it or train again'
    )


def _malformed(directory: Path, error: Exception) -> UserError:
    return UserError(f"{directory} is not a readable checkpoint: {str(error).splitlines()[0]}")


def load_generator(directory: Path, image_tokenizer_spec: str | None = None, averaged: bool = False) -> ImageGenerator:
    """Loads a checkpoint folder; `image_tokenizer_spec` replaces the SPEC that it was trained with.

    Raises UserError for a folder that is not a checkpoint and for tokenizers other than those of the training.
    """
    model, fingerprint = load_model(directory, averaged)
    config = read_config(directory)
    recorded, text = _image_tokenizer_of(config, directory), config["text_tokenizer"]
    text_tokenizer = TextTokenizer.load(directory / TEXT_TOKENIZER_FILE)
    image_tokenizer = load_image_tokenizer(
        image_tokenizer_spec or require_no_code(recorded.spec, str(directory / CONFIG_FILE))
    )
    require_same_tokenizer(
        text_tokenizer.info.fingerprint,
        text["fingerprint"],
        f"{directory} was trained with another text tokenizer",
        f"copy text_tokenizer.json of the training into {directory} again",
    )
    require_decoder(
        image_tokenizer.info,
        recorded,
        f"{directory} was trained with another image tokenizer",
        "pass the one it was trained with as --image-tokenizer",
    )
    supports_guidance = config["training"]["blank_captions"] > 0
    return ImageGenerator(
        model=model,
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        fingerprint=fingerprint,
        supports_guidance=supports_guidance,
        sampling=sampling_of(config, directory),
        prompts=prompts_of(config, directory),
    )


def _image_tokenizer_of(config: dict, directory: Path) -> ImageTokenizerInfo:
    """The image tokenizer of the training. Raises UserError for a config that does not describe it."""
    try:
        return msgspec.convert(upgrade_info(config["image_tokenizer"]), ImageTokenizerInfo)
    except msgspec.ValidationError as error:
        raise _malformed(directory, error) from None


def sampling_of(config: dict, directory: Path) -> SamplingConfig:
    """The sampling that a checkpoint's config names under `sampling`; where it names none, the paper's.

    Raises UserError for a name or a value that SamplingConfig does not have.
    """
    try:
        sampling = PAPER_SAMPLING._replace(**config.get("sampling", {}))
        valid = type(sampling.top_k) is int and sampling.is_valid
    except (ValueError, TypeError):
        valid = False
    if not valid:
        raise UserError(
            f'{directory / CONFIG_FILE}: "sampling" is {json.dumps(config["sampling"])}, expected any of temperature '
            "above 0, top_k an integer from 0, top_p above 0 and at most 1, guidance from 0; fix or remove it"
        )
    return sampling


def prompts_of(config: dict, directory: Path) -> tuple[str, ...]:
    """The example prompts that a checkpoint's config names. Raises UserError if they are not a list of texts."""
    prompts = config.get("prompts", [])
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
        raise UserError(
            f'{directory / CONFIG_FILE}: "prompts" is {json.dumps(prompts)}, expected a list of texts; fix or remove it'
        )
    return tuple(prompts)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `generator_from_args` reads."""
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--checkpoint",
        default="bundled",
        metavar="DIR",
        help="folder made by `pairmill train`, or a model in the package: `bundled-scenes`, which "
        "knows coloured shapes, or the small one of emoji (default: `bundled`)",
    )
    model.add_argument(
        "--image-tokenizer",
        metavar="SPEC",
        help="image tokenizer of the training, if its files have moved (default: the SPEC in config.json)",
    )
    model.add_argument(
        "--averaged",
        action="store_true",
        help="use the weights averaged over the training, which are better after a long one",
    )
    add_device_option(model, "the model")
    add_threads_option(model, help_default="all available; 1 for a small model")


def model_options(args: argparse.Namespace) -> list[str]:
    """The options by which another command finds the model that these name, on any device."""
    moved = ["--image-tokenizer", args.image_tokenizer] if args.image_tokenizer else []
    return ["--checkpoint", args.checkpoint, *moved, *["--averaged"] * args.averaged]


def find_checkpoint(name: str) -> Path:
    """Resolves the value of --checkpoint to a folder. Raises UserError for a bundled model that the package lacks."""
    bundled = {"bundled": BUNDLED_TRANSFORMER, "bundled-scenes": BUNDLED_SCENES}
    if name not in bundled:
        return Path(name)
    if not bundled[name].is_dir():
        raise UserError(
            "--checkpoint DIR is missing: give a folder made by `pairmill train` (`make demo` leaves a "
            f"small one in demo/model); this package does not hold the model `{name}`"
        )
    return bundled[name]


def generator_from_args(args: argparse.Namespace) -> ImageGenerator:
    """Loads the generator that a command's options name, moves it to its device and sets the number of threads.

    Raises UserError for unusable options.
    """
    device = device_of(args.device)
    check_device(device)
    generator = load_generator(find_checkpoint(args.checkpoint), args.image_tokenizer, args.averaged)
    try:
        generator.model.to(device)
    except RuntimeError as error:  # its memory is full, or its driver does not fit
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from None
    torch.set_num_threads(
        args.threads or (1 if block_parameters(generator.model) < SMALL_MODEL_PARAMETERS else available_processors())
    )
    return generator
