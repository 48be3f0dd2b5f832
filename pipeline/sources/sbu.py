"""SBU Captions (Ordonez et al. 2011), https://www.cs.rice.edu/~vo9/sbucaptions: a million photos of Flickr.

`sbu-captions-all.json`, also in its tar.gz: one object of lists side by side, `image_urls`, `user_ids` and `captions`,
on one line. Copies as Parquet or CSV have `image_url` and `caption`."""

from __future__ import annotations

from pipeline.sources.source import NoSettings
from pipeline.sources.table_source import TableSource

NAME = "sbu"


class Sbu(TableSource[NoSettings]):
    """SBU Captions as a source of select."""

    name = NAME
    settings = NoSettings()
