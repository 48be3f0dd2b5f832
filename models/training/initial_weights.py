"""Starts a new run from another run's weights, which may have other vocabularies, another grid or shorter texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from models.data.format import Manifest
from models.errors import UserError
from models.files import AVERAGED_FILE, CHECKPOINT_FILE, WEIGHTS_FILE
from models.sampling.checkpoint import read_config
from models.tokenizers.info import TEXT_TOKENIZER_FILE
from models.tokenizers.text import TextTokenizer
from models.training.checkpoint import defaults_of, read_state
from models.training.distributed import World, load_from_main
from models.training.shards import folder_in, read_shards
from models.transformer.model import Transformer, TransformerConfig

TEXT_ROWS = ("text_token.weight", "text_head.weight", "text_head.bias")  # a row for each token
CODE_ROWS = ("code.weight", "image_head.weight", "image_head.bias")


class InitialWeights(NamedTuple):
    """The weights of another run by name, and which of its rows of tokens and codes are which of the new model."""

    weights: dict[str, torch.Tensor]
    tokens: tuple[list[int], list[int]]  # ids here, ids there
    codes: int  # number of codes that mean the same

    def rows(self, name: str, count: int) -> tuple[list[int], list[int]]:
        """The rows of a weight of `count` rows that are kept: here and there."""
        if name in TEXT_ROWS:
            return self.tokens
        kept = min(count, len(self.weights[name]), self.codes if name in CODE_ROWS else count)
        return list(range(kept)), list(range(kept))


def read_initial_weights(
    directory: Path, model: TransformerConfig, manifest: Manifest, tokenizer_json: str
) -> InitialWeights:
    """Reads `checkpoint.pt` of a run, or its `model.safetensors`, which lacks the text head.

    Raises UserError for another kind of folder and for a model of another width or number of heads.
    """
    config = read_config(directory)
    saved = defaults_of(TransformerConfig) | config["model"]
    for name in ("width", "heads", "recipe", "rotary", "full_attention"):
        if (there := saved.get(name)) != (here := getattr(model, name)):
            raise UserError(
                f"--init-from {directory}: its model has {name} {there}, the new one {here}; "
                "give the options of that run"
            )
    ids = TextTokenizer.load(directory / TEXT_TOKENIZER_FILE).ids()
    pairs = [(here, ids[token]) for token, here in TextTokenizer(tokenizer_json).ids().items() if token in ids]
    tokens = [here for here, _ in pairs], [there for _, there in pairs]
    return InitialWeights(
        read_weights(directory, "--init-from"), tokens, _same_codes(config["image_tokenizer"], manifest)
    )


def read_weights(directory: Path, option: str, averaged: bool = False) -> dict[str, torch.Tensor]:
    """The weights of a run by name, from its `checkpoint.pt`, or where there is none from what is there to sample with,
    which lacks the text head. Raises UserError that names the `option` for unreadable files."""
    if (directory / CHECKPOINT_FILE).exists():
        state = read_state(directory / CHECKPOINT_FILE, option)
        if "shards" in state:
            shards = state["shards"]
            folder = folder_in(directory, shards["folder"])
            return read_shards(folder, shards["shapes"], "average" if averaged else "weights", option)
        return state["average"]["parameters"] if averaged else state["weights"]
    path = directory / (AVERAGED_FILE if averaged else WEIGHTS_FILE)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{option}: {path} cannot be read: {str(error).splitlines()[0]}") from None


def _same_codes(there: dict[str, Any], manifest: Manifest) -> int:
    """The number of codes that mean the same here: all if the image tokenizer is the same, at any size of images."""
    here = manifest.image_tokenizer
    same_spec = there["spec"].partition("@")[0] == here.spec.partition("@")[0]
    is_same = there["fingerprint"] == here.fingerprint or (same_spec and there["vocabulary"] == here.vocabulary)
    return here.vocabulary if is_same else 0


@torch.no_grad()
def start_from(model: Transformer, initial: InitialWeights | None, world: World) -> list[str]:
    """Fills the model, on all ranks, with the weights that rank 0 has; returns what stays as it was initialised: names
    of weights and numbers of rows."""
    new: list[str] = []
    for name, parameter in model.named_parameters():
        if initial is not None:
            new += _fill(name, parameter, initial)
        load_from_main(parameter.detach(), None if initial is None else parameter.detach(), world)
    return new


def _fill(name: str, parameter: nn.Parameter, initial: InitialWeights) -> list[str]:
    saved = initial.weights.get(name)
    if saved is None:
        return [name]
    if name not in (*TEXT_ROWS, *CODE_ROWS) and saved.shape == parameter.shape:
        parameter.copy_(saved)
        return []
    here, there = initial.rows(name, len(parameter))
    parameter[torch.tensor(here, dtype=torch.int64)] = saved[torch.tensor(there, dtype=torch.int64)].to(parameter)
    rows = len(parameter) - len(here)
    return [f"{rows:,} of {len(parameter):,} rows of {name}"] if rows else []
