"""BPE dropout (Provilkov et al. 2020): a caption's tokens with merges left out at random, here by a seed.

The `tokenizers` library has dropout, too, but draws from a generator that cannot be seeded: a resumed run would see
other tokens. This applies the merges of the same tokenizer.json one by one, and without dropout gives its answer.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random

from tokenizers import Tokenizer

from models.errors import UserError
from models.tokenizers.text import MAX_TOKENS


class BPEDropout:
    """Token ids of a caption, each possible merge left out with a probability at each step."""

    def __init__(self, tokenizer_json: str, probability: float):
        """Raises UserError for a probability that is none, and for a tokenizer that is no plain BPE."""
        if not 0 <= probability <= 1:
            raise UserError(f"BPE dropout {probability}: give a probability from 0 to 1")
        model = json.loads(tokenizer_json)["model"]
        if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise UserError("BPE dropout: the dataset's text tokenizer is no plain BPE; leave dropout out")
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        merges = [tuple(each.split(" ")) if isinstance(each, str) else tuple(each) for each in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._vocabulary: dict[str, int] = model["vocab"]
        self._probability = probability

    def encode(self, caption: str, seed: str) -> list[int]:
        """At most MAX_TOKENS ids, the same for the same seed."""
        draw = random.Random(hashlib.sha256(seed.encode()).digest()).random
        normal = self._tokenizer.normalizer.normalize_str(caption) if self._tokenizer.normalizer else caption
        words = self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)
        tokens = [self._vocabulary[piece] for word, _ in words for piece in self._merge(list(word), draw)]
        return tokens[:MAX_TOKENS]

    def _merge(self, pieces: list[str], draw) -> list[str]:
        while len(pieces) > 1:
            possible = [
                (self._ranks[pair], i)
                for i, pair in enumerate(itertools.pairwise(pieces))
                if pair in self._ranks and draw() >= self._probability
            ]
            if not possible:
                break
            _, i = min(possible)
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        return pieces
