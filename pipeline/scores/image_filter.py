"""What is decided on whole images where they are encoded: bounds on scores that are computed there, and faces. An image
is decoded once for all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from apache_beam.utils.shared import Shared

from models.files import sha256_of
from pipeline import tokenizer_files
from pipeline.images.faces import FaceDetector, blurred
from pipeline.images.fetched import FetchedImage
from pipeline.output.counts import BLURRED, counts_of
from pipeline.records import Reason, Rejected, Stage, reject
from pipeline.scores import scorer
from pipeline.scores.bounds import Bound, bound_settings, out_of_bounds
from pipeline.scores.scorer import PairScorer, ScoreConfig
from pipeline.tokenizer_files import StagedFile

Outcomes = Iterable[FetchedImage | Rejected]
BLUR, REJECT = "blur", "reject"


@dataclasses.dataclass(frozen=True)
class FaceConfig:
    """What to do with images that show faces."""

    action: str  # BLUR or REJECT
    model: str  # path of YuNet's ONNX file
    copy: tuple[StagedFile, ...] = ()  # of that file, for workers on other machines

    @property
    def settings(self) -> dict[str, Any]:
        return {"action": self.action, "model": sha256_of(self.model)}

    def load(self) -> FaceDetector:
        return FaceDetector(*tokenizer_files.fetch(self.copy) if self.copy else (self.model,))


@dataclasses.dataclass(frozen=True)
class ImageFilterConfig:
    """Which scores to compute, and their bounds; what to do with faces."""

    scoring: ScoreConfig | None = None
    bounds: tuple[Bound, ...] = ()
    faces: FaceConfig | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest records of it."""
        scores = scorer.score_settings(self.scoring) | bound_settings(self.bounds) if self.scoring else None
        parts = {"scores": scores, "faces": self.faces.settings if self.faces else None}
        return {name: part for name, part in parts.items() if part}

    def for_other_machines(self, output: str) -> ImageFilterConfig:
        """The same for workers that get the files of models by the output's work folder."""
        scoring = scorer.stage_files(self.scoring, output) if self.scoring else None
        faces = self.faces
        if faces:
            faces = dataclasses.replace(faces, copy=tokenizer_files.stage(output, [Path(faces.model)]))
        return dataclasses.replace(self, scoring=scoring, faces=faces)


class ImageFilter:
    """Scores images as `pairmill score` does, and rejects those out of bounds; then blurs or rejects faces."""

    def __init__(self, config: ImageFilterConfig, output: str):
        """`output` is the job's, in whose progress blurred images are counted."""
        self._config, self._output = config, output
        self._scorer = PairScorer(config.scoring) if config.scoring else None
        self._faces = config.faces.load() if config.faces else None
        self._rejects_faces = bool(config.faces and config.faces.action == REJECT)

    def filter(self, outcomes: Iterable[FetchedImage | Rejected]) -> Iterator[FetchedImage | Rejected]:
        """The images that are kept and the rejects of the others, in order; rejects pass through."""
        within = self._within_bounds(self._scorer, outcomes) if self._scorer else outcomes
        return self._without_faces(self._faces, within) if self._faces else iter(within)

    def _within_bounds(self, pair_scorer: PairScorer, outcomes: Outcomes) -> Iterator[FetchedImage | Rejected]:
        for scored in pair_scorer.score_images(outcomes):
            if isinstance(scored, Rejected):
                yield scored
                continue
            image, pair = scored
            numbers = np.frombuffer(pair.values, "<f4").tolist()
            values = dict(zip(pair_scorer.names, numbers, strict=True))
            rejection = out_of_bounds(self._config.bounds, values)
            yield reject(image.pair, Stage.ENCODE, *rejection) if rejection else image

    def _without_faces(self, detector: FaceDetector, outcomes: Outcomes) -> Iterator[FetchedImage | Rejected]:
        for outcome in outcomes:
            boxes = [] if isinstance(outcome, Rejected) else detector.find(outcome.rgb_HWC)
            if isinstance(outcome, Rejected) or not boxes:
                yield outcome
            elif self._rejects_faces:
                yield reject(outcome.pair, Stage.ENCODE, Reason.FACE, f"{len(boxes)} found")
            else:
                counts_of(self._output).add({BLURRED: 1})
                yield outcome._replace(rgb_HWC=blurred(outcome.rgb_HWC, boxes))
            del outcome  # else this name would hold its memory until the next outcome arrives


class SharedFilter:
    """A filter, or none, for the steps of a job: its models are loaded once a process, however many threads it has."""

    def __init__(self, config: ImageFilterConfig | None, output: str):
        self._config, self._output, self._shared = config, output, Shared()

    def load(self) -> Callable[[Outcomes], Outcomes]:
        if not self._config:
            return _unchanged
        return self._shared.acquire(partial(ImageFilter, self._config, self._output)).filter


def _unchanged(outcomes: Outcomes) -> Outcomes:
    return outcomes
