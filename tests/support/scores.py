"""Folders of scores, by the real writer but without a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.output.files import write_file
from pipeline.output.parquet import file_bytes
from pipeline.scores.score_files import schema_of, score_path, write_score_list


def write_scores(output: Path, scores: Mapping[str, Mapping[str, float]], total: int = 3) -> Path:
    """Key -> its scores by name, in `total` files."""
    names = tuple(next(iter(scores.values())))
    groups: list[list[dict]] = [[] for _ in range(total)]
    for key in sorted(scores):
        groups[int(key[:16], 16) * total >> 64].append({"key": key, **scores[key]})
    written = [
        write_file(
            str(output), score_path(number, total), file_bytes(pa.Table.from_pylist(rows, schema=schema_of(names)))
        )
        for number, rows in enumerate(groups)
    ]
    write_score_list(str(output), names, written)
    return output
