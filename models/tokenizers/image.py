"""A name or a file -> a frozen image tokenizer with a fingerprint.

| SPEC | what it reads |
|---|---|
| `bundled` | the small dVAE in the package |
| `dvae:FILE.safetensors` | a dVAE made by `pairmill train-dvae` |
| `openai-dvae:encoder.pkl` | OpenAI's published encoder, with `decoder.pkl` beside it (or the folder of both) |
| `taming:CONFIG.yaml,FILE.ckpt` | a VQModel or GumbelVQ of taming-transformers |
| `diffusers:FOLDER` | a VQModel folder of diffusers |
| `dalle-pytorch:FILE.pt` | a DiscreteVAE that DALLE-pytorch's train_vae.py wrote |

`SPEC@128` is the same tokenizer for pictures of 128 px a side instead of its own number: all are convolutional, so the
grid shrinks with the picture.
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
from typing import Protocol

import numpy as np
import torch
import yaml  # taming-transformers describes its models in it
from torch import nn

from models import pixels
from models.errors import UserError
from models.files import BUNDLED
from models.tokenizers.dalle_pytorch_vae import DiscreteVAE, DiscreteVAEConfig
from models.tokenizers.dvae import DVAE, DVAEConfig, load_dvae
from models.tokenizers.info import ImageTokenizerInfo
from models.tokenizers.untrusted_weights import InertObject, extract_tensors, load_checked, read_checkpoint
from models.tokenizers.vqgan import VQGAN, from_diffusers, from_taming, weights_from_diffusers
from models.tokenizers.winograd import use_winograd

BUNDLED_DVAE = BUNDLED / "dvae.safetensors"
MAX_VOCABULARY = 1 << 16  # codes are stored in 16 bits
MAX_SIZE = 2048  # px a side, of SPEC@PX
PRECISIONS = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")


class DiscreteAutoencoder(Protocol):
    """What a picture model has to be able to do. Pictures are floats in 0..1, [B, 3, H, W]; codes int64 [B, h, w]."""

    config: object  # with vocabulary, grid and image_size
    encoder: nn.Module  # all of `logits` that takes time

    def logits(self, x_BCHW: torch.Tensor) -> torch.Tensor: ...

    def decode(self, codes_Bhw: torch.Tensor) -> torch.Tensor: ...


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """How codes are computed. What may change a code is here and in the manifest; what can't is not."""

    precision: str = "float32"
    device: str = "cpu"
    compiled: bool = False  # by torch.compile, with the weights laid out for the chip: worth it from some thousand on


