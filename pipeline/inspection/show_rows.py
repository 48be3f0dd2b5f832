"""Chooses pairs and rejected rows of a dataset to show, and reads them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models import files
from models.data import format
from models.data.format import INDEX_FOLDER, Manifest, Sample
from models.errors import UserError
from models.pixels import CropBox, apply_crop, seeded_randint
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.fetcher import fetch_images
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import ANY_IMAGE
from pipeline.output.names import PAIRS_FOLDER, REJECTS_FOLDER
from pipeline.output.parquet import read_columns, read_schema
from pipeline.output.schemas import INDEX, PAIRS
from pipeline.records import Pair, Rejected, Stage

REJECTS_PER_REASON = 3  # sample rows for one reason
SAME_RATIO = 0.02  # relative: rounding when a small image's sides become whole pixels


class PairQuery(NamedTuple):
    """Which pairs to show. Keys are shown in their order and all of them; otherwise `number` pairs are sampled."""

    number: int
    seed: int = 0
    keys: tuple[str, ...] = ()
    source: Optional[str] = None
    search: Optional[str] = None  # text in the caption, in any case

    def __str__(self) -> str:
        """As on the command line."""
        given = [f"--key {key}" for key in self.keys]
        given += [f"--source {self.source}"] * (self.source is not None)
        given += [f"--search {self.search!r}"] * (self.search is not None)
        return " ".join(given)


def sample_indices(total: int, count: int, seed: str) -> list[int]:
    """`count` different numbers below `total`, or all of them, shuffled: the same for the same seed everywhere."""
    integers = seeded_randint(seed)
    moved: dict[int, int] = {}  # a shuffle of range(total), of which only the positions touched are kept
    picks = []
    for i in range(min(count, total)):
        j = integers(i, total)
        picks.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return picks


# --- pairs -----------------------------------------------------------------------------------------------------------


def choose_pairs(directory: str, manifest: Manifest | None, query: PairQuery) -> list[dict[str, Any]]:
    """Rows of the index; without a manifest, of what select left. Raises UserError if there are none, or not each of
    the keys."""
    columns = [
        name
        for name, given in (
            ("key", query.keys),
            ("source", query.source is not None),
            ("caption", query.search is not None),
        )
        if given
    ]
    paths = list(_parts(directory, manifest, INDEX_FOLDER if manifest else PAIRS_FOLDER))
    found = [np.flatnonzero(_matches(_read(path, columns or ["row"]), query)) for path in paths]
    starts = np.cumsum([0, *map(len, found)])
    if not starts[-1] and not query.keys:
        raise UserError(f"{directory}: " + (f"no pair matches {query}" if columns else "the dataset holds no pairs"))
    picks = sample_indices(int(starts[-1]), len(query.keys) or query.number, f"show/{query.seed}")
    files = (np.searchsorted(starts, picks, "right") - 1).tolist()
    rows: dict[int, dict[str, Any]] = {}
    for i in sorted(set(files)):
        here = [pick for pick, file in zip(picks, files, strict=True) if file == i]
        taken = _read(paths[i], (INDEX if manifest else PAIRS).names).take(found[i][np.array(here) - starts[i]])
        rows.update(zip(here, taken.to_pylist(), strict=True))
    return _by_keys(directory, rows.values(), query) if query.keys else [rows[pick] for pick in picks]


def _matches(table: pa.Table, query: PairQuery) -> np.ndarray:
    mask = np.ones(len(table), bool)
    if query.keys:
        mask &= pc.is_in(table["key"], value_set=pa.array(query.keys)).to_numpy()
    if query.source is not None:
        mask &= pc.equal(table["source"], query.source).to_numpy()
    if query.search is not None:
        mask &= pc.match_substring(table["caption"], query.search, ignore_case=True).to_numpy()
    return mask


def _by_keys(directory: str, rows: Iterable[dict[str, Any]], query: PairQuery) -> list[dict[str, Any]]:
    by_key = {row["key"]: row for row in rows}
    if missing := [key for key in query.keys if key not in by_key]:
        others = query._replace(keys=())
        raise UserError(f"{directory}: no pair has the key {missing[0]}" + f" and matches {others}" * bool(str(others)))
    return [by_key[key] for key in dict.fromkeys(query.keys)]


def read_samples(directory: str, manifest: Manifest, rows: list[dict[str, Any]]) -> dict[str, Sample]:
    """The samples of rows of the index, by key. Raises UserError if the shards lack one."""
    known, code_type = {shard.path for shard in manifest.shards}, manifest.image_tokenizer.code_type
    found: dict[str, Sample] = {}
    for path in sorted({row["shard"] for row in rows}):
        missing = {row["key"] for row in rows if row["shard"] == path}
        shard = files.join(directory, path)
        try:
            for sample in format.read_token_shard(shard, code_type) if path in known else ():
                if sample.key in missing:
                    missing.remove(sample.key)
                    found[sample.key] = sample
                if not missing:
                    break
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}; `pairmill verify` lists all damage") from None
        if missing:
            raise UserError(f"{path} lacks the pair {min(missing)} of the index; `pairmill verify` lists all damage")
    return found


def _parts(directory: str, manifest: Manifest | None, folder: str) -> Iterable[str]:
    if manifest is None:
        return stage_files(directory, folder)
    return (files.join(directory, file.path) for file in manifest.files if file.path.startswith(f"{folder}/"))


def stage_files(directory: str, folder: str) -> list[str]:
    """The Parquet files that select or fetch left in one of its folders."""
    base = files.join(directory, folder)
    return [files.join(base, name) for name in files.list_files(base) if name.endswith(".parquet")]


def _read(path: str, columns: list[str]) -> pa.Table:
    with _as_user_error(path):
        return read_columns(path, columns)


def _read_schema(path: str) -> pa.Schema:
    with _as_user_error(path):
        return read_schema(path)


@contextlib.contextmanager
def _as_user_error(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable: {error}; `pairmill verify` lists all damage") from None


# --- rejected rows ---------------------------------------------------------------------------------------------------


def choose_rejects(
    directory: str, manifest: Manifest | None, seed: int, source: str | None = None
) -> list[dict[str, Any]]:
    """Up to REJECTS_PER_REASON rows of rejects/*.parquet for each stage and reason. Holds one file at a time."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in _parts(directory, manifest, REJECTS_FOLDER):
        table = _read_rejects(path)
        if source is not None:
            table = table.filter(pc.equal(table["source"], source))
        for row in _few_of_each(table, f"rejects/{seed}/{os.path.basename(path)}"):
            groups.setdefault((row["stage"], row["reason"]), []).append(row)
    stages = [stage.value for stage in Stage]
    ordered = sorted(groups.items(), key=lambda group: (stages.index(group[0][0]), group[0][1]))
    return [
        rows[i]
        for (stage, reason), rows in ordered
        for i in sorted(sample_indices(len(rows), REJECTS_PER_REASON, f"rejects/{seed}/{stage}/{reason}"))
    ]


def _read_rejects(path: str) -> pa.Table:
    """The columns to show of a file of rejects; captions are empty in one of an earlier version, which has none."""
    columns = ["stage", "reason", "source", "file", "row", "url", "detail"]
    if "raw_caption" in _read_schema(path).names:
        return _read(path, [*columns, "raw_caption"])
    table = _read(path, columns)
    return table.append_column("raw_caption", pa.array([""] * len(table), pa.string()))


def _few_of_each(table: pa.Table, seed: str) -> list[dict[str, Any]]:
    kinds = table.group_by(["stage", "reason"]).aggregate([]).to_pylist()
    picks = []
    for kind in sorted(kinds, key=lambda kind: (kind["stage"], kind["reason"])):
        mask = pc.and_(pc.equal(table["stage"], kind["stage"]), pc.equal(table["reason"], kind["reason"]))
        positions = np.flatnonzero(mask.to_numpy())
        picks += positions[
            sample_indices(len(positions), REJECTS_PER_REASON, f"{seed}/{kind['stage']}/{kind['reason']}")
        ].tolist()
    return table.take(picks).to_pylist() if picks else []


def fetch_originals(rows: list[dict[str, Any]], size: int, config: FetchConfig) -> dict[str, np.ndarray | str]:
    """Key -> the crop from which draw 0 was made, uint8 [size, size, 3], downloaded again; or why it is missing."""
    by_key = {row["key"]: row for row in rows}
    found: dict[str, np.ndarray | str] = {}
    for outcome in fetch_images([_pair(row) for row in rows], config, ANY_IMAGE):
        if isinstance(outcome, Rejected):
            found[outcome.key] = outcome.reason
        else:
            found[outcome.pair.key] = original_crop(outcome, by_key[outcome.pair.key], size)
    return found


def original_crop(image: FetchedImage, row: dict[str, Any], size: int) -> np.ndarray | str:
    """The crop of draw 0, uint8 [size, size, 3], or why it cannot be made from these bytes."""
    if image.sha256 != row["sha256"]:
        return "no longer the same file"
    if not row["crop_boxes"]:
        return "encoded elsewhere: its crop is not known"
    rgb_HWC, wide, high = image.rgb_HWC, row["width"], row["height"]
    if rgb_HWC.shape[:2] != (high, wide):  # the boxes are those of a smaller copy (`pairmill fetch --resize`)
        if abs(rgb_HWC.shape[1] / rgb_HWC.shape[0] * high / wide - 1) > SAME_RATIO:
            return "another size than the index says"
        rgb_HWC = cv2.resize(rgb_HWC, (wide, high), interpolation=cv2.INTER_AREA)
    return apply_crop(rgb_HWC, CropBox._make(row["crop_boxes"][0]), size)


def _pair(row: dict[str, Any]) -> Pair:
    fields = {name: row[name] for name in Pair._fields if name in row}
    return Pair(**fields, fallback_urls=(), raw_caption="")
