"""Images and captions to scores, with the measures and models that a job names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from apache_beam.coders import RowCoder, registry

from models.device import kind_of
from models.errors import UserError
from models.files import sha256_of
from models.scoring import measures
from models.scoring.embedder import Embedder, Embeddings, cosines
from models.scoring.heads import Head, load_head
from models.scoring.model_folder import LoadedModel, fingerprint, load_model, model_files
from models.tokenizers.gpus import device_of_process
from pipeline import tokenizer_files
from pipeline.images.fetched import FetchedImage
from pipeline.records import Pair, Rejected
from pipeline.tokenizer_files import StagedFile

SIMILARITY = "clip"
"""The score that is the cosine of the embeddings of an image and its caption, whichever model computes them."""


class ScoredPair(NamedTuple):
    """A pair with its scores: what it takes to write them, and to reject it if its key comes twice."""

    key: str
    source: str
    file: str
    row: int
    url: str
    caption: str
    values: bytes  # float32 little-endian, in the order of the names; NaN for a score that the pair lacks
    image: bytes  # float16 little-endian [E], of length 1; empty without a model
    text: bytes


registry.register_coder(ScoredPair, RowCoder)


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Which scores a job computes, and how."""

    model: tuple[str, ...] = ()  # paths of a model's files; none: no model
    heads: tuple[tuple[str, str], ...] = ()  # names of scores, and the paths of their files
    device: str = "cpu"
    threads: int = 1  # CPU threads of one worker process; the scores do not depend on it
    copies: tuple[tuple[str, StagedFile], ...] = ()  # names and copies of all files, for workers on other machines

    @property
    def names(self) -> tuple[str, ...]:
        """The scores, in the order of their columns."""
        similarity = (SIMILARITY,) if self.model else ()
        return (*measures.NAMES, *similarity, *(name for name, _ in self.heads))


def score_config(model: str | None, heads: Sequence[tuple[str, str]], device: str, threads: int) -> ScoreConfig:
    """Raises UserError for a model or heads that are missing, damaged or do not fit together."""
    files = model_files(model) if model else {}
    config = ScoreConfig(tuple(map(str, files.values())), tuple(heads), device, threads)
    names = [name for name, _ in heads]
    if not model and heads:
        raise UserError(f"--head {names[0]}: scores the embeddings of a model; name one by --model")
    for name, number in Counter(config.names).items():
        if number > 1:
            raise UserError(f"--head {name}: another score has this name; choose another one")
    _load(config)
    return config


def score_settings(config: ScoreConfig) -> dict[str, Any]:
    """What decides the scores, as the output's settings record it."""
    files = {Path(path).name: Path(path) for path in config.model}
    return {
        "scores": list(config.names),
        "model": fingerprint(files) if files else "",
        "heads": {name: sha256_of(path) for name, path in config.heads},
        "device": kind_of(config.device),
    }


def stage_files(config: ScoreConfig, output: str) -> ScoreConfig:
    """The configuration for workers on other machines, which get all files by the output's work folder."""
    paths = [Path(path) for path in (*config.model, *(path for _, path in config.heads))]
    staged = tokenizer_files.stage(output, paths)
    return dataclasses.replace(config, copies=tuple(zip(map(str, paths), staged, strict=True)))


def _load(config: ScoreConfig) -> tuple[LoadedModel | None, dict[str, Head]]:
    """The model and the heads, from copies where there are some."""
    paths = [path for path, _ in config.copies]
    copies = dict(zip(paths, tokenizer_files.fetch([file for _, file in config.copies]), strict=True))
    if not config.model:
        return None, {}
    model = load_model({Path(path).name: copies.get(path, Path(path)) for path in config.model})
    width = model.network.config.embedding
    return model, {name: load_head(copies.get(path, path), width) for name, path in config.heads}


class PairScorer:
    """All models, loaded. Batches are filled in the order of the pairs: see `models.scoring.embedder`."""

    def __init__(self, config: ScoreConfig):
        model, self._heads = _load(config)
        device = device_of_process(config.device)
        self._embedder = Embedder(model, device, config.threads) if model else None
        self._at_once = self._embedder.batch_size * config.threads if self._embedder else 1
        self.names = config.names

    def score(self, outcomes: Iterable[FetchedImage | Rejected]) -> Iterator[ScoredPair | Rejected]:
        """Scores fetched images with their captions, in order; rejects pass through."""
        for outcome in self.score_images(outcomes):
            yield outcome if isinstance(outcome, Rejected) else outcome[1]

    def score_images(
        self, outcomes: Iterable[FetchedImage | Rejected]
    ) -> Iterator[tuple[FetchedImage, ScoredPair] | Rejected]:
        """The same, each with its image."""
        waiting: list[FetchedImage] = []
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                yield outcome
                continue
            waiting.append(outcome)
            if len(waiting) == self._at_once:
                yield from zip(waiting, self._score_all(waiting), strict=True)
                waiting = []
        if waiting:
            yield from zip(waiting, self._score_all(waiting), strict=True)

    def _score_all(self, images: list[FetchedImage]) -> Iterator[ScoredPair]:
        embeddings = _embed(self._embedder, images) if self._embedder else None
        by_model = self._model_scores(embeddings) if embeddings else {}
        for number, image in enumerate(images):
            values = _measure(image) | {name: float(scores[number]) for name, scores in by_model.items()}
            yield self._scored(image.pair, values, number, embeddings)

    def _model_scores(self, embeddings: Embeddings) -> dict[str, np.ndarray]:
        heads = {name: head(embeddings.image_BE) for name, head in self._heads.items()}
        return {SIMILARITY: cosines(embeddings)} | heads

    def _scored(
        self, pair: Pair, values: dict[str, float | None], number: int, embeddings: Embeddings | None
    ) -> ScoredPair:
        numbers = [values[name] for name in self.names]
        image, text = (each[number].astype("<f2").tobytes() for each in embeddings) if embeddings else (b"", b"")
        return ScoredPair(
            key=pair.key,
            source=pair.source,
            file=pair.file,
            row=pair.row,
            url=pair.url,
            caption=pair.caption,
            values=np.array([np.nan if value is None else value for value in numbers], "<f4").tobytes(),
            image=image,
            text=text,
        )


def _embed(embedder: Embedder, images: list[FetchedImage]) -> Embeddings:
    return embedder.embed([embedder.prepare(image.rgb_HWC, image.pair.caption) for image in images])


def _measure(image: FetchedImage) -> dict[str, float | None]:
    return measures.measure_image(image.rgb_HWC, image.data) | measures.measure_caption(image.pair.caption)
