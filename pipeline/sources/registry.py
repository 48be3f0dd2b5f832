"""The sources by name, in order of precedence: of several pairs with one image, that of the first source stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.sources.cc3m import Cc3m
from pipeline.sources.cc12m import Cc12m
from pipeline.sources.img2dataset import Img2dataset
from pipeline.sources.redcaps import RedCaps
from pipeline.sources.sbu import Sbu
from pipeline.sources.source import Source
from pipeline.sources.table import Table
from pipeline.sources.wikipedia_dump import WikipediaDump
from pipeline.sources.wit import Wit
from pipeline.sources.wit_base import WitBase
from pipeline.sources.yfcc100m import Yfcc100m

SOURCES: dict[str, Source[Any]] = {
    source.name: source
    for source in (
        Cc3m(),
        Cc12m(),
        Yfcc100m(),
        Wit(),
        WitBase(),
        WikipediaDump(),
        Img2dataset(),
        RedCaps(),
        Sbu(),
        Table(),
    )
}

SourceSettings = Mapping[str, Any]
"""The settings of sources by name; a source that is missing has its defaults."""
DEFAULTS: SourceSettings = {}
