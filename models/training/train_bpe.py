"""Trains a byte-pair encoding: `pairmill train-bpe --captions PATTERN --vocabulary N --output FILE`."""

from __future__ import annotations

import glob
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, cast

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from models.command_line import CommandParser
from models.errors import UserError, not_installed
from models.files import check_file_place, write_atomically
from models.next_command import print_output
from models.progress import Progress, ProgressLine
from models.tokenizers.text import TextTokenizer

CAPTIONS_PER_SHOW = 1000


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


def caption_files(pattern: str) -> list[str]:
    """The files of a glob, sorted. Raises UserError if there are none."""
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise UserError(f"--captions {pattern}: no such file; give a pattern that matches files")
    return paths


def read_captions(paths: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Reads .parquet (column `caption`), .jsonl (field `caption`) or text files (one a line); jsonl and text may be
    gzipped. Yields each caption with the share of all bytes that were read. Raises UserError if one is missing."""
    sizes = [os.path.getsize(path) for path in paths]
    before, total = 0, max(1, sum(sizes))
    for path, size in zip(paths, sizes, strict=True):
        captions = _parquet_captions(path) if path.endswith(".parquet") else _line_captions(path)
        for caption, share in captions:
            yield caption, (before + share * size) / total
        before += size


def _parquet_captions(path: str) -> Iterator[tuple[str, float]]:
    try:
        import pyarrow as pa  # only needed for Parquet
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise not_installed(f"--captions {path}", "pipeline") from None
    try:
        file = pq.ParquetFile(path)
        if "caption" not in file.schema_arrow.names:
            raise UserError(f"--captions: {path} has no column `caption`")
        batches = file.iter_batches(columns=["caption"])
        captions = itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches)
        for row, caption in enumerate(captions, 1):
            if text := _checked(caption, path, row):
                yield text, row / file.metadata.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"--captions: {path} cannot be read: {str(error).splitlines()[0]}") from None


def _line_captions(path: str) -> Iterator[tuple[str, float]]:
    size, is_json = max(1, os.path.getsize(path)), path.removesuffix(".gz").endswith(".jsonl")
    number = 0
    try:
        with open(path, "rb") as raw, _lines(raw, path) as file:
            for number, line in enumerate(file, 1):
                caption = _json_caption(line, path, number) if is_json else line.decode("utf-8").strip()
                if text := _checked(caption, path, number):
                    yield text, raw.tell() / size
    except UnicodeDecodeError as error:
        raise UserError(f"--captions: {path}:{number} is not UTF-8 ({error.reason}); convert the file") from None
    except (EOFError, OSError, zlib.error) as error:  # of gzip: cut or damaged
        raise UserError(f"--captions: {path} cannot be read after line {number}: {error}") from None


def _json_caption(line: bytes, path: str, number: int) -> object:
    try:
        return json.loads(line.decode("utf-8"))["caption"]
    except UnicodeDecodeError:
        raise
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UserError(f"--captions: {path}:{number} is not a JSON object with `caption`") from None


def _checked(caption: object, path: str, number: int) -> str | None:
    """The caption; None for null. Raises UserError for anything else, and for half of a surrogate pair, which no
    encoding has."""
    if caption is None:
        return None
    if not isinstance(caption, str):
        raise UserError(f"--captions: {path}:{number}: the caption is {str(caption)[:40]!r}, not a text; remove it")
    try:
        caption.encode()
    except UnicodeEncodeError:
        raise UserError(f"--captions: {path}:{number}: the caption has half a surrogate pair; remove it") from None
    return caption


def _lines(raw: BinaryIO, path: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(raw, "rb")) if path.endswith(".gz") else raw


def shown(captions: Iterable[tuple[str, float]], line: ProgressLine) -> Iterator[str]:
    """The captions. Shows how many were read, then that their tokens are merged, which is one call of `tokenizers`."""
    number = 0
    for number, (caption, share) in enumerate(captions, 1):
        if number % CAPTIONS_PER_SHOW == 0:
            line.show(Progress(number, "captions", stage="read", share=share))
        yield caption
    line.show(Progress(number, "captions", stage="read", share=1.0))
    line.show(Progress(0, "", stage="merge"), now=line.is_due())


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser("train-bpe", __doc__.split("\n")[0])
    parser.add_argument(
        "--captions", required=True, metavar="PATTERN", help="glob of .parquet, .jsonl(.gz) or text files with captions"
    )
    parser.add_argument(
        "--vocabulary", required=True, type=int, metavar="N", help="largest number of tokens (the paper: 16,384)"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="tokenizer.json to write")
    args = parser.parse_args(arguments)
    if not 256 <= args.vocabulary <= 1 << 16:
        raise UserError(f"--vocabulary {args.vocabulary}: give 256 (one for each byte) to 65,536")
    check_file_place("--output", args.output)
    with ProgressLine("train-bpe") as line:
        text = train_bpe(shown(read_captions(caption_files(args.captions)), line), args.vocabulary)
    write_atomically(args.output, text)
    print(f"train-bpe: {TextTokenizer(text).info.vocabulary:,} tokens")
    encode = ["encode", "--images", "IMAGES", "--text-tokenizer", args.output, "--output", "DATASET"]
    print_output("train-bpe", args.output, encode)
    return 0
