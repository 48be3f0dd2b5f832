"""Images and captions to records: K crops by Listing 2, their codes, the caption's tokens."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import imagehash  # the field's perceptual hash (DCT of the grey image)
import numpy as np
import torch
from apache_beam.utils.shared import Shared
from PIL import Image

from models import pixels
from models.tokenizers.gpus import device_of_process
from models.tokenizers.image import ComputeOptions, ImageTokenizer, is_bundled, load_image_tokenizer
from models.tokenizers.image import tokenizer_files as files_of_tokenizer
from models.tokenizers.info import require_same_tokenizer
from models.tokenizers.text import TextTokenizer
from pipeline import tokenizer_files
from pipeline.dataset import image_signature
from pipeline.dataset.existing import ExistingDataset, known_keys
from pipeline.dataset.finish import ManifestFields
from pipeline.fetch import stored_shards
from pipeline.images.fetched import FetchedImage
from pipeline.images.prepared_images import PreparedImage
from pipeline.images.validate import ImageConfig
from pipeline.output.counts import Step, counts_of
from pipeline.output.work_folder import CompletedUnits, resume_unit, unit_name
from pipeline.records import REJECTED_TAG, EncodedPair, Pair, Rejected, Stage, reject
from pipeline.scores.bounds import ScoreFilter
from pipeline.scores.image_filter import ImageFilterConfig, SharedFilter
from pipeline.tokenizer_files import StagedFile
from pipeline.version import decisive_versions


def dataset_parts(encode: EncodeConfig, settings: dict[str, Any], sources: set[str]) -> ManifestFields:
    """Loads both tokenizers, so that a wrong one is reported before the job starts; on the CPU, since only workers need
    a GPU. Raises UserError."""
    images, text = load_image_tokenizer(encode.image_tokenizer), _text_tokenizer(encode)
    return ManifestFields(
        image_tokenizer=images.info,
        text_tokenizer=text.info,
        text_tokenizer_json=text.text,
        draws=encode.draws,
        settings=settings,
        versions=decisive_versions(),
        sources=tuple(sorted(sources)),
    )


def prepare_workers(encode: EncodeConfig, parts: ManifestFields, output: str, on_other_machines: bool) -> EncodeConfig:
    """The configuration for workers, which must have the same tokenizers. Those on other machines get the image
    tokenizer's files by the output's work folder."""
    fingerprints = parts.image_tokenizer.fingerprint, parts.text_tokenizer.fingerprint
    staged: tuple[StagedFile, ...] = ()
    if on_other_machines and not is_bundled(encode.image_tokenizer):
        staged = tokenizer_files.stage(output, files_of_tokenizer(encode.image_tokenizer))
    return dataclasses.replace(encode, fingerprints=fingerprints, image_files=staged)


def _text_tokenizer(encode: EncodeConfig) -> TextTokenizer:
    return TextTokenizer(encode.text_tokenizer) if encode.text_tokenizer else TextTokenizer.load()


CROP_RECIPE = "listing-2/1"  # changes whenever the boxes of a key would


@dataclasses.dataclass(frozen=True)
class EncodeConfig:
    image_tokenizer: str  # SPEC
    text_tokenizer: str = ""  # content of a tokenizer.json; empty: the one of the package
    draws: int = 1  # crops stored for each image
    computing: ComputeOptions = dataclasses.field(default_factory=ComputeOptions)
    centre_first: bool = False  # the first draw is the centre square instead of a random one
    batch_size: int = 64  # views that a GPU computes at once; a CPU computes them one by one
    threads: int = 1  # CPU threads of one worker process; the codes do not depend on it
    with_signatures: bool = False  # whether records carry the signature by which near-duplicates are found
    image_files: tuple[StagedFile, ...] = ()  # copies of the SPEC's files; none: the worker reads those of the SPEC
    fingerprints: tuple[str, ...] = ()  # of image and text tokenizer, as the manifest has them; none: any


def prepare_each(
    outcomes: Iterable[FetchedImage | Rejected], size: int, config: EncodeConfig
) -> Iterator[PreparedImage | Rejected]:
    """Prepares images for a tokenizer of `size` x `size` px; rejects pass through. Holds no image between two."""
    return map(lambda row: row if isinstance(row, Rejected) else prepare(row, size, config), outcomes)


def prepare(image: FetchedImage, size: int, config: EncodeConfig) -> PreparedImage:
    """Crops and hashes an image, after which its pixels are no longer needed."""
    key, rgb_HWC = image.pair.key, image.rgb_HWC
    height, width = rgb_HWC.shape[:2]
    boxes = [
        pixels.transformer_crop(width, height, size, pixels.seeded_randint(f"{key}/{draw}"))
        for draw in range(config.draws)
    ]
    if config.centre_first:
        boxes[0] = pixels.centre_crop(width, height, size)
    views = np.stack([pixels.apply_crop(rgb_HWC, box, size) for box in boxes])
    phash = str(imagehash.phash(Image.fromarray(rgb_HWC)))
    signature = image_signature.compute_signature(rgb_HWC) if config.with_signatures else b""
    return PreparedImage(
        pair=image.pair,
        width=width,
        height=height,
        sha256=image.sha256,
        phash=phash,
        boxes=boxes,
        views=views,
        signature=signature,
    )


class StageTimer:
    """Measures the seconds of a unit: for its images (reading or fetching, decoding, cropping) and in the model."""

    def __init__(self) -> None:
        self.seconds = {"pictures_s": 0.0, "model_s": 0.0}
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - started

    def all(self) -> dict[str, float]:
        """The measured seconds, and under `write_s` the remaining ones, which BPE and writing take."""
        remaining = time.perf_counter() - self._started - sum(self.seconds.values())
        return self.seconds | {"write_s": remaining}


class PairEncoder:
    """Both tokenizers, loaded, with the recipe for crops.

    Codes don't depend on order or number of workers: one thread computes each image by itself, so that sums are always
    split alike. Several images at once use the cores.
    """

    def __init__(self, config: EncodeConfig):
        torch.set_num_threads(1)
        computing = dataclasses.replace(config.computing, device=device_of_process(config.computing.device))
        copies = tokenizer_files.fetch(config.image_files)
        self.images: ImageTokenizer = load_image_tokenizer(config.image_tokenizer, computing, copies)
        self.text = _text_tokenizer(config)
        self._check_fingerprints(config.fingerprints)
        self._config = config
        # One thread is the caller's own: handing each image to another takes a tenth of a millisecond.
        pool = concurrent.futures.ThreadPoolExecutor(config.threads, "encode") if config.threads > 1 else None
        self._map: Callable[..., Iterator[np.ndarray]] = pool.map if pool else map
        # More than one for each thread, so that none waits for the slowest image, nor a GPU for a full batch.
        at_once = config.batch_size if self.images.on_accelerator else 4 * config.threads
        self._images_at_once = max(1, at_once // config.draws) if self.images.on_accelerator else at_once

    def _check_fingerprints(self, expected: tuple[str, ...]) -> None:
        problem, fix = "a worker has another tokenizer than the launcher", "install the same version of pairmill there"
        actual = self.images.info.fingerprint, self.text.info.fingerprint
        for own, fingerprint in zip(actual, expected, strict=False):
            require_same_tokenizer(own, fingerprint, problem, fix)

    def encode(
        self, outcomes: Iterable[FetchedImage | Rejected], timer: StageTimer | None = None
    ) -> Iterator[EncodedPair | Rejected]:
        """Encodes fetched images to records; rejects pass through. Adds the time of each step to `timer`."""
        return self.encode_prepared(prepare_each(outcomes, self.images.info.image_size, self._config), timer)

    def encode_prepared(
        self, outcomes: Iterable[PreparedImage | Rejected], timer: StageTimer | None = None
    ) -> Iterator[EncodedPair | Rejected]:
        """As `encode`, of images whose crops are made."""
        timer = timer or StageTimer()
        waiting: list[PreparedImage] = []
        outcomes = iter(outcomes)
        while True:
            with timer.timed("pictures_s"):
                if (outcome := next(outcomes, None)) is None:
                    break
                if not isinstance(outcome, Rejected):
                    waiting.append(outcome)
            if isinstance(outcome, Rejected):
                yield outcome
            elif len(waiting) == self._images_at_once:
                yield from self._records(waiting, timer)
                waiting = []
        yield from self._records(waiting, timer)

    def _records(self, waiting: list[PreparedImage], timer: StageTimer) -> Iterator[EncodedPair]:
        if not waiting:
            return
        with timer.timed("model_s"):
            codes = list(self._codes([view for image in waiting for view in image.views]))
        draws = self._config.draws
        for number, image in enumerate(waiting):
            yield self._record(image, np.stack(codes[number * draws : (number + 1) * draws]))

    def _codes(self, views: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the codes of each view, in order."""
        if not self.images.on_accelerator:
            yield from self._map(self.images.encode, views)
            return
        size = self._config.batch_size
        for start in range(0, len(views), size):
            yield from self.images.encode_batch(np.stack(views[start : start + size]), size)

    def _record(self, image: PreparedImage, codes: np.ndarray) -> EncodedPair:
        pair = image.pair
        return EncodedPair(
            key=pair.key,
            split=pair.split,
            source=pair.source,
            file=pair.file,
            row=pair.row,
            url=pair.url,
            caption=pair.caption,
            width=image.width,
            height=image.height,
            licence=pair.licence,
            page_url=pair.page_url,
            sha256=image.sha256,
            phash=image.phash,
            codes=codes.astype(self.images.info.code_type).tobytes(),
            tokens=np.asarray(self.text.encode(pair.caption), "<u2").tobytes(),
            boxes=[number for box in image.boxes for number in box],
            signature=image.signature,
            other_captions=pair.other_captions,
        )


