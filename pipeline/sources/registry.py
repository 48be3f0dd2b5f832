"""The sources by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.sources import cc3m, img2dataset, wit_base
from pipeline.sources import cc12m as sources_cc12m
from pipeline.sources import wikipedia_dump as sources_wikipedia_dump
from pipeline.sources import wit as sources_wit
from pipeline.sources import yfcc100m as sources_yfcc100m
from pipeline.sources.cc12m import Cc12mSettings
from pipeline.sources.readers import Row
from pipeline.sources.wikipedia_dump import DumpSettings
from pipeline.sources.wit import WitSettings
from pipeline.sources.yfcc100m import YfccSettings


@dataclass(frozen=True)
class Source:
    name: str
    read: Callable[..., Iterator[Row]]  # (decompressed stream, file's base name)
    of_lines: bool = False  # one line a row, so that a big file can be read in ranges
    seeks: bool = False  # its files are read from several places


@dataclass(frozen=True)
class SourceSettings:
    """What a user may choose of single sources."""

    yfcc100m: YfccSettings = sources_yfcc100m.DEFAULT
    wikipedia_dump: DumpSettings = sources_wikipedia_dump.DEFAULT
    cc12m: Cc12mSettings = sources_cc12m.DEFAULT
    wit: WitSettings = sources_wit.DEFAULT


DEFAULTS = SourceSettings()
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(cc3m.NAME, cc3m.read, of_lines=True),
        Source(sources_cc12m.NAME, sources_cc12m.read, of_lines=True),
        Source(sources_yfcc100m.NAME, sources_yfcc100m.read, of_lines=True),
        Source(sources_wit.NAME, sources_wit.read),
        Source(wit_base.NAME, wit_base.read, seeks=True),
        Source(sources_wikipedia_dump.NAME, sources_wikipedia_dump.read),
        Source(img2dataset.NAME, img2dataset.read, seeks=True),
    )
}
