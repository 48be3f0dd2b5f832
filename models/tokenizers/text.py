"""Captions to byte-pair tokens (section 2.2): lower-cased, at most 256 a caption. `pairmill train-bpe` makes one.

The file is the `tokenizers` library's own tokenizer.json. Lower-casing is part of it and touches only the tokens:
stored captions keep their case.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from models.data.format import TextTokenizerInfo
from models.errors import UserError, write_whole

MAX_TOKENS = 256
BUNDLED = Path(__file__).parent.parent / "bundled" / "text_tokenizer.json"


class TextTokenizer:
    """A frozen tokenizer with a fingerprint."""

    def __init__(self, text: str):
        self.text = text  # of tokenizer.json
        self._tokenizer = Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.info = TextTokenizerInfo(
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
            vocabulary=self._tokenizer.get_vocab_size(),
            max_tokens=MAX_TOKENS,
        )

    @classmethod
    def load(cls, path: str | Path = BUNDLED) -> TextTokenizer:
        """Raises UserError for a file that is missing, no tokenizer, or too large for 16-bit tokens."""
        try:
            loaded = cls(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"text tokenizer {path}: {error.strerror}; make one with `pairmill train-bpe`") from None
        except Exception as error:  # the library raises bare Exception for a file it cannot parse
            raise UserError(f"text tokenizer {path} is not a tokenizer.json: {error}") from None
        if loaded.info.vocabulary > 1 << 16:
            raise UserError(f"text tokenizer {path}: {loaded.info.vocabulary:,} tokens; shards hold at most 65,536")
        return loaded

    def encode(self, caption: str) -> list[int]:
        """Token ids, cut to 256."""
        return self._tokenizer.encode(caption, add_special_tokens=False).ids[:MAX_TOKENS]

    def decode(self, tokens: Iterable[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)


def train_bpe(captions: Iterable[str], vocabulary: int) -> str:
    """Trains byte-level BPE of at most `vocabulary` tokens; returns the tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # all 256 bytes: no caption is ever unknown
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer.to_str()


def read_captions(pattern: str) -> Iterator[str]:
    """Captions from a glob of .parquet (column `caption`), .jsonl (field `caption`) or text files (one a line);
    jsonl and text may be gzipped. Raises UserError."""
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise UserError(f"--captions {pattern}: no such file")
    for path in paths:
        if path.endswith(".parquet"):
            import pyarrow.parquet as pq  # only for this form: a training machine need not have it

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
                        raise UserError(f"--captions: {path}:{number} is no JSON object with `caption`") from None
                elif line.strip():
                    yield line.strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill train-bpe", description=__doc__.split("\n")[0])
    parser.add_argument("--captions", required=True, metavar="PATTERN", help=".parquet, .jsonl(.gz) or text files")
    parser.add_argument("--vocabulary", required=True, type=int, metavar="N", help="tokens (the paper: 16,384)")
    parser.add_argument("--output", required=True, metavar="FILE")
    args = parser.parse_args(arguments)
    if not 256 <= args.vocabulary <= 1 << 16:
        raise UserError(f"--vocabulary {args.vocabulary}: give 256 (one for each byte) to 65,536")
    if not Path(args.output).parent.is_dir():
        raise UserError(f"--output {args.output}: its folder does not exist")
    text = train_bpe(read_captions(args.captions), args.vocabulary)
    write_whole(args.output, text)
    print(f"train-bpe: {TextTokenizer(text).info.vocabulary:,} tokens in {args.output}")
    return 0
