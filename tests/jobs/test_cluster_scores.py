"""`pairmill cluster`: the redundancy of each image, the same bytes for any number of workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import cluster_scores
from models.errors import UserError
from pipeline.output.files import write_file
from pipeline.output.ledger import KEPT, READ, build_ledger, write_ledger
from pipeline.output.parquet import file_bytes, table_bytes
from pipeline.output.schemas import REJECTS
from pipeline.records import Rejected
from pipeline.scores import clusters
from pipeline.scores.clusters import ALONE, redundancy
from pipeline.scores.score_files import schema_of, score_path, write_score_list
from tests.support.paths import files_of

GROUPS, OF_A_GROUP, WIDTH = 40, 8, 16


def embeddings() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Sorted keys, float16 [N, WIDTH] in groups of close ones, and the score clip of each."""
    random = np.random.RandomState(0)
    centres = random.standard_normal((GROUPS, WIDTH))
    vectors = np.repeat(centres, OF_A_GROUP, axis=0) + random.standard_normal((GROUPS * OF_A_GROUP, WIDTH)) * 0.02
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = [f"{number:032x}" for number in sorted(int(x) << 80 for x in random.randint(0, 2**47, len(vectors)))]
    order = random.permutation(len(vectors))
    return keys, vectors[order].astype(np.float16), random.rand(len(vectors)).astype(np.float32)


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> Path:
    """As `pairmill score` writes them, in three files; one row was rejected."""
    folder = tmp_path_factory.mktemp("scores") / "out"
    keys, vectors, clip = embeddings()
    written = []
    for number in range(3):
        rows = [i for i, key in enumerate(keys) if int(key[:16], 16) * 3 >> 64 == number]
        own = [keys[i] for i in rows]
        table = pa.Table.from_arrays([pa.array(own), pa.array(clip[rows])], schema=schema_of(("clip",)))
        image = pa.FixedSizeListArray.from_arrays(pa.array(vectors[rows].ravel(), pa.float16()), WIDTH)
        for kind, content in (("scores", table), ("embeddings", pa.table({"key": own, "image": image}))):
            written.append(write_file(str(folder), score_path(number, 3, kind), file_bytes(content)))
    rejected = Rejected(
        key="0" * 32,
        source="wit",
        file="wit.tsv",
        row=1,
        url="http://x/",
        stage="select",
        reason="not_english",
        detail="",
    )
    write_file(str(folder), "rejects/00000-of-00001.parquet", table_bytes([rejected], REJECTS))
    write_score_list(str(folder), ("clip",), written)
    counts = [(("wit", READ, ""), len(keys) + 1), (("wit", KEPT, ""), len(keys)), (("wit", "select", "not_english"), 1)]
    write_ledger(str(folder), build_ledger(counts, []))
    return folder


def cluster(scores: Path, output: Path, *arguments: str, workers: int = 1) -> Path:
    options = [f"--scores={scores}", f"--output={output}", f"--direct_num_workers={workers}", *arguments]
    assert cluster_scores.main(options) == 0
    return output


@pytest.mark.parametrize("count", [1, 5, clusters.BLOCK, 2 * clusters.BLOCK + 7])
def test_redundancy_is_that_of_all_pairs(count):
    vectors = np.random.RandomState(1).standard_normal((count, 8))
    images = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    cosines = np.tril(images.astype(np.float64) @ images.astype(np.float64).T, -1)
    cosines[np.triu_indices(count)] = ALONE
    assert redundancy(images) == pytest.approx(cosines.max(axis=1), abs=1e-6)


def test_the_best_of_each_group_is_kept(scores, tmp_path):
    """Without k-means, which so few pairs do not need."""
    output = cluster(scores, tmp_path / "out")
    rows = [row for path in sorted((output / "scores").iterdir()) for row in pq.read_table(path).to_pylist()]
    keys, vectors, clip = embeddings()
    order = sorted(range(len(keys)), key=lambda i: (-clip[i], keys[i]))
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    expected = {keys[i]: max((cosines[i, j] for j in order[:place]), default=ALONE) for place, i in enumerate(order)}
    assert {row["key"]: row["redundancy"] for row in rows} == pytest.approx(expected, abs=1e-6)
    assert sum(row["redundancy"] < 0.95 for row in rows) == GROUPS
    assert json.loads((output / "ledger.json").read_text()) == json.loads((scores / "ledger.json").read_text())


def test_bytes_do_not_depend_on_workers_or_repeated_bundles(scores, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="needs the extra `scores`")
    monkeypatch.setattr(clusters, "IMAGES_PER_CLUSTER", 32)  # of the launcher, which finds the centres
    one = cluster(scores, tmp_path / "one")
    two = cluster(scores, tmp_path / "two", "--direct_runner_bundle_repeat=1", workers=2)
    assert files_of(one) == files_of(two)
    rows = [row for path in sorted((one / "scores").iterdir()) for row in pq.read_table(path).to_pylist()]
    assert GROUPS <= sum(row["redundancy"] < 0.95 for row in rows) <= GROUPS + 8  # a group may lie on an edge


def test_without_faiss(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "IMAGES_PER_CLUSTER", 32)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"clusters of 320 images need faiss .* pip install '.\[scores\]'"):
        cluster(scores, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scores_without_embeddings(scores, tmp_path):
    content = json.loads((scores / "scores.json").read_text())
    content["files"] = [file for file in content["files"] if file["path"].startswith("scores/")]
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "scores.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no embeddings; run `pairmill score` with --model"):
        cluster(tmp_path / "scores", tmp_path / "out")
