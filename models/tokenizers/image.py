"""Loads the frozen image tokenizer that a SPEC names.

| SPEC | tokenizer |
|---|---|
| `bundled` | the small dVAE in the package |
| `bundled-scenes` | that of docs/scenes.md, in the package: a code for each cell of simple shapes |
| `dvae:FILE.safetensors` | a dVAE made by `pairmill train-dvae` |
| `openai-dvae:encoder.pkl` | OpenAI's published encoder, with `decoder.pkl` beside it (or the folder of both) |
| `taming:CONFIG.yaml,FILE.ckpt` | a VQModel or GumbelVQ of taming-transformers or latent-diffusion, or a first stage |
| `diffusers:FOLDER` | a VQModel folder of diffusers |
| `dalle-pytorch:FILE.pt` | a DiscreteVAE that DALLE-pytorch's train_vae.py wrote |
| `llamagen:FILE.pt` | the VQ-8 or VQ-16 of LlamaGen |
| `open-magvit2:CONFIG.yaml,FILE.ckpt` | a lookup-free tokenizer of Open-MAGVIT2, of 2^18 codes |
| `titok:FOLDER` | TiTok, a sequence of codes without places in the image |
| `python:MODULE:FACTORY` | one's own class, see models.tokenizers.own_class |

`SPEC@128` is the same tokenizer for images of 128 px a side instead of its own size, if it is convolutional: the grid
shrinks with the image.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import yaml  # taming-transformers describes its models in it
from torch import nn

from models import pixels
from models.device import check_device
from models.errors import UserError
from models.files import BUNDLED, DVAE_FILE, sha256_of
from models.tokenizers.dalle_pytorch_vae import DiscreteVAE, DiscreteVAEConfig
from models.tokenizers.dvae import DVAE, DVAEConfig, load_dvae, to_channels_last
from models.tokenizers.elsewhere import is_elsewhere
from models.tokenizers.info import MAX_VOCABULARY, FixedConfig, ImageTokenizerInfo, square
from models.tokenizers.llamagen import load_llamagen
from models.tokenizers.open_magvit2 import load_open_magvit2
from models.tokenizers.own_class import OwnModel, load_own, no_files
from models.tokenizers.titok import load_titok, titok_files
from models.tokenizers.untrusted_weights import InertObject, extract_tensors, load_checked, read_checkpoint
from models.tokenizers.vqgan import VQGAN, first_stage, from_diffusers, from_taming, weights_from_diffusers
from models.tokenizers.winograd import leave_uncompiled, use_winograd

BUNDLED_DVAE = BUNDLED / DVAE_FILE
BUNDLED_TOKENIZERS = {  # SPEC: its kind and location
    "bundled": ("dvae", str(BUNDLED_DVAE)),
    "bundled-scenes": ("dalle-pytorch", str(BUNDLED / "scenes" / "image_tokenizer.pt")),
}
OWN_CLASS = "python"  # kind of SPEC that names code instead of files
MAX_SIZE = 2048  # px a side, of SPEC@PX
PRECISIONS = ("float32", "bfloat16")


class DiscreteAutoencoder(Protocol):
    """What the torch module of an image tokenizer has."""

    config: Any  # vocabulary, image_size in px, and grid or, of a FixedConfig, shape
    encoder: nn.Module

    def encode(self, x_BCHW: torch.Tensor, /) -> torch.Tensor:
        """Images, floats in 0..1, [B, 3, H, W], to codes, int64 [B, *dimensions of their shape]."""

    def decode(self, codes: torch.Tensor, /) -> torch.Tensor:
        """Codes, int64 [B, *dimensions of their shape], to images, floats in 0..1, [B, 3, H, W]."""


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """How codes are computed: all settings that may change a code, which the manifest records."""

    precision: str = "float32"
    device: str = "cpu"
    compiled: bool = False  # by torch.compile with frozen weights: worth its time from some thousand images on


class ImageTokenizer:
    """Encodes images as codes and decodes them.

    On a CPU, encode one image at a time: that is 1.5 times as fast as eight together, since an image's activations stay
    in the cache, and no code can depend on other images of a batch. On an accelerator, encode batches of one fixed
    size, filled up with black images, so that the same kernels run for any number of images.

    In bfloat16 encoding is faster and a few codes change, by a share that `benchmarks/encode.py` measures; decoding
    stays in float32.
    """

    def __init__(
        self,
        model: Any,
        spec: str,
        fingerprint: str,
        compute: ComputeOptions | None = None,
        image_size: int | None = None,
    ):
        """`model`: a torch module that is a DiscreteAutoencoder. `image_size`, in px a side, replaces the model's own,
        and must be a multiple of the pixels of a code."""
        compute = compute or ComputeOptions()
        self._device = torch.device(compute.device)
        self._model: DiscreteAutoencoder = to_channels_last(model, self._device).eval()
        self._bfloat16 = compute.precision == "bfloat16"
        if not self.on_accelerator and not self._bfloat16 and not isinstance(model.config, FixedConfig):
            use_winograd(model.encoder)
        self._encode: Callable[[torch.Tensor], torch.Tensor] = model.encode
        if compute.compiled:
            leave_uncompiled(model)
            self._encode = torch.compile(model.encode, dynamic=False, options={"freezing": True})
        config = model.config
        if image_size:
            config = dataclasses.replace(config, image_size=image_size)
        shape = config.shape if isinstance(config, FixedConfig) else square(config.grid)
        self.info = ImageTokenizerInfo(
            spec=spec,
            fingerprint=fingerprint,
            vocabulary=config.vocabulary,
            shape=shape,
            image_size=config.image_size,
        )

    @property
    def on_accelerator(self) -> bool:
        """Whether the model runs on another device than the CPU."""
        return self._device.type != "cpu"

    def encode(self, view_HWC: np.ndarray) -> np.ndarray:
        """uint8 [size, size, 3] to codes, uint16 or uint32 [codes], in raster order."""
        return self.encode_batch(view_HWC[None], 1)[0]

    @torch.inference_mode()
    def encode_batch(self, views_BHWC: np.ndarray, batch_size: int) -> np.ndarray:
        """At most `batch_size` views, uint8 [B, size, size, 3], to codes, uint16 or uint32 [B, codes]."""
        count = len(views_BHWC)
        if count < batch_size:
            views_BHWC = np.concatenate([views_BHWC, np.zeros((batch_size - count, *views_BHWC.shape[1:]), np.uint8)])
        x_BCHW = pixels.to_tensor(views_BHWC, self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            codes_Bhw = self._encode(x_BCHW)
        return codes_Bhw[:count].flatten(1).cpu().numpy().astype(self.info.code_type)

    @torch.inference_mode()
    def decode(self, codes_N: np.ndarray) -> np.ndarray:
        """Codes [codes of an image] to an image, uint8 [size, size, 3]. Raises ValueError for codes out of range."""
        if int(codes_N.max()) >= self.info.vocabulary:
            raise ValueError(f"code {int(codes_N.max())} is not in a vocabulary of {self.info.vocabulary}")
        codes_1hw = torch.from_numpy(codes_N.astype(np.int64)).view(1, *self.info.shape.dimensions)
        return pixels.to_uint8(self._model.decode(codes_1hw.to(self._device)).cpu())[0]


def load_image_tokenizer(
    spec: str, compute: ComputeOptions | None = None, files: Sequence[Path] | None = None
) -> ImageTokenizer:
    """Loads the tokenizer of a SPEC; `files` are copies of those that it names, in the order of `tokenizer_files`.

    Raises UserError for an unknown SPEC, a file that is missing, damaged or of another model, and as `check_compute`.
    """
    sized, kind, location = _parse(spec)
    if compute:
        check_compute(compute)
    files = files or tokenizer_files(spec)
    try:
        model = load_own(location) if kind == OWN_CLASS else LOADERS[kind].load(*files)
    except (ValueError, OSError) as error:
        raise UserError(f"image tokenizer {spec!r}: {error}") from None
    if model.config.vocabulary > MAX_VOCABULARY:
        raise UserError(
            f"image tokenizer {spec!r}: {model.config.vocabulary:,} codes; shards hold at most {MAX_VOCABULARY:,}"
        )
    fingerprint = model.fingerprint if isinstance(model, OwnModel) else fingerprint_of(files)
    size = None
    if sized:
        size = _checked_size(spec, int(sized), model.config)
        fingerprint = hashlib.sha256(f"{fingerprint}@{size}".encode()).hexdigest()
    return ImageTokenizer(model, spec, fingerprint, compute, size)


def _checked_size(spec: str, size: int, config: Any) -> int:
    """The size of SPEC@PX. Raises UserError for a size that the model cannot have."""
    if isinstance(config, FixedConfig):
        raise UserError(f"image tokenizer {spec!r}: it has images of {config.image_size} px alone; leave out @{size}")
    pixels_per_code = config.image_size // config.grid
    if size % pixels_per_code or not 0 < size <= MAX_SIZE:
        raise UserError(f"image tokenizer {spec!r}: give a multiple of {pixels_per_code} px, up to {MAX_SIZE}")
    return size


def tokenizer_files(spec: str) -> list[Path]:
    """The files of the tokenizer of a SPEC. Raises UserError for an unknown SPEC and for a file that is missing."""
    _, kind, location = _parse(spec)
    files = LOADERS[kind].files(location)
    for file in files:
        if not file.is_file():
            raise UserError(f"image tokenizer {spec!r}: {file} does not exist; give {_usage(kind)}")
    return files


def require_no_code(spec: str, place: str, fix: str = "give --image-tokenizer SPEC to run it") -> str:
    """Returns a SPEC that a file names, such as a dataset's manifest. Raises UserError if loading it would run code:
    only an option may ask for that. So for a tokenizer that is known by name alone."""
    if is_elsewhere(spec):
        raise UserError(f"{place} has codes that were computed elsewhere, by {spec!r}; {fix}")
    if spec.startswith(f"{OWN_CLASS}:"):
        raise UserError(f"{place} names code as its image tokenizer, {spec!r}; {fix}")
    return spec


def is_bundled(spec: str) -> bool:
    """Whether a SPEC names the tokenizer that is part of the package."""
    return spec.partition("@")[0] in BUNDLED_TOKENIZERS


def check_compute(compute: ComputeOptions) -> None:
    """Raises UserError for a device or a compiler that this machine lacks."""
    check_device(compute.device)
    if compute.compiled and compute.device == "cpu" and not _cpp_compiler():
        raise UserError("--compile needs a C++ compiler (on Debian: apt-get install g++); leave it out or install one")


def _parse(spec: str) -> tuple[str, str, str]:
    """The size of a SPEC in px (empty: the model's own), its kind and its location. Raises UserError."""
    sized = re.fullmatch(r"(.+)@(\d+)", spec)
    plain = sized[1] if sized else spec
    kind, location = BUNDLED_TOKENIZERS.get(plain) or plain.partition(":")[::2]
    if is_elsewhere(plain):
        raise UserError(f"image tokenizer {spec!r}: is known by name alone; give the SPEC of one that can be loaded")
    if kind not in LOADERS or not location:
        raise UserError(f"image tokenizer {spec!r}: give `bundled`, or one of {', '.join(map(_usage, LOADERS))}")
    return sized[2] if sized else "", kind, location


def _cpp_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def fingerprint_of(files: Sequence[Path]) -> str:
    """SHA-256 of weights and configuration: of the single file that holds both, else of the files' hashes."""
    digests = [sha256_of(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


# --- the kinds of tokenizer ------------------------------------------------------------------------------------------


def one_file(location: str) -> list[Path]:
    return [Path(location)]


def _openai_files(location: str) -> list[Path]:
    encoder = Path(location) / "encoder.pkl" if Path(location).is_dir() else Path(location)
    return [encoder, encoder.with_name(encoder.name.replace("encoder", "decoder"))]


def _taming_files(location: str) -> list[Path]:
    config, _, weights = location.partition(",")
    return [Path(config), Path(weights)]


def _diffusers_files(location: str) -> list[Path]:
    kinds = ("safetensors", "bin", "fp16.safetensors", "fp16.bin")
    names = [f"diffusion_pytorch_model.{kind}" for kind in kinds]
    present = [name for name in names if (Path(location) / name).is_file()]
    return [Path(location) / "config.json", Path(location) / (present or names)[0]]


def _load_openai(encoder: Path, decoder: Path) -> DVAE:
    """Loads pickled modules of the `dall-e` package, whose convolutions name weight and bias `w` and `b`."""
    weights = {}
    for part, path in (("encoder", encoder), ("decoder", decoder)):
        endings = {"w": "weight", "b": "bias"}
        for name, value in extract_tensors(read_checkpoint(path)).items():
            base, _, ending = name.rpartition(".")
            weights[f"{part}.{base}.{endings.get(ending, ending)}"] = value
    try:
        config = DVAEConfig.from_weights(weights)
    except ValueError:
        raise ValueError(f"{encoder} and {decoder} are not OpenAI's encoder and decoder") from None
    return load_checked(DVAE(config), weights, encoder.parent)


def _load_taming(config: Path, checkpoint: Path) -> VQGAN:
    try:
        section, prefix = first_stage(yaml.safe_load(config.read_text("utf-8"))["model"])
        vqgan_config = from_taming(section)
        model = VQGAN(vqgan_config)
    except yaml.YAMLError as error:
        raise ValueError(f"{config} is not YAML: {str(error).splitlines()[0]}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(_unsupported(config, error)) from error
    loaded = read_checkpoint(checkpoint)
    weights = extract_tensors(loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded)
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return load_checked(model, own, checkpoint)


def _load_diffusers(config: Path, weights: Path) -> VQGAN:
    try:
        vqgan_config = from_diffusers(json.loads(config.read_text("utf-8")))
        model = VQGAN(vqgan_config)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(_unsupported(config, error)) from error
    renamed = weights_from_diffusers(extract_tensors(read_checkpoint(weights)), len(vqgan_config.widths))
    return load_checked(model, renamed, weights)


def _load_dalle_pytorch(path: Path) -> DiscreteVAE:
    loaded = read_checkpoint(path)
    is_complete = isinstance(loaded, dict) and {"hparams", "weights"} <= loaded.keys()
    if not isinstance(loaded, dict) or not is_complete or isinstance(loaded["hparams"], InertObject):
        raise ValueError(f"{path} is not a checkpoint of DALLE-pytorch's train_vae.py (with hparams and weights)")
    try:
        names = DiscreteVAEConfig.__dataclass_fields__
        config = DiscreteVAEConfig(**{name: int(value) for name, value in loaded["hparams"].items() if name in names})
        model = DiscreteVAE(config)
    except (AttributeError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(_unsupported(path, error)) from error
    return load_checked(model, extract_tensors(loaded["weights"]), path)


def _unsupported(path: Path, error: Exception) -> str:
    what = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0] or type(error).__name__
    return f"{path} does not describe a supported model: {what}"


class Loader(NamedTuple):
    """What a kind of SPEC stands for."""

    files: Callable[[str], list[Path]]  # that its location names
    load: Callable[..., Any]  # the model in these files: a torch module that is a DiscreteAutoencoder
    location: str  # how it is written


# By the kind, with which a SPEC starts. A new one is a module beside this one and a line here.
LOADERS: dict[str, Loader] = {
    "dvae": Loader(one_file, load_dvae, "FILE.safetensors"),
    "openai-dvae": Loader(_openai_files, _load_openai, "FOLDER/encoder.pkl"),
    "taming": Loader(_taming_files, _load_taming, "CONFIG.yaml,FILE.ckpt"),
    "diffusers": Loader(_diffusers_files, _load_diffusers, "FOLDER"),
    "dalle-pytorch": Loader(one_file, _load_dalle_pytorch, "FILE.pt"),
    "llamagen": Loader(one_file, load_llamagen, "FILE.pt"),
    "open-magvit2": Loader(_taming_files, load_open_magvit2, "CONFIG.yaml,FILE.ckpt"),
    "titok": Loader(titok_files, load_titok, "FOLDER"),
    OWN_CLASS: Loader(no_files, load_own, "MODULE:FACTORY"),
}


def spec_forms() -> list[str]:
    """How a SPEC of each kind is written, but for the bundled ones."""
    return [f"{kind}:{loader.location}" for kind, loader in LOADERS.items()]


def _usage(kind: str) -> str:
    return f"`{kind}:{LOADERS[kind].location}`"
