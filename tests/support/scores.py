"""Folders of scores, by the real writer but without a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.output.files import write_file
from pipeline.output.ledger import KEPT, READ, build_ledger, write_ledger
from pipeline.output.parquet import file_bytes
from pipeline.scores.score_files import EMBEDDINGS_FOLDER, schema_of, score_path, write_score_list


def write_scores(
    output: Path, scores: Mapping[str, Mapping[str, float | None]], total: int = 3, with_embeddings: bool = False
) -> Path:
    """Key -> its scores by name, in `total` files; with embeddings also the ledger, as `pairmill cluster` wants it."""
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
    if with_embeddings:
        written += [
            write_file(str(output), score_path(number, total, EMBEDDINGS_FOLDER), file_bytes(_embeddings(rows)))
            for number, rows in enumerate(groups)
        ]
        counts = [(("wit", column, ""), len(scores)) for column in (READ, KEPT)]
        write_ledger(str(output), build_ledger(counts, []))
    write_score_list(str(output), names, written)
    return output


def _embeddings(rows: list[dict], width: int = 4) -> pa.Table:
    values = np.ones(len(rows) * width, np.float16)
    return pa.table(
        {
            "key": pa.array([row["key"] for row in rows], pa.string()),
            "image": pa.FixedSizeListArray.from_arrays(pa.array(values), width),
        }
    )
