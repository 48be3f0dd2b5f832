"""The peers' own classes of image tokenizers, to compare with. `make peers` installs their packages without what they
need only for training, `make peer-code` the code of those that no package holds; the modules that they import for
training alone are stood in for here. Each function raises ImportError where its code is not installed."""

from __future__ import annotations

import importlib
import sys
import types
from contextlib import contextmanager
from pathlib import Path

from torch import nn

PEER_CODE = Path(sys.prefix) / "peers"  # where `make peer-code` puts repositories


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
                sys.modules.pop(name, None)  # the peer may have been forgotten already
            else:
                sys.modules[name] = module


def module(name: str, **attributes: object) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(attributes)
    return made


@contextmanager
def repository(name: str):
    """Modules are looked for in a peer's repository, too, and what is imported from there is forgotten afterwards:
    repositories call their packages alike."""
    folder = PEER_CODE / name
    if not folder.is_dir():
        raise ImportError(f"{name} is not in {PEER_CODE}")
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for added in set(sys.modules) - before:
            if (getattr(sys.modules[added], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[added]


def llamagen():
    """LlamaGen's module of image tokenizers, with VQ_models."""
    with repository("LlamaGen"):
        return importlib.import_module("tokenizer.tokenizer_image.vq_model")


def open_magvit2():
    """Open-MAGVIT2's VQModel, a Lightning module with a loss that we don't need."""
    lightning = module("lightning", LightningModule=nn.Module)
    main = module("main", instantiate_from_config=lambda config: nn.Identity())
    with repository("SEED-Voken"), standing_in(lightning=lightning, main=main):
        return importlib.import_module("src.Open_MAGVIT2.models.lfqgan").VQModel


def titok():
    """TiTok, without the hub's mixin and the libraries of its training."""
    conf = module("omegaconf", OmegaConf=types.SimpleNamespace(create=Settings))
    hub = module("huggingface_hub", PyTorchModelHubMixin=_NoMixin)
    gather = module("accelerate.utils.operations", gather=None)
    base = module("modeling.modules.base_model", BaseModel=nn.Module)
    stands = {"accelerate": module("accelerate"), "accelerate__utils": module("accelerate.utils")}
    with (
        repository("1d-tokenizer"),
        standing_in(omegaconf=conf, huggingface_hub=hub, accelerate__utils__operations=gather, **stands),
    ):
        folder = PEER_CODE / "1d-tokenizer" / "modeling" / "modules"
        with standing_in(
            modeling__modules=module("modeling.modules", __path__=[str(folder)]), modeling__modules__base_model=base
        ):
            return importlib.import_module("modeling.titok").TiTok


class Settings(dict):
    """A configuration whose entries are attributes, too, as OmegaConf's are."""

    def __init__(self, entries: dict):
        super().__init__({name: Settings(v) if isinstance(v, dict) else v for name, v in entries.items()})

    __getattr__ = dict.__getitem__


class _NoMixin:
    def __init_subclass__(cls, **ignored: object) -> None:
        super().__init_subclass__()


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
    utils = module("dalle_pytorch.distributed_utils", is_distributed=False)
    package = module("dalle_pytorch", __path__=[*(spec.submodule_search_locations or ())], distributed_utils=utils)
    others["dalle_pytorch__vae"] = module("dalle_pytorch.vae", OpenAIDiscreteVAE=None, VQGanVAE=None)
    with standing_in(dalle_pytorch=package, dalle_pytorch__distributed_utils=utils, **others):
        try:
            return importlib.import_module("dalle_pytorch.dalle_pytorch")
        finally:
            for name in [name for name in sys.modules if name.startswith("dalle_pytorch.")]:
                sys.modules.pop(name)
