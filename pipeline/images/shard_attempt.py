"""Attempts at one image shard, of which one is published: a remote engine may run a bundle twice, even at once.

Two attempts fetch different images: what the network gave each of them. Each writes its tar and its Parquet file under
names of its own in the work folder. The first to create the file of the decision wins; whoever comes there publishes
the winner's files under their lasting names, so that all end with the same three files and the same rows.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.images.shard_format import read_metadata
from pipeline.output import files
from pipeline.output.conditional import conditional_file
from pipeline.output.names import SHARDS_FOLDER, UNIT_STATS_SUFFIX, WORK_FOLDER
from pipeline.output.work_folder import digest_of
from pipeline.records import Pair

_ENDINGS = (".tar", ".parquet")


def is_finished(folder: str, number: int, pairs: Sequence[Pair]) -> bool:
    """Whether the shard of these pairs is published."""
    if not files.exists(_stats_path(folder, number)):
        return False
    return {row["pair_key"] for row in read_metadata(folder, number)} == {pair.key for pair in pairs}


@contextlib.contextmanager
def new_attempt(folder: str, number: int, pairs: Sequence[Pair]) -> Iterator[str]:
    """Yields the path, without its ending, for the tar and the Parquet file of an attempt; publishes at the end of the
    block what was decided."""
    attempt = f"{number:05d}-{uuid.uuid4().hex}"
    base = files.join(folder, WORK_FOLDER, SHARDS_FOLDER, attempt)
    yield base
    if not is_finished(folder, number, pairs):  # else another attempt has; the decision may be gone with the job
        conditional_file(_decision_path(folder, number, pairs)).write(attempt.encode(), None)
        publish_decided(folder, number, pairs)
    for ending in _ENDINGS:
        files.remove(base + ending)


def publish_decided(folder: str, number: int, pairs: Sequence[Pair]) -> bool:
    """Publishes the attempt that was decided on, as far as that is not done. Returns whether there is one."""
    if not (found := conditional_file(_decision_path(folder, number, pairs)).read()):
        return False
    if not is_finished(folder, number, pairs):
        files.remove(_stats_path(folder, number))  # of a shard of other pairs
    for ending in _ENDINGS:
        source = files.join(folder, WORK_FOLDER, SHARDS_FOLDER, found.data.decode() + ending)
        files.publish(source, files.join(folder, f"{number:05d}{ending}"))
    statistics = json.dumps(_statistics(read_metadata(folder, number)), indent=4)
    files.write_atomically(_stats_path(folder, number), f"{statistics}\n".encode())
    return True


def _decision_path(folder: str, number: int, pairs: Sequence[Pair]) -> str:
    """Names the pairs as well: another run may divide them into other units."""
    return files.join(folder, WORK_FOLDER, SHARDS_FOLDER, f"{number:05d}-{digest_of(pairs)}")


def _stats_path(folder: str, number: int) -> str:
    return files.join(folder, f"{number:05d}{UNIT_STATS_SUFFIX}")


def _statistics(rows: list[dict]) -> dict:
    """In img2dataset's names, without its times: same images, same bytes."""
    by_status = Counter(row["status"] for row in rows)
    by_reason = Counter(row["reason"] or "success" for row in rows)
    return {
        "count": len(rows),
        "successes": by_status["success"],
        "failed_to_download": by_status["failed_to_download"],
        "failed_to_resize": by_status["failed_to_resize"],
        "status_dict": dict(sorted(by_reason.items())),
    }
