"""Reads a contrastive model from a folder: its network, how it takes images, and how it takes texts.

The folder is open_clip's or transformers', as it is published (see `models.scoring.layouts`). No network is needed, no
code of the folder runs.
"""

from __future__ import annotations

import hashlib
import html
import string
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from models.errors import UserError
from models.files import sha256_of
from models.scoring import layouts
from models.scoring.layouts import Json
from models.scoring.network import ContrastiveConfig, ContrastiveModel
from models.tokenizers.untrusted_weights import extract_tensors, load_checked, read_checkpoint

OPEN_CLIP_CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")  # the first kind that is there
_SETTINGS = (OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG, PREPROCESSOR, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, MERGES)

ModelFiles = Mapping[str, Path]
"""The files of a model by their names in its folder; they may lie elsewhere."""


def model_files(folder: str | Path) -> dict[str, Path]:
    """The files of a model's folder that decide its embeddings. Raises UserError if there is no model."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--model {folder}: there is no such folder; give one of a CLIP or SigLIP model")
    weights = next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    settings = [folder / name for name in _SETTINGS if (folder / name).is_file()]
    if not {OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG} & {path.name for path in settings}:
        raise UserError(
            f"--model {folder}: neither {OPEN_CLIP_CONFIG} nor {TRANSFORMERS_CONFIG} there; give the whole folder of a "
            "CLIP or SigLIP model, as open_clip or transformers publish it"
        )
    if not weights:
        raise UserError(f"--model {folder}: no weights there ({', '.join(_WEIGHTS)}); copy the whole folder again")
    return {path.name: path for path in (*settings, *weights)}


def fingerprint(files: ModelFiles) -> str:
    """64 hex digits of all that decides the embeddings."""
    names = "\0".join(f"{name}\0{sha256_of(path)}" for name, path in sorted(files.items()))
    return hashlib.sha256(names.encode()).hexdigest()


class ImageInput(NamedTuple):
    """How a model takes images."""

    size: int  # px a side
    is_squashed: bool  # to the square; else the shorter side becomes `size`, and the centre is taken
    mean: tuple[float, ...]  # of red, green and blue, in 0..1
    deviation: tuple[float, ...]
    resampling: Image.Resampling

    def prepare(self, rgb_HWC: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] to float32 [3, size, size]."""
        resized = self._resized(Image.fromarray(rgb_HWC))
        scaled_HWC = np.asarray(resized, np.float32) / np.float32(255)
        normal_HWC = (scaled_HWC - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        return np.ascontiguousarray(normal_HWC.transpose(2, 0, 1))

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.is_squashed:
            return image.resize((self.size, self.size), self.resampling)
        short = min(image.size)
        width, height = (self.size * side // short for side in image.size)
        image = image.resize((width, height), self.resampling)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))


class TextInput(NamedTuple):
    """How a model takes texts."""

    tokenizer: Tokenizer
    context: int  # tokens
    pad_id: int
    clean: Callable[[str], str]

    def prepare(self, caption: str) -> np.ndarray:
        """The tokens of a caption, cut and filled up to int64 [context]."""
        ids = self.tokenizer.encode(self.clean(caption)).ids
        if len(ids) > self.context:
            ids = [*ids[: self.context - 1], ids[-1]]  # the last is the token of the end
        return np.array(ids + [self.pad_id] * (self.context - len(ids)), np.int64)


class LoadedModel(NamedTuple):
    """A network, and how it takes images and texts."""

    network: ContrastiveModel
    images: ImageInput
    texts: TextInput


def load_model(files: ModelFiles) -> LoadedModel:
    """Loads a model's files. Raises UserError for damaged files and for models of a kind that is not known here."""
    try:
        return _load(files)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        what = f"it lacks the setting {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UserError(f"--model {_folder(files)} cannot be read: {what}; copy the whole folder again") from None


def _folder(files: ModelFiles) -> Path:
    return next(iter(files.values())).parent


def _load(files: ModelFiles) -> LoadedModel:
    weights: dict[str, torch.Tensor] = {}
    for path in files.values():
        if path.suffix in (".safetensors", ".bin", ".pt"):
            weights |= extract_tensors(_state(read_checkpoint(path)))
    if OPEN_CLIP_CONFIG in files:
        settings = _json(files, OPEN_CLIP_CONFIG)
        config = layouts.open_clip_settings(settings["model_cfg"], weights)
        images = _open_clip_images(config, settings.get("preprocess_cfg") or {})
        texts = _open_clip_texts(files, config, settings["model_cfg"]["text_cfg"])
        weights = layouts.open_clip_weights(weights)
    else:
        settings = _json(files, TRANSFORMERS_CONFIG)
        config = layouts.transformers_settings(settings, weights)
        images = _transformers_images(config, _json(files, PREPROCESSOR) if PREPROCESSOR in files else {})
        texts = _transformers_texts(files, config, settings["model_type"])
        weights = layouts.transformers_weights(weights)
    network = load_checked(ContrastiveModel(config), weights, _folder(files))
    return LoadedModel(network, images, texts)


