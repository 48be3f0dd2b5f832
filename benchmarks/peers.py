"""The peers' own classes of image tokenizers, to compare with. `make peers` installs their packages without what they
need only for training; the modules that they import for that alone are stood in for here. Each function raises
ImportError where its package is not installed."""

from __future__ import annotations

import importlib
import sys
import types
from contextlib import contextmanager

from torch import nn


@contextmanager
def standing_in(**modules: types.ModuleType):
    """Modules of these names (`__` for a dot) while a peer is imported, and not after."""
    modules = {name.replace("__", "."): module for name, module in modules.items()}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules |= modules
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def module(name: str, **attributes: object) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(attributes)
    return made


def openai():
    """dall_e's Encoder and Decoder."""
    return importlib.import_module("dall_e.encoder").Encoder, importlib.import_module("dall_e.decoder").Decoder


def taming():
    """taming.models.vqgan, whose models are Lightning's modules with a loss that we don't need."""
    importlib.import_module("taming")
    lightning = module("pytorch_lightning", LightningModule=nn.Module)
    main = module("taming.main", instantiate_from_config=lambda config: nn.Identity())
    with standing_in(pytorch_lightning=lightning, taming__main=main):
        return importlib.import_module("taming.models.vqgan")


def diffusers_vq_model():
    return importlib.import_module("diffusers.models.autoencoders.vq_model").VQModel


def discrete_vae():
    """dalle_pytorch's DiscreteVAE."""
    return _dalle_pytorch(
        dalle_pytorch__transformer=module("dalle_pytorch.transformer", Transformer=None, DivideMax=None),
        axial_positional_embedding=module("axial_positional_embedding", AxialPositionalEmbedding=None),
    ).DiscreteVAE


def dalle():
    """dalle_pytorch's DALLE, with its own transformer, and DiscreteVAE."""
    found = _dalle_pytorch()
    return found.DALLE, found.DiscreteVAE


def _dalle_pytorch(**others):
    """dalle_pytorch.dalle_pytorch with stand-ins for its trainers and taming's, which today's Lightning breaks, and for
    what is in `others`."""
    spec = importlib.util.find_spec("dalle_pytorch")
    if spec is None:
        raise ImportError("dalle_pytorch is not installed")
    package = module("dalle_pytorch", __path__=list(spec.submodule_search_locations))
    package.distributed_utils = module("dalle_pytorch.distributed_utils", is_distributed=False)
    others["dalle_pytorch__vae"] = module("dalle_pytorch.vae", OpenAIDiscreteVAE=None, VQGanVAE=None)
    with standing_in(dalle_pytorch=package, dalle_pytorch__distributed_utils=package.distributed_utils, **others):
        try:
            return importlib.import_module("dalle_pytorch.dalle_pytorch")
        finally:
            for name in [name for name in sys.modules if name.startswith("dalle_pytorch.")]:
                sys.modules.pop(name)