class ImageTokenizer:
    """Pictures to codes and back.

    A processor computes one picture at a time: that is 1.5 times as fast as eight at once, since a picture's
    activations stay in the cache, and no code can depend on its neighbours in a batch. An accelerator computes batches
    of one fixed size, filled up with black pictures, so that it runs the same kernels whatever is in them.

    In bfloat16 encoding is faster and a few codes change, by a share that `benchmarks/encode.py` measures; decoding
    stays in float32.
    """

    def __init__(self, model: DiscreteAutoencoder, spec: str, fingerprint: str, compute: ComputeOptions | None = None):
        compute = compute or ComputeOptions()
        self._device = torch.device(compute.device)
        self._model = model.to(self._device, memory_format=torch.channels_last).eval()
        self._bfloat16 = compute.precision == "bfloat16"
        if not self.on_accelerator and not self._bfloat16:
            use_winograd(model.encoder)
        self._logits = model.logits
        if compute.compiled:
            self._logits = torch.compile(model.logits, dynamic=False, options={"freezing": True})
        config = model.config
        self.info = ImageTokenizerInfo(spec, fingerprint, config.vocabulary, config.grid, config.image_size)

    @property
    def on_accelerator(self) -> bool:
        return self._device.type != "cpu"

    def encode(self, view_HWC: np.ndarray) -> np.ndarray:
        """uint8 [size, size, 3] to codes, uint16 [grid * grid], row by row."""
        return self.encode_batch(view_HWC[None], 1)[0]

    @torch.inference_mode()
    def encode_batch(self, views_BHWC: np.ndarray, batch_size: int) -> np.ndarray:
        """Up to `batch_size` views to codes, uint16 [B, grid * grid]."""
        given = len(views_BHWC)
        if given < batch_size:
            views_BHWC = np.concatenate([views_BHWC, np.zeros((batch_size - given, *views_BHWC.shape[1:]), np.uint8)])
        x_BCHW = pixels.to_tensor(views_BHWC, self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            codes_Bhw = self._logits(x_BCHW).argmax(dim=1)
        return codes_Bhw[:given].flatten(1).cpu().numpy().astype(np.uint16)

    @torch.inference_mode()
    def decode(self, codes_N: np.ndarray) -> np.ndarray:
        """Codes [grid * grid] to a picture, uint8 [size, size, 3]. Raises ValueError for codes out of range."""
        if int(codes_N.max()) >= self.info.vocabulary:
            raise ValueError(f"code {int(codes_N.max())} is not in a vocabulary of {self.info.vocabulary}")
        codes_1hw = torch.from_numpy(codes_N.astype(np.int64)).view(1, self.info.grid, self.info.grid)
        return pixels.to_uint8(self._model.decode(codes_1hw.to(self._device)).cpu())[0]


def load_image_tokenizer(spec: str, compute: ComputeOptions | None = None) -> ImageTokenizer:
    """Raises UserError for an unknown SPEC, a file that is missing, damaged or of another model, an absent device."""
    sized = re.fullmatch(r"(.+)@(\d+)", spec)
    plain = sized[1] if sized else spec
    kind, _, rest = ("dvae", ":", str(BUNDLED_DVAE)) if plain == "bundled" else plain.partition(":")
    if kind not in _LOADERS or not rest:
        raise UserError(f"image tokenizer {spec!r}: give `bundled`, or one of {', '.join(map(_usage, _LOADERS))}")
    if compute and compute.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device {compute.device!r}: PyTorch sees no such accelerator here; use --device cpu")
    find_files, load, _ = _LOADERS[kind]
    files = find_files(rest)
    for file in files:
        if not file.is_file():
            raise UserError(f"image tokenizer {spec!r}: {file} does not exist; the form is {_usage(kind)}")
    try:
        model = load(*files)
    except (ValueError, OSError) as error:
        raise UserError(f"image tokenizer {spec!r}: {error}") from None
    if compute and compute.compiled and compute.device == "cpu" and not _cpp_compiler():
        raise UserError("--compile needs a C++ compiler (on Debian: apt-get install g++); leave it out or install one")
    if model.config.vocabulary > MAX_VOCABULARY:
        raise UserError(f"image tokenizer {spec!r}: {model.config.vocabulary} codes; at most {MAX_VOCABULARY} fit")
    fingerprint = fingerprint_of(files)
    if sized:
        size, pixels_a_code = int(sized[2]), model.config.image_size // model.config.grid
        if size % pixels_a_code or not 0 < size <= MAX_SIZE:
            raise UserError(f"image tokenizer {spec!r}: give a multiple of {pixels_a_code} px, up to {MAX_SIZE}")
        model.config = dataclasses.replace(model.config, image_size=size)
        fingerprint = hashlib.sha256(f"{fingerprint}@{size}".encode()).hexdigest()
    return ImageTokenizer(model, spec, fingerprint, compute)


def _cpp_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def fingerprint_of(files: Sequence[Path]) -> str:
    """SHA-256 of weights and configuration: of the one file that holds both, else of the files' own hashes."""
    digests = []
    for file in files:
        with open(file, "rb") as opened:
            digests.append(
                hashlib.file_digest(opened, "sha256").hexdigest()
                if hasattr(hashlib, "file_digest")
                else hashlib.sha256(opened.read()).hexdigest()
            )
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


# --- the kinds of tokenizer ------------------------------------------------------------------------------------------


def _one_file(rest: str) -> list[Path]:
    return [Path(rest)]


def _openai_files(rest: str) -> list[Path]:
    encoder = Path(rest) / "encoder.pkl" if Path(rest).is_dir() else Path(rest)
    return [encoder, encoder.with_name(encoder.name.replace("encoder", "decoder"))]


def _taming_files(rest: str) -> list[Path]:
    config, _, weights = rest.partition(",")
    return [Path(config), Path(weights)]


def _diffusers_files(rest: str) -> list[Path]:
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    present = [name for name in names if (Path(rest) / name).is_file()]
    return [Path(rest) / "config.json", Path(rest) / (present or names)[0]]


def _load_openai(encoder: Path, decoder: Path) -> DVAE:
    """Whole modules of the `dall-e` package, pickled: their convolutions call weight and bias w and b."""
    weights = {}
    for part, path in (("encoder", encoder), ("decoder", decoder)):
        endings = {"w": "weight", "b": "bias"}
        for name, value in extract_tensors(read_checkpoint(path)).items():
            base, _, ending = name.rpartition(".")
            weights[f"{part}.{base}.{endings.get(ending, ending)}"] = value
    try:
        config = DVAEConfig.of_weights(weights)
    except ValueError:
        raise ValueError(f"{encoder} and {decoder} are not OpenAI's encoder and decoder") from None
    return load_checked(DVAE(config), weights, encoder.parent)


def _load_taming(config: Path, checkpoint: Path) -> VQGAN:
    try:
        vqgan_config = from_taming(yaml.safe_load(config.read_text("utf-8"))["model"])
        model = VQGAN(vqgan_config)
    except yaml.YAMLError as error:
        raise ValueError(f"{config} is not YAML: {str(error).splitlines()[0]}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(_not_understood(config, error)) from error
    loaded = read_checkpoint(checkpoint)
    return load_checked(
        model, extract_tensors(loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded), checkpoint
    )


def _load_diffusers(config: Path, weights: Path) -> VQGAN:
    try:
        vqgan_config = from_diffusers(json.loads(config.read_text("utf-8")))
        model = VQGAN(vqgan_config)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(_not_understood(config, error)) from error
    renamed = weights_from_diffusers(extract_tensors(read_checkpoint(weights)), len(vqgan_config.widths))
    return load_checked(model, renamed, weights)


def _load_dalle_pytorch(path: Path) -> DiscreteVAE:
    loaded = read_checkpoint(path)
    written = isinstance(loaded, dict) and {"hparams", "weights"} <= loaded.keys()
    if not written or isinstance(loaded["hparams"], InertObject):
        raise ValueError(f"{path} is not what DALLE-pytorch's train_vae.py writes (hparams and weights)")
    try:
        names = DiscreteVAEConfig.__dataclass_fields__
        config = DiscreteVAEConfig(**{name: int(value) for name, value in loaded["hparams"].items() if name in names})
        model = DiscreteVAE(config)
    except (AttributeError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(_not_understood(path, error)) from error
    return load_checked(model, extract_tensors(loaded["weights"]), path)


def _not_understood(path: Path, error: Exception) -> str:
    what = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0] or type(error).__name__
    return f"{path} does not describe a model that is known here: {what}"


_LOADERS: dict[str, tuple[Callable[[str], list[Path]], Callable[..., DiscreteAutoencoder], str]] = {
    "dvae": (_one_file, load_dvae, "FILE.safetensors"),
    "openai-dvae": (_openai_files, _load_openai, "FOLDER/encoder.pkl"),
    "taming": (_taming_files, _load_taming, "CONFIG.yaml,FILE.ckpt"),
    "diffusers": (_diffusers_files, _load_diffusers, "FOLDER"),
    "dalle-pytorch": (_one_file, _load_dalle_pytorch, "FILE.pt"),
}


def _usage(kind: str) -> str:
    return f"`{kind}:{_LOADERS[kind][2]}`"
