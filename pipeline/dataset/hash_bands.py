"""Pairs of images that may be near-duplicates: those of which the uncropped one and a view of the other share a band of
their perceptual hashes, and nearly all other bits (locality-sensitive hashing by bands).

Entries of one band meet in a group. Comparing all of a group takes the square of its size, and that of the list: a
crowded group is divided by the bits of each further band, so that its pairs have to share two bands, or more, until the
groups are small. So the cost of an image hardly depends on the number of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.dataset import image_signature

CROWDED = 2048
"""Entries of a group that is divided further, if it has more. Of 17,000 images no group has."""
MAX_UNEQUAL_CROWDED = 16
"""Bits of image_signature.BITS in which candidates of a divided group may differ. Of 187 near-duplicates, drawn from
17,000 images, that share two bands or more, none differs in more than 15."""
BANDS = image_signature.BITS // image_signature.BAND_BITS
CROPPED, EXCLUDED = 1, 2  # flags of an entry
PAIRS_AT_ONCE = 1 << 20

ENTRIES = pa.schema(
    [
        ("band", pa.uint32()),  # a key of image_signature.band_keys
        ("bits", pa.binary(image_signature.BITS // 8)),
        ("flags", pa.uint8()),
        ("image", pa.uint64()),
    ]
)
"""A view of an image in the group of one of its bands."""


class Entries(NamedTuple):
    """Columns of entries, and the group in which each is."""

    group: np.ndarray  # int64
    band: np.ndarray  # int64: number of the last band that the group shares
    bits: np.ndarray  # uint64 [N, 2]
    flags: np.ndarray  # uint8
    image: np.ndarray  # uint64

    def take(self, which: np.ndarray) -> Entries:
        return Entries._make(column[which] for column in self)


def band_entries(signatures: Sequence[bytes], images: np.ndarray, flags: np.ndarray) -> pa.Table:
    """ENTRIES of all views of some images, each kind of view once. `images`: uint64 [N]; `flags`: uint8 [N]."""
    views = np.stack([image_signature.hash_bits(image_signature.unpack_signature(one)) for one in signatures])
    packed = np.packbits(views, axis=2)
    words = _words(packed)
    earlier = np.tril(np.ones(2 * views.shape[1:2], bool), -1)
    equal = (words[:, :, None] == words[:, None]).all(3) & earlier
    image, view = np.nonzero(~equal.any(2))
    keys = image_signature.band_keys(views[image, view])
    entry = np.repeat(np.arange(len(image)), BANDS)
    bits = pa.FixedSizeBinaryArray.from_buffers(
        ENTRIES.field("bits").type, len(entry), [None, pa.py_buffer(packed[image, view][entry].tobytes())]
    )
    view_flags = flags[image] | np.where(view > 0, CROPPED, 0).astype(np.uint8)
    columns = [keys.ravel().astype(np.uint32), bits, view_flags[entry], images[image][entry]]
    return pa.Table.from_arrays(list(map(pa.array, columns)), schema=ENTRIES)


def group_hash(band: np.ndarray) -> np.ndarray:
    """uint64 [N]: spreads the groups evenly, each with its own hash (Fibonacci hashing)."""
    return band.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def _words(packed: np.ndarray) -> np.ndarray:
    """uint8 [..., 12] as uint64 [..., 2]."""
    padded = np.zeros((*packed.shape[:-1], 16), np.uint8)
    padded[..., : packed.shape[-1]] = packed
    return padded.view(np.uint64)


def candidates_of(entries: pa.Table, all_pairs: bool) -> tuple[np.ndarray, int]:
    """Pairs of images, uint64 [P, 2], each once and sorted; and how many entries of crowded groups, all of whose bits
    are equal, were left out. The entries are all of their groups, in any order. Without `all_pairs`, only pairs with an
    excluded image are looked for."""
    level, limit, found = _entries_of(entries), image_signature.MAX_UNEQUAL_BITS, [np.empty((0, 2), np.uint64)]
    for _ in range(BANDS - 1):
        crowded = np.bincount(level.group)[level.group] > CROWDED if len(level.group) else np.zeros(0, bool)
        found += _close_pairs(level.take(~crowded), limit, all_pairs)
        level, limit = _divide(level.take(crowded)), MAX_UNEQUAL_CROWDED
    too_many = _place_in_group(level) >= CROWDED  # of entries that have all bits in common
    found += _close_pairs(level.take(~too_many), limit, all_pairs)
    return np.unique(np.concatenate(found), axis=0), int(too_many.sum())


def _entries_of(entries: pa.Table) -> Entries:
    band, flags, image = (entries[name].to_numpy() for name in ("band", "flags", "image"))
    bits = entries["bits"].combine_chunks()
    packed = np.frombuffer(bits.buffers()[1] or b"", np.uint8).reshape(-1, image_signature.BITS // 8)
    packed = packed[bits.offset : bits.offset + len(bits)]
    order = np.lexsort((flags, image, band))
    _, group = np.unique(band[order], return_inverse=True)
    number = band[order].astype(np.int64) >> image_signature.BAND_BITS
    return Entries(group=group, band=number, bits=_words(packed)[order], flags=flags[order], image=image[order])


def _place_in_group(level: Entries) -> np.ndarray:
    """The position of each entry in its group; the entries are sorted by group."""
    starts = np.flatnonzero(np.diff(level.group, prepend=-1))
    return np.arange(len(level.group)) - np.repeat(starts, np.diff(starts, append=len(level.group)))


def _divide(level: Entries) -> Entries:
    """The entries of crowded groups, once for each band behind the last, in groups that share that band as well. Where
    there is none behind, the pairs that share more bands are in other groups."""
    parts = []
    for band in range(1, BANDS):
        here = level.take(level.band < band)
        values = here.bits.view(np.uint16)[:, band].astype(np.int64)
        parts.append(here._replace(group=(here.group * BANDS + band) << 16 | values, band=np.full(len(values), band)))
    together = Entries._make(map(np.concatenate, zip(*parts, strict=True)))
    order = np.lexsort((together.flags, together.image, together.group))
    together = together.take(order)
    _, group = np.unique(together.group, return_inverse=True)
    alone = np.bincount(group)[group] < 2 if len(group) else group.astype(bool)
    together = together._replace(group=group).take(~alone)
    return together._replace(group=np.unique(together.group, return_inverse=True)[1])


def _close_pairs(level: Entries, limit: int, all_pairs: bool) -> Iterator[np.ndarray]:
    """Sorted pairs of images of one group, one of them uncropped, that differ in at most `limit` bits."""
    starts = np.flatnonzero(np.diff(level.group, prepend=-1))
    sizes = np.diff(starts, append=len(level.group))
    uncropped = np.flatnonzero(level.flags & CROPPED == 0)
    number = np.cumsum(np.diff(level.group, prepend=-1) != 0) - 1  # of the group, among those that are left
    counts = sizes[number[uncropped]]
    ends = np.cumsum(counts)
    first = 0
    while first < len(uncropped):
        before = ends[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + PAIRS_AT_ONCE, "right")))
        one = np.repeat(uncropped[first:stop], counts[first:stop])
        offsets = np.arange(len(one)) - np.repeat(ends[first:stop] - counts[first:stop] - before, counts[first:stop])
        other = starts[number[one]] + offsets
        yield _close(level, one, other, limit, all_pairs)
        first = stop


def _close(level: Entries, one: np.ndarray, other: np.ndarray, limit: int, all_pairs: bool) -> np.ndarray:
    unequal = np.bitwise_count(level.bits[one] ^ level.bits[other]).sum(1)
    excluded = (level.flags[one] & EXCLUDED > 0).astype(int) + (level.flags[other] & EXCLUDED > 0)
    wanted = (unequal <= limit) & (level.image[one] != level.image[other]) & (excluded < 2)
    if not all_pairs:
        wanted &= excluded > 0
    pairs = np.stack([level.image[one[wanted]], level.image[other[wanted]]], 1)
    return np.unique(np.sort(pairs, axis=1), axis=0)
