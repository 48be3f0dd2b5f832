"""The sources by name: each reads its published files as they are and yields one element for every row.

`pieces` says what there is to read, `rows_of` reads one piece; both work without Beam. Rows are numbered from 0 in the
file's order, a recognised header line is no row, and bad data is a `Rejected`, never an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from models.errors import UserError
from pipeline.sources import cc3m, cc12m, img2dataset, wit, wit_base, yfcc100m
from pipeline.sources.tables import Row, base_name, expand, open_source

SQLITE_ROWS = 500_000
"""Rows of a sqlite database that one piece holds."""


@dataclass(frozen=True)
class Source:
    name: str
    read: Callable[..., Iterator[Row]]  # (decompressed stream, file's base name, **settings)


class Piece(NamedTuple):
    """What one worker reads at a time: a file, or a range of a database's row ids."""

    source: str
    path: str
    first: Optional[int] = None  # row ids [first, stop) of a sqlite database; None: the whole file
    stop: Optional[int] = None


SOURCES: dict[str, Source] = {
    module.NAME: Source(module.NAME, module.read) for module in (cc3m, cc12m, yfcc100m, wit, wit_base, img2dataset)
}
RANK: dict[str, int] = {name: rank for rank, name in enumerate(SOURCES)}
"""Of pairs with one picture, the one of the source with the lowest rank stays."""


def pieces(name: str, pattern: str) -> list[Piece]:
    """What a pattern of a source has to read, in the order of the files' names."""
    if name not in SOURCES:
        raise UserError(f"no source is called {name}: choose one of {', '.join(SOURCES)}")
    found = []
    for path in expand(img2dataset.metadata_pattern(pattern) if name == img2dataset.NAME else pattern):
        if name == yfcc100m.NAME and "://" not in path and yfcc100m.is_sqlite(path):
            found += [Piece(name, path, *ids) for ids in yfcc100m.sqlite_ranges(path, SQLITE_ROWS)]
        else:
            found.append(Piece(name, path))
    return found


def rows_of(piece: Piece, settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """The rows of a piece. `settings` has a source's own by its name: {"yfcc100m": {"caption": "title"}}."""
    own = settings.get(piece.source, {})
    file = base_name(piece.path)
    if piece.first is not None and piece.stop is not None:
        yield from yfcc100m.read_sqlite(piece.path, file, piece.first, piece.stop, **own)
        return
    with open_source(piece.path) as stream:
        yield from SOURCES[piece.source].read(stream, file, **own)
