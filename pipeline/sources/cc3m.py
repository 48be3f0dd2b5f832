"""Conceptual Captions (Sharma et al. 2018), https://ai.google.com/research/ConceptualCaptions/download

`Train_GCC-training.tsv` (3,318,333 rows) and `Validation_GCC-1.1.0-Validation.tsv` (15,840): caption, tab, URL; no
header and no quoting. Captions are lower-cased and tokenised ("our planet is ."), names are replaced by "person" and
the like. `Image_Labels_Subset_Train_GCC-Labels-training.tsv` (2,007,090 rows) adds three lists; its first two columns
are read. The row number is the only id that other tools know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.sources.readers import WHOLE_FILE, LineStart, Row, caption_and_url

NAME = "cc3m"


def read(stream: BinaryIO, file: str, begin: LineStart = WHOLE_FILE) -> Iterator[Row]:
    return caption_and_url(stream, file, NAME, True, begin)
