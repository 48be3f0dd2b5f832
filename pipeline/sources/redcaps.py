"""RedCaps (Desai et al. 2021), https://redcaps.xyz: 12 million posts of Reddit with an image.

A zip of `annotations/SUBREDDIT_YEAR.json`, or these files: `{"info": ..., "annotations": [...]}`, a record a post with
`image_id`, `author`, `url`, `raw_caption` (the post's title), `caption` (in lower case, without brackets and
emoji), `subreddit`, `score`, `created_utc`, `permalink`, `crosspost_parents`. Copies as Parquet or JSON lines have the
same names."""

from __future__ import annotations

from pipeline.sources.source import NoSettings
from pipeline.sources.table_source import Columns, TableSource

NAME = "redcaps"


class RedCaps(TableSource[NoSettings]):
    """RedCaps as a source of select. The title as it was written comes first: its case is kept."""

    name = NAME
    settings = NoSettings()
    columns = Columns(captions=("raw_caption", "caption"))
