"""BPE dropout (Provilkov et al. 2020): tokenises captions with merges skipped at random, reproducibly by a seed.

The dropout of the `tokenizers` library cannot be seeded, so a resumed run would see other tokens. Here the library
splits the caption, and this module applies the merges of the same tokenizer.json one by one; with probability 0 it
gives the library's tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable

from tokenizers import Tokenizer

from models.errors import UserError
from models.tokenizers.text import MAX_TOKENS


class BPEDropout:
    """Tokenises captions; at each step each possible merge is skipped with the given probability."""

    def __init__(self, tokenizer_json: str, probability: float):
        """Raises UserError for a probability outside 0 to 1 and for a tokenizer other than plain BPE."""
        if not 0 <= probability <= 1:
            raise UserError(f"BPE dropout {probability}: give a probability from 0 to 1")
        described = json.loads(tokenizer_json)
        model = described["model"]
        if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise UserError("BPE dropout: the dataset's text tokenizer is not plain BPE; train without --bpe-dropout")
        merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._vocabulary = Tokenizer.from_str(tokenizer_json).get_vocab()
        # Without its merges the library leaves the words' first pieces: characters, the bytes of a character that the
        # vocabulary lacks, unknown and added tokens.
        described["model"] |= {"merges": [], "ignore_merges": False, "dropout": None}
        self._splitter = Tokenizer.from_str(json.dumps(described))
        self._splitter.no_padding()
        self._splitter.no_truncation()
        self._whole_words = bool(model.get("ignore_merges")) and not probability  # as the library does
        self._probability = probability

    def encode(self, caption: str, seed: str) -> list[int]:
        """Returns at most MAX_TOKENS token ids, the same for the same caption and seed."""
        uniform = random.Random(hashlib.sha256(seed.encode()).digest()).random
        split = self._splitter.encode(caption, add_special_tokens=False)
        first_ids = dict(zip(split.tokens, split.ids, strict=True))  # an added token may stand there with its spaces
        tokens: list[int] = []
        for _, word in itertools.groupby(zip(split.word_ids, split.tokens, strict=True), key=lambda pair: pair[0]):
            pieces = [piece for _, piece in word]
            merged = self._merge(pieces, uniform)
            tokens += (first_ids[piece] if piece in first_ids else self._vocabulary[piece] for piece in merged)
        return tokens[:MAX_TOKENS]

    def _merge(self, pieces: list[str], uniform: Callable[[], float]) -> list[str]:
        if self._whole_words and (word := "".join(pieces)) in self._vocabulary:
            return [word]
        while len(pieces) > 1:
            possible = [
                (self._ranks[pair], i)
                for i, pair in enumerate(itertools.pairwise(pieces))
                if pair in self._ranks and uniform() >= self._probability
            ]
            if not possible:
                break
            _, i = min(possible)
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        return pieces