class UnitProgress:
    """Counts the images of one unit as they are encoded, for the progress line."""

    def __init__(self, output: str, step: Step, pairs: int):
        self.timer = StageTimer()
        self._counts, self._step = counts_of(output), step
        self._pairs, self._fresh, self._spent = pairs, 0, self.timer.all()

    def count(self, outcomes: Iterable[EncodedPair | Rejected]) -> Iterator[EncodedPair | Rejected]:
        for outcome in outcomes:
            self._fresh += 1
            self._counts.step(self._step, done=1, work=1 / max(1, self._pairs))
            self._count_time()
            yield outcome

    def finish(self) -> None:
        """Counts the other pairs as found done, and the time for writing."""
        before = max(0, self._pairs - self._fresh)
        self._counts.step(self._step, before=before, work_before=before / self._pairs if self._pairs else 1.0)
        self._count_time()

    def _count_time(self) -> None:
        spent = self.timer.all()
        self._counts.add({name: spent[name] - self._spent[name] for name in spent})
        self._spent = spent


class EncodingDoFn(beam.DoFn):
    """Loads the tokenizers once a process; yields records, and rejects under their tag."""

    STEP: Step

    def __init__(self, output: str, encode: EncodeConfig, image_filter: ImageFilterConfig | None = None):
        self._output, self._store, self._config = output, CompletedUnits(output), encode
        self._shared = Shared()  # one model a process, however many threads
        self._filtering = SharedFilter(image_filter, output)

    def setup(self) -> None:
        self._encoder = self._shared.acquire(partial(PairEncoder, self._config))
        self._filter = self._filtering.load()

    def _finish(
        self, name: str, pairs: Sequence[Pair], read: Callable[[list[Pair]], Iterable[FetchedImage | Rejected]]
    ):
        """Records and rejects of a unit, whose images `read` yields."""
        progress = UnitProgress(self._output, self.STEP, len(pairs))

        def encode(pending: list[Pair]) -> Iterator[EncodedPair | Rejected]:
            return progress.count(self._encoder.encode(self._filter(read(pending)), progress.timer))

        records, rejects = resume_unit(name, pairs, self._store, encode)
        progress.finish()
        yield from records
        for row in rejects:
            yield beam.pvalue.TaggedOutput(REJECTED_TAG, row)


