"""Trains a byte-pair encoding: `pairmill train-bpe --captions PATTERN --vocabulary N --output FILE`."""

from __future__ import annotations

import argparse
import glob
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from models.errors import UserError
from models.files import write_atomically
from models.tokenizers.text import TextTokenizer


def train_bpe(captions: Iterable[str], vocabulary: int) -> str:
    """Trains byte-level BPE of at most `vocabulary` tokens; returns the tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # all 256 bytes, so that each caption can be encoded
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer.to_str()


def read_captions(pattern: str) -> Iterator[str]:
    """Reads captions from a glob of .parquet (column `caption`), .jsonl (field `caption`) or text files (one a line);
    jsonl and text may be gzipped. Raises UserError if no file matches or a caption is missing."""
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise UserError(f"--captions {pattern}: no such file; give a pattern that matches files")
    for path in paths:
        if path.endswith(".parquet"):
            try:
                import pyarrow.parquet as pq  # only needed for Parquet
            except ModuleNotFoundError:
                raise UserError(f"--captions {path}: Parquet needs pyarrow, of the extra `pipeline`") from None
            if "caption" not in pq.read_schema(path).names:
                raise UserError(f"--captions: {path} has no column `caption`")
            for batch in pq.ParquetFile(path).iter_batches(columns=["caption"]):
                yield from (text for text in batch.column(0).to_pylist() if text)
            continue
        opener = gzip.open if path.endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if path.removesuffix(".gz").endswith(".jsonl"):
                    try:
                        yield json.loads(line)["caption"]
                    except (ValueError, KeyError, TypeError):
                        raise UserError(f"--captions: {path}:{number} is not a JSON object with `caption`") from None
                elif line.strip():
                    yield line.strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill train-bpe", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--captions", required=True, metavar="PATTERN", help="glob of .parquet, .jsonl(.gz) or text files with captions"
    )
    parser.add_argument(
        "--vocabulary", required=True, type=int, metavar="N", help="number of tokens (the paper: 16,384)"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the tokenizer.json to write")
    args = parser.parse_args(arguments)
    if not 256 <= args.vocabulary <= 1 << 16:
        raise UserError(f"--vocabulary {args.vocabulary}: give 256 (one for each byte) to 65,536")
    if not Path(args.output).parent.is_dir():
        raise UserError(f"--output {args.output}: its folder does not exist; create it first")
    text = train_bpe(read_captions(args.captions), args.vocabulary)
    write_atomically(args.output, text)
    print(f"train-bpe: {TextTokenizer(text).info.vocabulary:,} tokens in {args.output}")
    return 0
