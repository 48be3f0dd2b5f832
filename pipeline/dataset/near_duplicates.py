"""Near-duplicates: keeps one image of each set of near-duplicates, and none that is one of an excluded image.

`image_signature` defines a near-duplicate. Candidates meet by key, each pair is compared once, and pairs join to sets:
the outcome depends on the images alone, not on how Beam distributes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Optional

import apache_beam as beam
import numpy as np
from apache_beam.coders import RowCoder, registry

from pipeline.dataset import image_signature
from pipeline.dataset.exclusion_list import ExcludedImage, ExclusionList, read_hashes
from pipeline.records import REJECTED_TAG, EncodedPair, Reason, Rejected, Stage, reject
from pipeline.sources.precedence import source_rank

EXCLUDED_RANK = -1  # comes before every source


@dataclass(frozen=True)
class NearDuplicateConfig:
    near_duplicates: bool = False  # whether to keep only the first of near-duplicates
    exclude: str = ""  # path of a file of hashes, see `read_hashes`

    @property
    def on(self) -> bool:
        return self.near_duplicates or bool(self.exclude)


class ImageNode(NamedTuple):
    """An image. Sorted, the one that is kept comes first."""

    rank: int  # of its source
    file: str  # for an excluded image: its name in the list
    row: int
    key: str


class SignedImage(NamedTuple):
    node: ImageNode
    signature: bytes  # of image_signature


for _record in (ImageNode, SignedImage):
    registry.register_coder(_record, RowCoder)


class DropNearDuplicates(beam.PTransform):
    """Records -> those to keep, without signatures; the others come as rejects under their tag."""

    def __init__(self, config: NearDuplicateConfig):
        self._config = config
        self._hashes = read_hashes(config.exclude) if config.exclude else ExclusionList({}, [])

    def expand(self, records):
        listed = records.pipeline | "Excluded" >> beam.Create(
            [signed_excluded_image(image) for image in self._hashes.images]
        ).with_output_types(SignedImage)
        seen = (
            records | "Signatures" >> beam.FlatMap(signed_images).with_output_types(SignedImage),
            listed,
        ) | "All signatures" >> beam.Flatten()
        candidates = (
            seen
            | "Keys" >> beam.FlatMap(band_entries).with_output_types(tuple[int, bytes])
            | "Same key" >> beam.GroupByKey()
            | "Candidates"
            >> beam.FlatMap(candidates_of, self._config.near_duplicates).with_output_types(tuple[str, str])
            | "Each once" >> beam.Distinct()
        )
        by_key = seen | "By name" >> beam.Map(lambda each: (each.node.key, each)).with_output_types(
            tuple[str, SignedImage]
        )
        half = (
            {"seen": by_key, "others": candidates}
            | "First signature" >> beam.CoGroupByKey()
            | "With first" >> beam.FlatMapTuple(with_signature).with_output_types(tuple[str, SignedImage])
        )
        joined = (
            {"seen": by_key, "others": half}
            | "Second signature" >> beam.CoGroupByKey()
            | "Compare" >> beam.FlatMapTuple(confirmed_pairs).with_output_types(tuple[ImageNode, ImageNode])
        )
        dropped = (
            records.pipeline
            | "Sets once" >> beam.Create([None])
            | "Sets"
            >> beam.FlatMap(lambda _, edges: duplicates_to_drop(edges), beam.pvalue.AsList(joined)).with_output_types(
                tuple[str, ImageNode]
            )
        )
        return records | "Drop" >> beam.ParDo(_Drop(self._hashes.names), beam.pvalue.AsDict(dropped)).with_outputs(
            REJECTED_TAG, main="records"
        )


def signed_image(record: EncodedPair) -> SignedImage:
    return SignedImage(ImageNode(source_rank(record.source), record.file, record.row, record.key), record.signature)


def signed_excluded_image(image: ExcludedImage) -> SignedImage:
    return SignedImage(ImageNode(EXCLUDED_RANK, image.name, image.line, f"excluded {image.sha256}"), image.signature)


def signed_images(record: EncodedPair) -> list[SignedImage]:
    """Empty for a record without a signature, such as one of a dataset that is extended: it is kept."""
    return [signed_image(record)] if record.signature else []


def band_entries(seen: SignedImage) -> Iterator[tuple[int, bytes]]:
    """Every key of an image, with the role of its view (uncropped or a crop), the view's bits, and the image's name."""
    bits = image_signature.hash_bits(image_signature.unpack_signature(seen.signature))
    packed = np.packbits(bits, axis=1)
    done = set()
    for view, keys in enumerate(image_signature.band_keys(bits).tolist()):
        role = b"=" if view == 0 else b"x"
        for key in keys:
            entry = role + packed[view].tobytes() + seen.node.key.encode()
            if (key, entry) not in done:
                done.add((key, entry))
                yield key, entry


def candidates_of(group: tuple[int, Iterable[bytes]], all_pairs: bool) -> Iterator[tuple[str, str]]:
    """Sorted pairs of names of images that share a key, one of them uncropped, and nearly all bits. Without
    `all_pairs`, only pairs with an excluded image."""
    entries = sorted(set(group[1]))
    size = 1 + image_signature.BITS // 8
    bits = np.array([np.frombuffer(entry[1:size], np.uint8) for entry in entries])
    names = [entry[size:].decode() for entry in entries]
    uncropped = [number for number, entry in enumerate(entries) if entry.startswith(b"=")]
    found = set()
    for number in uncropped:
        unequal = np.bitwise_count(bits ^ bits[number]).sum(1)
        for other in np.flatnonzero(unequal <= image_signature.MAX_UNEQUAL_BITS).tolist():
            pair = tuple(sorted((names[number], names[other])))
            excluded = sum(name.startswith("excluded ") for name in pair)
            if pair[0] != pair[1] and excluded < 2 and (all_pairs or excluded):
                found.add(pair)
    yield from sorted(found)


def with_signature(key: str, group: dict[str, list]) -> Iterator[tuple[str, SignedImage]]:
    for seen, other in itertools.product(group["seen"], group["others"]):
        yield other, seen


def confirmed_pairs(key: str, group: dict[str, list]) -> Iterator[tuple[ImageNode, ImageNode]]:
    """The pairs that are near-duplicates."""
    for seen in group["seen"]:
        signature = image_signature.unpack_signature(seen.signature)
        for other in group["others"]:
            if image_signature.is_near_duplicate(signature, image_signature.unpack_signature(other.signature)):
                yield other.node, seen.node


def duplicates_to_drop(edges: Iterable[tuple[ImageNode, ImageNode]]) -> Iterator[tuple[str, ImageNode]]:
    """(key, the image that is kept instead) for every image to drop: of those that pairs join, the first is kept."""
    first: dict[ImageNode, ImageNode] = {}

    def root(node: ImageNode) -> ImageNode:
        while (above := first.setdefault(node, node)) != node:
            first[node] = first[above]
            node = above
        return node

    for one, other in edges:
        a, b = sorted((root(ImageNode(*one)), root(ImageNode(*other))))
        first[b] = a
    for node in sorted(first):
        if root(node) != node:
            yield node.key, root(node)


class _Drop(beam.DoFn):
    def __init__(self, excluded: dict[str, str]):
        self._excluded = excluded

    def process(self, record: EncodedPair, dropped: dict[str, ImageNode]):
        rejected = self._rejection(record, dropped.get(record.key))
        yield (beam.pvalue.TaggedOutput(REJECTED_TAG, rejected) if rejected else record._replace(signature=b""))

    def _rejection(self, record: EncodedPair, instead: Optional[ImageNode]) -> Optional[Rejected]:
        if name := self._excluded.get(record.sha256):
            return reject(record, Stage.ENCODE, Reason.EXCLUDED, f"the same bytes as {name}")
        if instead is None:
            return None
        if instead.rank == EXCLUDED_RANK:
            return reject(record, Stage.ENCODE, Reason.EXCLUDED, f"looks like {instead.file}")
        return reject(record, Stage.ENCODE, Reason.DUPLICATE_IMAGE, f"kept {instead.key}")