class EncodeImageShard(EncodingDoFn):
    """Shard of images -> the records of its images, without those in `existing` and those that `scores` rejects."""

    STEP = Step.ENCODE

    def __init__(
        self,
        output: str,
        image_config: ImageConfig,
        encode: EncodeConfig,
        existing: Sequence[ExistingDataset] = (),
        scores: ScoreFilter | None = None,
        image_filter: ImageFilterConfig | None = None,
    ):
        super().__init__(output, encode, image_filter)
        self._image_config, self._existing, self._scores = image_config, existing, scores

    def setup(self) -> None:
        super().setup()
        self._known = [known_keys(dataset, unfetched=False) for dataset in self._existing]
        self._lookup = self._scores.lookup.open() if self._scores else None

    def process(self, path: str):
        new = (row for row in stored_shards.list_rows(path) if not any(row.key in keys for keys in self._known))
        rows = [self._within_bounds(row) for row in new]
        for row in rows:
            if isinstance(row, Rejected):
                yield beam.pvalue.TaggedOutput(REJECTED_TAG, row)
        name = unit_name(path)
        pairs = [row for row in rows if isinstance(row, Pair)]
        yield from self._finish(name, pairs, partial(self._images, path))

    def _within_bounds(self, row: Pair | Rejected) -> Pair | Rejected:
        """A pair, or its reject if its scores are out of bounds."""
        if self._scores and self._lookup and isinstance(row, Pair):
            rejection = self._scores.rejection(row.key, self._lookup.scores_of(row.key))
            return reject(row, Stage.ENCODE, *rejection) if rejection else row
        return row

    def _images(self, path: str, pairs: list[Pair]) -> Iterator[FetchedImage | Rejected]:
        return stored_shards.read_images(path, pairs, self._image_config)
