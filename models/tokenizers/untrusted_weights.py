"""Reads weight files from others without running code that they hold.

PyTorch's files are pickles, which run arbitrary code when they are loaded plainly. `weights_only=True` is safe, but
refuses objects pickled beside the weights: full modules (OpenAI's dVAE), callbacks (Lightning's checkpoints). Here each
class that a pickle names, except those that build tensors, becomes an inert object that only keeps its state.
"""

from __future__ import annotations

import collections
import os
import pickle
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)

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
    """Stands in for an object of any other class: accepts all arguments and states, and does nothing."""

    def __init__(self, *arguments: object, **named: object) -> None:
        self.state: dict[str, object] = {}

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    # A pickle may fill an object as a list or a dictionary.
    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def _without_attributes(build: Callable[..., object], kind: object, arguments: tuple, state: object) -> object:
    """A tensor to which Python attributes were given, or one of a subclass: the plain tensor."""
    return build(*arguments)


def _parameter_without_attributes(data: torch.Tensor, requires_grad: bool, hooks: object, state: object) -> object:
    return nn.Parameter(data, requires_grad=False)


# Builders of torch that set attributes of objects; here they set none.
_REPLACEMENTS: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._tensor", "_rebuild_from_type_v2"): _without_attributes,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter_without_attributes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _REPLACEMENTS:
            return _REPLACEMENTS[module, name]
        if (module, name) in _TENSOR_BUILDERS:
            return super().find_class(module, name)
        return type(name.rpartition(".")[2], (InertObject,), {})


def _load(file: BinaryIO, **options: Any) -> object:
    return _Unpickler(file, **options).load()


# Given to torch.load as its pickle module; torch subclasses Unpickler to find storages.
_INERT_PICKLE = types.SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="inert pickle")


def read_checkpoint(path: str | os.PathLike) -> object:
    """Reads a file of torch.save, with objects other than tensors and containers inert, or a safetensors file as a
    dictionary of tensors. Raises ValueError for another kind of file, OSError for an unreadable one."""
    with open(path, "rb") as file:
        header = file.read(9)
    try:
        if header[8:] == b"{":  # safetensors: eight bytes of length, then JSON
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    raise ValueError("it is a TorchScript program; give a file of weights")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Couldn't retrieve source code")  # of classes that become inert
            return torch.load(path, map_location="cpu", pickle_module=_INERT_PICKLE, weights_only=False)
    except Exception as error:  # the readers raise anything on hostile or truncated bytes
        message = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is not a readable file of weights: {message}") from error


def extract_tensors(loaded: object) -> dict[str, torch.Tensor]:
    """Collects the weights by name from a state dictionary or a pickled module; {} for anything else. Names lose the
    `module.` that PyTorch's wrappers for several GPUs put before all of them."""
    if isinstance(loaded, InertObject):
        weights = dict(_module_tensors(loaded, ""))
    elif isinstance(loaded, Mapping):
        weights = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    else:
        return {}
    wrapped = all(name.startswith("module.") for name in weights)
    return {name.removeprefix("module."): value for name, value in weights.items()} if wrapped else weights


def _module_tensors(module: InertObject, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    stack = [(module, prefix, 0)]
    while stack:
        module, prefix, depth = stack.pop()
        for kind in ("_parameters", "_buffers"):
            for name, value in _mapping(module.state.get(kind)).items():
                if isinstance(value, torch.Tensor):
                    yield f"{prefix}{name}", value
        if depth < 50:  # a hostile file may hold a module that contains itself
            stack.extend(
                (child, f"{prefix}{name}.", depth + 1)
                for name, child in _mapping(module.state.get("_modules")).items()
                if isinstance(child, InertObject)
            )


def _mapping(value: object) -> Mapping:
    return value if isinstance(value, Mapping) else {}


def load_checked(model: ModuleT, weights: Mapping[str, torch.Tensor], path: str | os.PathLike) -> ModuleT:
    """Loads the weights into the model as float32, and freezes it. Names that the model lacks (losses, optimisers) are
    ignored.

    Raises ValueError for missing weights, weights of other shapes, and values that are not finite.
    """
    expected = model.state_dict()
    for name, parameter in expected.items():
        if name not in weights:
            raise ValueError(f"{path} has no weight {name}: it does not fit its configuration")
        actual = weights[name]
        if actual.shape != parameter.shape:
            raise ValueError(
                f"{path}: {name} is {list(actual.shape)}, but its configuration says {list(parameter.shape)}"
            )
        if not torch.isfinite(actual.float()).all():
            raise ValueError(f"{path}: {name} holds values that are not finite")
    model.load_state_dict(collections.OrderedDict((name, weights[name].float()) for name in expected))
    return model.eval().requires_grad_(False)
