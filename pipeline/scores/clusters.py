"""Semantic duplicates: how close each image's embedding comes to one that is kept before it.

As SemDeDup (Abbas and others, 2023) does, embeddings are divided into clusters by k-means, and compared with each other
within a cluster alone. Of two images the one whose caption fits better, by the score clip, goes first. The score
`redundancy` of an image is its largest cosine with one that goes first: a bound on it drops duplicates, and which bound
is right can be looked at afterwards.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa

from models.errors import UserError
from pipeline.output.counts import Step, counts_of
from pipeline.output.files import WrittenFile, write_file
from pipeline.output.parquet import file_bytes
from pipeline.output.spill import (
    HASH,
    HashRange,
    HashRanges,
    SpillFile,
    read_spilled,
    spill_path,
    write_spill,
)
from pipeline.scores.score_files import KEY, Scores, schema_of, score_path
from pipeline.scores.scorer import SIMILARITY

REDUNDANCY = "redundancy"
ALONE = -1.0
"""The redundancy of an image that goes first in its cluster: the least cosine that there is."""
IMAGES_PER_CLUSTER = 2000
MAX_CLUSTERS = 4096
SAMPLES_PER_CLUSTER = 64  # embeddings that k-means reads: as many as faiss wants
MAX_SAMPLES = 1 << 17  # 256 MB at 512 numbers
ITERATIONS, SEED = 20, 1
BLOCK = 1024  # images that are compared at once; fixed, since sums of other blocks may round differently
ROWS_PER_GROUP = 50_000


class Centres(NamedTuple):
    """The centres of clusters, float32 [K, E], of length 1."""

    numbers_KE: np.ndarray

    def nearest(self, embeddings_BE: np.ndarray) -> np.ndarray:
        """The cluster of each embedding, float32 [B, E], block by block; int64 [B]."""
        blocks = [
            (_block(embeddings_BE, first) @ self.numbers_KE.T).argmax(axis=1)
            for first in range(0, len(embeddings_BE), BLOCK)
        ]
        return np.concatenate([np.empty(0, np.int64), *blocks])[: len(embeddings_BE)]


def _block(embeddings_BE: np.ndarray, first: int) -> np.ndarray:
    """BLOCK embeddings from one on, filled up with zeros."""
    block_BE = embeddings_BE[first : first + BLOCK]
    return np.concatenate([block_BE, np.zeros((BLOCK - len(block_BE), block_BE.shape[1]), np.float32)])


def find_centres(scores: Scores) -> Centres:
    """Clusters by k-means on a sample: the first keys of each file, which are hashes. Raises UserError for a damaged
    file, and if there are so many pairs that it takes faiss, which is not installed."""
    pairs = sum(len(table) for table in scores.tables([KEY]))
    clusters = max(1, min(MAX_CLUSTERS, pairs // IMAGES_PER_CLUSTER))
    sample_BE = _sample(scores, min(1.0, min(MAX_SAMPLES, clusters * SAMPLES_PER_CLUSTER) / max(1, pairs)))
    if clusters == 1:
        return Centres(np.ones((1, sample_BE.shape[1]), np.float32))
    try:
        import faiss
    except ImportError as error:
        raise UserError(f"clusters of {pairs:,} images need faiss ({error}): pip install '.[scores]'") from None
    faiss.omp_set_num_threads(1)  # sums of several threads may round differently
    kmeans = faiss.Kmeans(
        sample_BE.shape[1], clusters, niter=ITERATIONS, seed=SEED, spherical=True, min_points_per_centroid=1
    )
    kmeans.train(sample_BE)
    return Centres(np.ascontiguousarray(kmeans.centroids, np.float32))


def _sample(scores: Scores, share: float) -> np.ndarray:
    parts = []
    for number in range(len(scores.paths)):
        embeddings_BE = _images(scores.read_embeddings(number))
        parts.append(embeddings_BE[: int(np.ceil(share * len(embeddings_BE)))].astype(np.float32))
    return np.concatenate(parts)


def _images(table: pa.Table) -> np.ndarray:
    """The embeddings of images, float16 [B, E]."""
    column = table["image"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


# --- on Beam ---------------------------------------------------------------------------------------------------------


class WithRedundancy(beam.PTransform):
    """Pipeline -> files of scores with the column `redundancy`, as WrittenFiles."""

    def __init__(self, scores: Scores, centres: Centres, output: str):
        self._scores, self._centres, self._output = scores, centres, output

    def expand(self, pipeline):
        total = len(self._scores.paths)
        by_cluster = (
            pipeline
            | "Embeddings" >> beam.Create(range(total))
            | "Spread" >> beam.Reshuffle()
            | "Cluster" >> beam.Map(assign, self._scores, self._centres, self._output).with_output_types(SpillFile)
        )
        by_key = (
            by_cluster
            | "Clusters" >> HashRanges(ROWS_PER_GROUP)
            | "Compare"
            >> beam.Map(compare, beam.pvalue.AsList(by_cluster), _width(self._centres), self._output).with_output_types(
                SpillFile
            )
        )
        return (
            pipeline
            | "Files" >> beam.Create([HashRange(number, number + 1, total) for number in range(total)])
            | "Spread files" >> beam.Reshuffle()
            | "Write"
            >> beam.Map(write_scores, beam.pvalue.AsList(by_key), self._scores, self._output).with_output_types(
                WrittenFile
            )
        )


def _width(centres: Centres) -> int:
    return centres.numbers_KE.shape[1]


def _clustered(width: int) -> pa.Schema:
    """The rows of a cluster. `rank` orders them: the larger clip first."""
    fields = [(KEY, pa.string()), ("clip", pa.float32()), ("cluster", pa.int64())]
    return pa.schema([*fields, ("image", pa.list_(pa.float16(), width))])


REDUNDANT = pa.schema([(KEY, pa.string()), (REDUNDANCY, pa.float32())])


def assign(number: int, scores: Scores, centres: Centres, output: str) -> SpillFile:
    """Spills the embeddings of a file by their clusters."""
    table = scores.read_embeddings(number)
    clusters_B = centres.nearest(_images(table).astype(np.float32))
    clip = scores.read_file(number, columns=[SIMILARITY])[SIMILARITY]
    step = 2**64 // len(centres.numbers_KE)
    hashes = pa.array([int(cluster) * step for cluster in clusters_B], pa.uint64())
    columns = [table[KEY], clip, pa.array(clusters_B, pa.int64()), table["image"], hashes]
    names = [KEY, "clip", "cluster", "image", HASH]
    counts_of(output).step(Step.CLUSTER, done=len(table))
    return write_spill(output, spill_path(), pa.table(dict(zip(names, columns, strict=True))))


def compare(group: HashRange, spills: list[SpillFile], width: int, output: str) -> SpillFile:
    """Spills the redundancy of each image of some whole clusters, by key."""
    table = read_spilled(output, spills, _clustered(width), *group.bounds)
    table = table.sort_by([("cluster", "ascending"), ("clip", "descending"), (KEY, "ascending")])
    clusters_B, images_BE = table["cluster"].to_numpy(), _images(table)
    edges = [0, *(np.flatnonzero(np.diff(clusters_B)) + 1).tolist(), len(table)]
    found = [redundancy(images_BE[first:stop]) for first, stop in itertools.pairwise(edges)]
    hashes = pa.array([int(key[:16], 16) for key in table[KEY].to_pylist()], pa.uint64())
    redundancy_B = np.concatenate([np.empty(0, np.float32), *found])
    return write_spill(output, spill_path(), pa.table({KEY: table[KEY], REDUNDANCY: redundancy_B, HASH: hashes}))


def redundancy(images_BE: np.ndarray) -> np.ndarray:
    """The largest cosine of each image with one before it, float32 [B]; ALONE for the first. Embeddings are float16."""
    largest_B = np.full(len(images_BE), ALONE, np.float32)
    for first in range(0, len(images_BE), BLOCK):
        rows_BE = _block(images_BE[first : first + BLOCK].astype(np.float32), 0)
        for before in range(0, first + 1, BLOCK):
            cosines_BB = rows_BE @ _block(images_BE[before : before + BLOCK].astype(np.float32), 0).T
            if before == first:
                cosines_BB[_not_before()] = ALONE
            count = len(images_BE[first : first + BLOCK])
            largest_B[first : first + BLOCK] = np.maximum(largest_B[first : first + BLOCK], cosines_BB[:count].max(1))
    return largest_B


@functools.cache
def _not_before() -> np.ndarray:
    """For each image of a block which are itself or behind it, bool [BLOCK, BLOCK]."""
    return np.triu(np.ones((BLOCK, BLOCK), bool))


def write_scores(group: HashRange, spills: list[SpillFile], scores: Scores, output: str) -> WrittenFile:
    """Writes a file of scores with the redundancy of its pairs."""
    found = read_spilled(output, spills, REDUNDANT, *group.bounds).sort_by(KEY)
    table = scores.read_file(group.first)
    if not table[KEY].equals(found[KEY]):
        raise UserError(f"{scores.folder}: its scores and embeddings have other keys; run `pairmill score` again")
    table = table.append_column(REDUNDANCY, found[REDUNDANCY]).cast(schema_of((*scores.names, REDUNDANCY)))
    return write_file(output, score_path(group.first, group.total), file_bytes(table))
