"""Concepts of captions: which words and phrases of a list a caption holds.

As MetaCLIP (Xu and others, 2023) matches them, a phrase is found where its words follow each other in the caption,
whole and with punctuation marks as words of their own. Here capitals make no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from apache_beam.io.filesystem import BeamIOError

from models.errors import UserError
from pipeline.output import files

_MARKS = re.compile("([,.;:?!`])")


class Concepts:
    """A list of phrases. Looking through a caption takes time by its words, not by the number of phrases."""

    def __init__(self, phrases: Iterable[str]):
        self._phrases: dict[str, str] = {}  # as they are compared -> as the list has them
        lengths: dict[str, set[int]] = {}  # first word -> words of the phrases that begin with it
        for phrase in phrases:
            if words := split_words(phrase):
                self._phrases.setdefault(" ".join(words), phrase)
                lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: tuple(found) for word, found in lengths.items()}

    def __len__(self) -> int:
        return len(self._phrases)

    def found_in(self, caption: str) -> list[str]:
        """The phrases of a caption, each once, in the order in which they come."""
        words = split_words(caption)
        spans = (
            " ".join(words[first : first + length])
            for first, word in enumerate(words)
            for length in self._lengths.get(word, ())
        )
        return list(dict.fromkeys(self._phrases[span] for span in spans if span in self._phrases))


def split_words(text: str) -> list[str]:
    return _MARKS.sub(r" \1 ", text).casefold().split()


def read_concepts(path: str) -> Concepts:
    """The phrases of a file: one on each line, or a JSON list of them, as MetaCLIP publishes its metadata. Raises
    UserError for a file that is neither, or holds no phrase."""
    try:
        text = files.read(path).decode()
        phrases = msgspec.json.decode(text, type=list[str]) if path.endswith(".json") else text.splitlines()
    except (OSError, BeamIOError) as error:
        raise UserError(f"{path} is not readable: {error}") from None
    except (UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise UserError(
            f"{path}: {error}; give UTF-8 text with a phrase on each line, or a JSON list (.json)"
        ) from None
    if not (concepts := Concepts(phrase.strip() for phrase in phrases)):
        raise UserError(f"{path} holds no word; give one on each line")
    return concepts
