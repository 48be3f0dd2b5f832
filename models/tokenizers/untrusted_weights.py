"""Reads weight files that others made, without running what is in them.

PyTorch's files are pickles: loading one plainly runs whatever code it names. `weights_only=True` is safe, but refuses
what was pickled beside the weights: whole modules (OpenAI's dVAE), callbacks (Lightning's checkpoints). Here every name
that a pickle asks for, but those that build tensors, becomes an inert object that remembers its state and does nothing.
"""

from __future__ import annotations

import collections
import os
import pickle
import types
import warnings
import zipfile
from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import nn

_TENSOR_BUILDERS = {
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    ("collections", "OrderedDict"),
    *(
        ("torch", name)
        for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    ),
}


class InertObject:
    """What stands for any other object: takes all arguments and states, does nothing."""

    def __init__(self, *arguments: object, **named: object):
        self.state: dict = {}

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    # Pickles may fill objects as lists and dictionaries.
    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _TENSOR_BUILDERS:
            return super().find_class(module, name)
        return type(name.rpartition(".")[2], (InertObject,), {})


def _load(file, **options) -> object:
    return _Unpickler(file, **options).load()


# What torch.load takes as the pickle module; it derives from Unpickler, which finds storages by itself.
_INERT_PICKLE = types.SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="inert pickle")


def read_checkpoint(path: str | os.PathLike) -> object:
    """Everything in a file of torch.save, with other objects than tensors and containers inert; safetensors as a
    dictionary of tensors. Raises ValueError for what is neither, OSError for a file that can't be read."""
    with open(path, "rb") as file:
        beginning = file.read(9)
    try:
        if beginning[8:] == b"{":  # eight bytes of length, then JSON
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    raise ValueError("a TorchScript program; give the weights themselves")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Couldn't retrieve source code")  # of classes that are not wanted
            return torch.load(path, map_location="cpu", pickle_module=_INERT_PICKLE, weights_only=False)
    except Exception as error:  # whatever hostile or cut bytes make of the readers
        message = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a readable file of weights: {message}") from error


def extract_tensors(loaded: object) -> dict[str, torch.Tensor]:
    """The weights by name, in a state dictionary or in a whole module that was pickled."""
    if isinstance(loaded, InertObject):
        return dict(_module_tensors(loaded, ""))
    if not isinstance(loaded, Mapping):
        return {}
    return {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}


def _module_tensors(module: InertObject, prefix: str):
    stack = [(module, prefix, 0)]
    while stack:
        module, prefix, depth = stack.pop()
        for kind in ("_parameters", "_buffers"):
            for name, value in _mapping(module.state.get(kind)).items():
                if isinstance(value, torch.Tensor):
                    yield f"{prefix}{name}", value
        if depth < 50:  # a hostile file may hold a module that holds itself
            stack.extend(
                (child, f"{prefix}{name}.", depth + 1)
                for name, child in _mapping(module.state.get("_modules")).items()
                if isinstance(child, InertObject)
            )


def _mapping(value: object) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def load_checked(model: nn.Module, weights: Mapping[str, torch.Tensor], path: str | os.PathLike) -> nn.Module:
    """Loads the weights as float32, ready for use. Names that the model lacks may be left over (losses, optimisers).

    Raises ValueError for missing weights, those of other shapes, and values that are not finite.
    """
    wanted = model.state_dict()
    for name, mine in wanted.items():
        if name not in weights:
            raise ValueError(f"{path} has no weight {name}: it is of another model than its configuration says")
        theirs = weights[name]
        if theirs.shape != mine.shape:
            raise ValueError(f"{path}: {name} is {list(theirs.shape)}, but its configuration says {list(mine.shape)}")
        if not torch.isfinite(theirs.float()).all():
            raise ValueError(f"{path}: {name} holds values that are not finite")
    model.load_state_dict(collections.OrderedDict((name, weights[name].float()) for name in wanted))
    return model.eval().requires_grad_(False)
