"""Small heads on image embeddings: the published aesthetic, NSFW and watermark scores, from files of the user's.

| file | form |
|---|---|
| `*.safetensors` | linear layers in the order of their numbers, such as `layers.0.weight`, or one `weight` |
| `*.onnx` | a graph of one input, float [B, E], and one output, float [B] or [B, 1] |

Metadata of safetensors may name an `activation` between the layers, and one `after` the last.
LAION's aesthetic predictors are of the first form, without activations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional

from models.errors import UserError

Head = Callable[[np.ndarray], np.ndarray]
"""Image embeddings, float16 [B, E], to scores, float32 [B]."""

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "sigmoid": torch.sigmoid,
}


def load_head(path: str | Path, width: int) -> Head:
    """Reads a head for embeddings of `width` numbers. Raises UserError for a file that holds none."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--head {path}: there is no such file")
    if path.suffix == ".onnx":
        return _load_onnx(path, width)
    if path.suffix == ".safetensors":
        return _load_layers(path, width)
    raise UserError(f"--head {path}: is neither .safetensors nor .onnx; convert it to one of them")


def _load_layers(path: Path, width: int) -> Head:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"--head {path} cannot be read: {error}; copy it again") from None
    layers = _layers(path, weights, width)
    between, after = (_activation(path, metadata.get(name, "none")) for name in ("activation", "after"))

    def score(embeddings_BE: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(embeddings_BE.astype(np.float32))
        for number, (weight, bias) in enumerate(layers):
            # One product a row: a batch of another size would round differently.
            x = torch.stack([functional.linear(row, weight, bias) for row in x])
            x = (between if number + 1 < len(layers) else after)(x)
        return x[:, 0].numpy()

    return score


def _layers(
    path: Path, weights: Mapping[str, torch.Tensor], width: int
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """(weight, bias) of each layer, in order. Raises UserError unless they fit together and end in one number."""
    names = sorted((name for name in weights if name.endswith("weight")), key=_numbers)
    layers = [(weights[name], weights.get(f"{name.removesuffix('weight')}bias")) for name in names]
    for weight, bias in layers:
        if weight.dim() != 2 or weight.shape[1] != width or (bias is not None and bias.shape != weight.shape[:1]):
            raise UserError(
                f"--head {path}: a layer is {list(weight.shape)} after {width} numbers; give a head for this model"
            )
        width = len(weight)
    if width != 1 or not layers:
        raise UserError(f"--head {path}: does not end in one number; give a head that computes one score")
    return layers


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _activation(path: Path, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    if name not in ACTIVATIONS:
        raise UserError(f"--head {path}: its metadata name the activation {name}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _load_onnx(path: Path, width: int) -> Head:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--head {path} needs onnxruntime ({error}): pip install '.[scores]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        [taken] = session.get_inputs()
    except Exception as error:  # the library's errors have no common class of their own
        raise UserError(f"--head {path} cannot be read: {' '.join(str(error).split())}; export it again") from None

    def score(embeddings_BE: np.ndarray) -> np.ndarray:
        rows = [session.run(None, {taken.name: row[None].astype(np.float32)})[0] for row in embeddings_BE]
        return np.concatenate([np.asarray(row, np.float32).reshape(-1) for row in rows])

    try:
        scores = score(np.zeros((1, width), np.float16))
    except Exception as error:
        raise UserError(f"--head {path} does not take {width} numbers: {' '.join(str(error).split())}") from None
    if scores.shape != (1,):
        raise UserError(f"--head {path}: gives {scores.size} numbers for an image; give a head that computes one score")
    return score
