"""A tiny dataset on disk, as `pairmill build` would leave it, made without Beam, images or a trained tokenizer."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.data.format import Manifest, Shard, pack_sample, tar_bytes
from models.tokenizers.info import ImageTokenizerInfo, TextTokenizerInfo, square
from models.tokenizers.text import TextTokenizer
from models.training.train_bpe import train_bpe

SUBJECTS = ("red cat", "green house", "blue boat", "grey stone", "old tree", "small bird", "round table", "long road")
CAPTIONS = tuple(f"A {subject} in the {place}" for subject in SUBJECTS for place in ("snow", "rain", "sun", "dark"))
SOURCES = ("cc3m", "cc12m", "wit")  # of the pairs of a shard, in turn

DISTINCT_CAPTIONS = tuple(
    f"A {size} {subject} in the {place}"
    for size in ("large", "little")
    for subject in SUBJECTS
    for place in ("snow", "rain", "sun", "dark")
)


def tiny_text_tokenizer() -> TextTokenizer:
    return TextTokenizer(train_bpe(CAPTIONS, 300))


def write_dataset(
    directory: Path,
    train: Sequence[int] = (12, 12),
    val: Sequence[int] = (4,),
    *,
    draws: int = 1,
    image: ImageTokenizerInfo | None = None,
    max_tokens: int = 16,
    seed: int = 0,
    captions: Sequence[str] = CAPTIONS,
    codes: Callable[[int], np.ndarray] | None = None,
) -> Manifest:
    """Writes shards with the given numbers of pairs. A pair's codes follow from its caption, with a little noise: a
    model can learn them; `codes` gives others for the pair of a number. Captions repeat."""
    text = tiny_text_tokenizer()
    image = image or ImageTokenizerInfo("none", "0" * 64, vocabulary=32, shape=square(4), image_size=32)
    noise = np.random.RandomState(seed)
    shards = []
    for split, counts in (("train", train), ("val", val)):
        (directory / split).mkdir(parents=True)
        for number, pairs in enumerate(counts):
            path = f"{split}/{number:05d}-of-{len(counts):05d}.tar"
            data = tar_bytes(
                (
                    *_sample(
                        f"{split}/{number}/{i}",
                        captions[i % len(captions)],
                        text,
                        max_tokens,
                        (codes(i) if codes else _ramps(i % len(captions), image, draws, noise)).astype(image.code_type),
                    ),
                    SOURCES[i % len(SOURCES)],
                )
                for i in range(pairs)
            )
            (directory / path).write_bytes(data)
            sources = collections.Counter(SOURCES[i % len(SOURCES)] for i in range(pairs))
            shards.append(Shard(path, split, pairs, len(data), hashlib.sha256(data).hexdigest(), dict(sources)))
    info = TextTokenizerInfo(text.info.fingerprint, text.info.vocabulary, max_tokens)
    manifest = Manifest(tuple(shards), image, info, draws, settings={}, versions={})
    (directory / "text_tokenizer.json").write_bytes(text.text.encode())
    write_manifest(directory, manifest)
    return manifest


def write_manifest(directory: Path, manifest: Manifest) -> None:
    (directory / "manifest.json").write_text(manifest.to_json())


def _ramps(start: int, image: ImageTokenizerInfo, draws: int, noise: np.random.RandomState) -> np.ndarray:
    ramp = np.arange(image.shape.count) // 2 + 3 * start
    return (ramp + noise.randint(0, 2, (draws, image.shape.count))) % image.vocabulary


def _sample(name: str, caption: str, text: TextTokenizer, max_tokens: int, codes: np.ndarray) -> tuple[str, bytes]:
    tokens = np.array(text.encode(caption)[:max_tokens], "<u2")
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    return key, pack_sample(caption, tokens.tobytes(), codes.tobytes(), len(codes))
