"""Encodes captions as byte-pair tokens (section 2.2): lower-cased, at most 256 a caption.

The file is a tokenizer.json of the `tokenizers` library, as `pairmill train-bpe` writes it. It holds the lower-casing,
which affects only the tokens: stored captions keep their case.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from models.errors import UserError
from models.files import BUNDLED, read
from models.tokenizers.info import TEXT_TOKENIZER_FILE, TextTokenizerInfo

MAX_TOKENS = 256
BUNDLED_BPE = BUNDLED / TEXT_TOKENIZER_FILE


def _parse(text: str) -> Tokenizer:
    """Raises ValueError for a malformed file, by which the library panics at times: no Exception to Python."""
    try:
        return Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ValueError(f"is not a tokenizer.json: {error}") from None


class TextTokenizer:
    """A trained byte-pair encoding with its fingerprint."""

    def __init__(self, text: str):
        """Raises ValueError for a text that is not a tokenizer.json."""
        self.text = text  # content of tokenizer.json
        self._tokenizer = _parse(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.info = TextTokenizerInfo(
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
            vocabulary=self._tokenizer.get_vocab_size(),
            max_tokens=MAX_TOKENS,
        )

    @classmethod
    def load(cls, path: str | Path = BUNDLED_BPE) -> TextTokenizer:
        """Loads a tokenizer.json from a path or a URL. Raises UserError if it is missing, malformed, has more than
        65,536 tokens or an id that is not below their number."""
        try:
            loaded = cls(read(os.fspath(path)).decode())
        except OSError as error:
            raise UserError(
                f"text tokenizer {path}: {error.strerror or error}; make one with `pairmill train-bpe`"
            ) from None
        except ValueError as error:
            raise UserError(f"text tokenizer {path} {error}") from None
        if loaded.info.vocabulary > 1 << 16:
            raise UserError(f"text tokenizer {path}: {loaded.info.vocabulary:,} tokens; shards hold at most 65,536")
        token, largest = max(loaded.ids().items(), key=lambda item: item[1], default=("", -1))
        if largest >= loaded.info.vocabulary:
            raise UserError(
                f"text tokenizer {path}: token {token!r} has id {largest:,}, but there are {loaded.info.vocabulary:,} "
                "tokens; number them from 0 without gaps"
            )
        return loaded

    def ids(self) -> dict[str, int]:
        """The id of each token."""
        return self._tokenizer.get_vocab()

    def encode(self, caption: str) -> list[int]:
        """Returns the token ids of a caption, cut to MAX_TOKENS."""
        return self._tokenizer.encode(caption, add_special_tokens=False).ids[:MAX_TOKENS]

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of some token ids, special tokens included."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)