def _state(checkpoint: object) -> object:
    """The weights of a checkpoint of a training, which has them under `state_dict`."""
    return checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else checkpoint


def _json(files: ModelFiles, name: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(files[name].read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from None


# --- images ----------------------------------------------------------------------------------------------------------

_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def _open_clip_images(config: ContrastiveConfig, settings: Json) -> ImageInput:
    return _image_input(
        config,
        is_squashed=settings.get("resize_mode") == "squash",
        mean=settings.get("mean") or _CLIP_MEAN,
        deviation=settings.get("std") or _CLIP_DEVIATION,
        resampling=_RESAMPLING[settings.get("interpolation") or "bicubic"],
    )


def _transformers_images(config: ContrastiveConfig, settings: Json) -> ImageInput:
    is_clip = config.image.pool == "class"
    return _image_input(
        config,
        is_squashed="shortest_edge" not in settings["size"] if isinstance(settings.get("size"), dict) else not is_clip,
        mean=settings.get("image_mean") or (_CLIP_MEAN if is_clip else _HALF),
        deviation=settings.get("image_std") or (_CLIP_DEVIATION if is_clip else _HALF),
        resampling=Image.Resampling(settings.get("resample", Image.Resampling.BICUBIC)),
    )


def _image_input(config: ContrastiveConfig, is_squashed: bool, **settings: Any) -> ImageInput:
    mean, deviation = (tuple(map(float, settings[name])) for name in ("mean", "deviation"))
    if len(mean) != 3 or len(deviation) != 3 or not all(deviation):
        raise ValueError("its mean and deviation of colours are not three numbers each")
    return ImageInput(
        size=config.image.image_size,
        is_squashed=is_squashed,
        mean=mean,
        deviation=deviation,
        resampling=settings["resampling"],
    )


# --- texts -----------------------------------------------------------------------------------------------------------

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _clean(text: str) -> str:
    return " ".join(html.unescape(text).split()).lower()


def _canonical(text: str) -> str:
    """As SigLIP was trained: no punctuation, lower case."""
    return " ".join(html.unescape(text).lower().translate(_NO_PUNCTUATION).split())


def _open_clip_texts(files: ModelFiles, config: ContrastiveConfig, settings: Json) -> TextInput:
    cleaning = (settings.get("tokenizer_kwargs") or {}).get("clean", "lower")
    is_siglip = settings.get("no_causal_mask", False)
    pad_id = _siglip_pad(files) if is_siglip else settings.get("pad_id", 0)
    return TextInput(
        _tokenizer(files), config.text.context, pad_id, _canonical if cleaning == "canonicalize" else _clean
    )


def _transformers_texts(files: ModelFiles, config: ContrastiveConfig, kind: str) -> TextInput:
    is_siglip = kind == "siglip"
    pad_id = _siglip_pad(files) if is_siglip else max(config.text.end_id, 0)
    return TextInput(_tokenizer(files), config.text.context, pad_id, _canonical if is_siglip else _clean)


def _siglip_pad(files: ModelFiles) -> int:
    """SigLIP sees the tokens that fill up a text: the one that its tokenizer names."""
    settings = _json(files, TOKENIZER_CONFIG) if TOKENIZER_CONFIG in files else {}
    pad = settings.get("pad_token", "</s>")
    pad = pad["content"] if isinstance(pad, dict) else pad
    found = _tokenizer(files).token_to_id(pad)
    if found is None:
        raise ValueError(f"{TOKENIZER} has no token {pad!r}, with which texts are filled up")
    return found


def _tokenizer(files: ModelFiles) -> Tokenizer:
    """The tokenizer of a folder, which ends each text by itself, and neither cuts nor fills up."""
    if TOKENIZER in files:
        try:
            tokenizer = Tokenizer.from_str(files[TOKENIZER].read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{TOKENIZER}: {error}") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    if VOCABULARY in files and MERGES in files:
        return _clip_tokenizer(_json(files, VOCABULARY), files[MERGES].read_text(encoding="utf-8").splitlines())
    raise ValueError(
        f"no {TOKENIZER} there, nor {VOCABULARY} and {MERGES}: add those of the model's page; all of CLIP's are alike"
    )


_CLIP_PIECES = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def _clip_tokenizer(vocabulary: dict[str, int], merges: Iterable[str]) -> Tokenizer:
    """CLIP's byte-pair encoding from its two older files."""
    lines = [line.split(" ") for line in merges if line and not line.startswith("#version")]
    pairs = [(first, second) for first, second in lines]
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, unk_token=end, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    return tokenizer
