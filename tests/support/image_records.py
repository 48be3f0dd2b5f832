"""What a folder of fetched images encodes to."""

from __future__ import annotations

from pathlib import Path

from pipeline.images.shard_reader import read_images
from pipeline.images.validate import ImageConfig
from pipeline.records import EncodedPair
from pipeline.tokenize_stage import EncodeConfig, PairEncoder


def records_of(folder: Path, image_tokenizer: str) -> dict[str, EncodedPair]:
    """By key. A dataset follows from its records, in whatever order they come."""
    encoder = PairEncoder(EncodeConfig(image_tokenizer))
    found: dict[str, EncodedPair] = {}
    for path in sorted(folder.glob("*.tar")):
        for record in encoder.encode(read_images(str(path), ImageConfig())):
            assert isinstance(record, EncodedPair) and record.key not in found
            found[record.key] = record
    return found
