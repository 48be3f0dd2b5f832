"""The scores of pairs on disk: a folder that `pairmill score` wrote.

`scores/NNNNN-of-MMMMM.parquet` have a row for each pair, sorted by key, and a column for each score; of M files each
holds an equal range of keys, so that the scores of a range of keys are in few files. `scores.json` names all files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError

from models.errors import UserError
from pipeline.output import files
from pipeline.output.files import WrittenFile, to_json
from pipeline.output.names import EMBEDDINGS_FOLDER, SCORES_FILE, SCORES_FOLDER

KEY = "key"


class ScoreFile(msgspec.Struct):
    path: str  # below the folder
    bytes: int
    sha256: str


class _ScoreList(msgspec.Struct):
    """The content of scores.json."""

    format: Literal["pairmill-scores"]
    version: Literal[1]
    scores: list[str]  # names of columns
    files: list[ScoreFile]


class Scores(NamedTuple):
    """A finished folder of scores."""

    folder: str
    names: tuple[str, ...]  # of the scores
    paths: tuple[str, ...]  # of the files of scores, by their numbers
    sha256: str  # of scores.json, and so of all files

    @property
    def schema(self) -> pa.Schema:
        return schema_of(self.names)

    def read(self, first_key: str, last_key: str) -> pa.Table:
        """The scores of the keys from first to last, sorted. Raises UserError for a damaged file."""
        total = len(self.paths)
        first, last = (int(key[:16], 16) * total >> 64 for key in (first_key, last_key))
        bounds = [(KEY, ">=", first_key), (KEY, "<=", last_key)]
        tables = [self.read_file(number, filters=bounds) for number in range(first, last + 1)]
        return pa.concat_tables(tables)

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Columns of all scores, file by file, sorted by key. Raises UserError for a damaged file."""
        for number in range(len(self.paths)):
            yield self.read_file(number, columns=columns)

    def read_file(self, number: int, **options: Any) -> pa.Table:
        """The scores of a file, with options of pyarrow's read_table. Raises UserError for a damaged file."""
        return self._read(self.paths[number], schema=self.schema, **options)

    def read_embeddings(self, number: int) -> pa.Table:
        """Keys and embeddings of images of a file: key and image, float16 [E]. Raises UserError for a damaged file."""
        path = score_path(number, len(self.paths), EMBEDDINGS_FOLDER)
        return self._read(path, columns=[KEY, "image"])

    def _read(self, name: str, **options: Any) -> pa.Table:
        path = files.join(self.folder, *name.split("/"))
        try:
            with files.open_read(path) as file:
                return pq.read_table(file, partitioning=None, **options)
        except (OSError, BeamIOError, ValueError, KeyError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} is not readable: {reason}; run the same `pairmill score` again") from None


def schema_of(names: tuple[str, ...]) -> pa.Schema:
    """The columns of files of scores: the key and a float32 for each score, null where a pair has none."""
    return pa.schema([(KEY, pa.string()), *((name, pa.float32()) for name in names)])


def open_scores(folder: str, with_embeddings: bool = False) -> Scores:
    """Raises UserError unless the folder is what a finished `pairmill score` wrote, if asked for with embeddings."""
    path = files.join(folder, SCORES_FILE)
    if not files.exists(path):
        raise UserError(f"--scores {folder}: no {SCORES_FILE} there; run `pairmill score` to its end first")
    data = files.read(path)
    try:
        content = msgspec.json.decode(data, type=_ScoreList)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UserError(f"--scores {folder}: {SCORES_FILE} is damaged: {error}; run `pairmill score` again") from None
    paths = sorted(file.path for file in content.files if file.path.startswith(f"{SCORES_FOLDER}/"))
    expected = [score_path(number, len(paths)) for number in range(len(paths))]
    if not paths or paths != expected:
        raise UserError(f"--scores {folder}: {SCORES_FILE} does not name all files; run `pairmill score` again")
    embeddings = {file.path for file in content.files if file.path.startswith(f"{EMBEDDINGS_FOLDER}/")}
    if with_embeddings and len(embeddings) != len(paths):
        raise UserError(f"--scores {folder}: has no embeddings; run `pairmill score` with --model")
    return Scores(folder, tuple(content.scores), tuple(paths), hashlib.sha256(data).hexdigest())


def score_path(number: int, total: int, folder: str = SCORES_FOLDER) -> str:
    return f"{folder}/{number:05d}-of-{total:05d}.parquet"


def write_score_list(output: str, names: tuple[str, ...], written: list[WrittenFile]) -> None:
    """Writes scores.json, which lists the files."""
    listed = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in sorted(written)]
    content = {"format": "pairmill-scores", "version": 1, "scores": list(names), "files": listed}
    files.write_atomically(files.join(output, SCORES_FILE), to_json(content))


def join_scores(table: pa.Table, scores: pa.Table) -> pa.Table:
    """The rows of `table`, in their order, with the scores of their keys; nulls for a key that has none."""
    places = pc.index_in(table[KEY], scores[KEY])
    for name in scores.schema.names:
        if name != KEY:
            table = table.append_column(scores.schema.field(name), scores[name].take(places))
    return table
