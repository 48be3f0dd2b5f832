"""Files of images as the input of encode: those of `pairmill fetch`, whose pairs were selected before, and those of
img2dataset, whose rows become pairs as in `build`, without its checks of captions.

A shard is named by its tar, if it has one, else by its Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from models.errors import UserError
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.fetcher import read_checked
from pipeline.filters import Check, SelectConfig, check_url, filter_candidate
from pipeline.images import shard_reader
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import ImageConfig
from pipeline.records import Pair, Reason, Rejected, Stage, reject
from pipeline.sources import img2dataset
from pipeline.sources.paths import base_name, map_files
from pipeline.sources.readers import open_seekable, parquet_columns
from pipeline.sources.tar_names import is_tar

FORMS = "give the folder, tars or Parquet files that `pairmill fetch` or img2dataset wrote"


def find_image_shards(pattern: str) -> list[str]:
    """The shards of a folder, a path or a glob, sorted. Raises UserError if there are none or if one has no images."""
    try:
        tables = img2dataset.files(pattern)
    except UserError as error:
        raise UserError(f"--images {pattern}: {error}; {FORMS}") from None
    paths = map_files(lambda path: path if is_tar(path) else img2dataset.tar_beside(path) or path, tables)
    if shard_reader.fetch_output_of(tars := [path for path in paths if is_tar(path)]):
        return tars  # a Parquet file alone is of a unit without a single image, whose rejects are in the ledger
    map_files(partial(_check_form, pattern), paths)
    return paths


def _check_form(pattern: str, path: str) -> None:
    if is_tar(path):
        return
    if not path.endswith(".parquet"):
        raise UserError(
            f"--images {pattern}: {path} is neither a tar nor a Parquet file; narrow the pattern, or {FORMS}"
        )
    with open_seekable(path) as stream:
        if not img2dataset.image_store(path, parquet_columns(stream)):
            raise UserError(
                f"--images {pattern}: {path} has no images: no column jpg, png or webp, no tar or folder of its name; "
                "encode img2dataset's formats webdataset, files and parquet; give a list of URLs to `pairmill build`"
            )


def list_rows(path: str) -> Iterator[Pair | Rejected]:
    """The rows of a shard: pairs that have an image there, and rejects."""
    if shard_reader.is_of_fetch(path):
        yield from shard_reader.list_pairs(path)
        return
    table = img2dataset.table_of(path)
    with open_seekable(table, from_tar=False) as stream:
        for row, failure in img2dataset.read_stated(stream, base_name(table), table):
            outcome = (
                row if isinstance(row, Rejected) else filter_candidate(row, SelectConfig(), checks=(Check(check_url),))
            )
            if isinstance(outcome, Pair) and not outcome.stored_at:
                outcome = reject(outcome, Stage.FETCH, Reason.NOT_STORED, failure)
            yield outcome


def read_images(path: str, pairs: Iterable[Pair], config: ImageConfig) -> Iterator[FetchedImage | Rejected]:
    """The images of pairs of a shard, or why they can't be used."""
    if not shard_reader.is_of_fetch(path):
        yield from read_checked(pairs, FetchConfig(), config)
        return
    yield from shard_reader.read_images(path, config, {pair.key for pair in pairs})
