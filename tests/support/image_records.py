"""What a folder of fetched pictures encodes to."""

from __future__ import annotations

from pathlib import Path

from models.tokenizers.text import BUNDLED
from pipeline.images.shard_reader import read_pictures
from pipeline.images.validate import PictureConfig
from pipeline.records import Record
from pipeline.tokenize_stage import EncodeConfig, Encoder


def records_of(folder: Path, image_tokenizer: str) -> dict[str, Record]:
    """By key. A dataset follows from its records, in whatever order they come."""
    encoder = Encoder(EncodeConfig(image_tokenizer, str(BUNDLED)))
    found = [
        record
        for path in sorted(folder.glob("*.tar"))
        for record in encoder.encode(read_pictures(str(path), PictureConfig()))
    ]
    assert len({record.key for record in found}) == len(found)
    return {record.key: record for record in found}
