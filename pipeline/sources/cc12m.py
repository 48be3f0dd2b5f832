"""Conceptual 12M (Changpinyo et al. 2021), https://github.com/google-research-datasets/conceptual-12m

`cc12m.tsv` (12,423,374 rows): URL, tab, caption, the reverse of CC3M's order; no header and no quoting. Captions are
raw alt-texts in which a person's name is replaced by `<PERSON>`, in about a quarter of the rows. That mark stays in the
caption as it is: it stands for a word, and dropping it leaves sentences without a subject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.sources.tables import WHOLE_FILE, Begin, Row, caption_and_url

NAME = "cc12m"


def read(stream: BinaryIO, file: str, begin: Begin = WHOLE_FILE) -> Iterator[Row]:
    return caption_and_url(stream, file, NAME, False, begin)
