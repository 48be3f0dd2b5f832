"""A dataset from records, by the real writers but without Beam and images: quick, and whole in every part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from models.tokenizers.info import ImageTokenizerInfo, square
from models.tokenizers.text import TextTokenizer
from pipeline.dataset.finish import ManifestFields, finish_dataset
from pipeline.dataset.shards import write_shard
from pipeline.output.files import write_file
from pipeline.output.ledger import KEPT, READ
from pipeline.output.parquet import table_bytes
from pipeline.output.schemas import REJECTS
from pipeline.records import EncodedPair, Rejected, row_key
from tests.support.datasets import CAPTIONS, SOURCES, tiny_text_tokenizer

IMAGES = ImageTokenizerInfo("none", "0" * 64, vocabulary=32, shape=square(4), image_size=32)
LICENCES = ("CC0", "", "CC BY-SA 4.0 | <b>")


def make_record(
    i: int, text: TextTokenizer, draws: int = 1, split: str = "train", image: ImageTokenizerInfo = IMAGES
) -> EncodedPair:
    source, caption, url = SOURCES[i % 3], CAPTIONS[i % len(CAPTIONS)], f"https://example.org/{i}.jpg"
    codes = np.random.RandomState(i).randint(0, image.vocabulary, (draws, image.shape.count))
    return EncodedPair(
        key=row_key(source, url, caption),
        split=split,
        source=source,
        file=f"{source}.tsv",
        row=i,
        url=url,
        caption=caption,
        width=64,
        height=48,
        licence=LICENCES[i % len(LICENCES)],
        page_url="",
        sha256=f"{i:064x}",
        phash=f"{i:016x}",
        codes=codes.astype(image.code_type).tobytes(),
        tokens=np.array(text.encode(caption), "<u2").tobytes(),
        boxes=list(range(6 * draws)),
    )


def write_records(
    output: Path, pairs: int = 60, shards: int = 5, draws: int = 1, first: int = 0, image: ImageTokenizerInfo = IMAGES
) -> list[EncodedPair]:
    """`shards` of training and one of validation, two files of rejects."""
    text = tiny_text_tokenizer()
    numbers = range(first, first + pairs)
    records = [make_record(i, text, draws, "val" if i % 10 == 9 else "train", image) for i in numbers]
    written = []
    for split, of in (("train", shards), ("val", 1)):
        groups: dict[int, list[EncodedPair]] = {i: [] for i in range(of)}
        for record in records:
            if record.split == split:
                groups[int(record.key[:16], 16) * of >> 64].append(record)
        written += [write_shard(str(output), draws, (split, i, of), group) for i, group in groups.items()]
    rejects = [
        [Rejected(f"{i:032x}", "wit", "wit.tsv", 1000 + i, "http://x/", "select", "not_english", "")] for i in range(2)
    ]
    files = [
        write_file(str(output), f"rejects/0000{i}-of-00002.parquet", table_bytes(rows, REJECTS))
        for i, rows in enumerate(rejects)
    ]
    kept = Counter(record.source for record in records)
    counts = [((source, KEPT, ""), n) for source, n in kept.items()]
    counts += [((source, READ, ""), n + 2 * (source == "wit")) for source, n in kept.items()]
    counts += [(("wit", "select", "not_english"), 2)]
    parts = ManifestFields(image, text.info, text.text, draws, {"select": {"float": 1e-5, "text": "é"}}, {}, ())
    finish_dataset(str(output), parts, written, files, counts)
    return records
