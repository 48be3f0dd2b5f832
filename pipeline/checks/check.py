"""What a check takes and gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Optional

from pipeline.records import Candidate
from pipeline.text import captions, personal_data


class Rejection(NamedTuple):
    """Why a check rejects a row."""

    reason: str  # a Reason, or a name of the check's own, which is as stable
    detail: str = ""  # for people: the measure that failed


@dataclass(frozen=True)
class SelectConfig:
    """The settings of the checks. What is particular to a source is among that source's own settings."""

    min_words: int = 3
    min_characters: int = 5
    min_side: int = 64  # px, of the shorter side
    min_ratio: float = 0.5  # width / height; both ends are allowed
    max_ratio: float = 2.0
    language_detector: str = "best"
    language_threshold: Optional[float] = None  # of the detector's score; None: its own
    max_rest_share: float = 0.2  # of a caption's words: one with no more beside its boilerplate is rejected
    val_share: float = 0.01  # of the pairs, held out for validation
    licences: tuple[str, ...] = ()  # of which a row must state one, as the source writes it, in any case; (): any row
    cut_tails: bool = False  # also cut boilerplate off the end of captions that are kept
    personal_data: str = ""  # personal_data.REJECT or MASK: what to do with captions that hold some; empty: nothing
    sharma: bool = False  # also the checks of repetition and capitalisation of Sharma et al. 2018, section 3.2


def keep_caption(caption: str) -> str:
    """Changes nothing: the clean-up of a source whose captions hold no marks of its own."""
    return caption


class Caption:
    """A candidate's clean caption, made when a check first asks for it: cleaning costs more than the checks before."""

    def __init__(self, raw: str, tidy: Callable[[str], str] = keep_caption, marks_addresses: bool = False):
        self.raw, self._tidy, self._marks_addresses = raw, tidy, marks_addresses

    @functools.cached_property
    def text(self) -> str:
        """The clean text, after the source's own clean-up. Cleaning drops e-mail addresses, unless they are marked."""
        raw = personal_data.mask_addresses(self.raw) if self._marks_addresses else self.raw
        return self._tidy(captions.clean_caption(raw))


class Check(NamedTuple):
    """A check of the list."""

    rejection: Callable[[Candidate, Caption, SelectConfig], Optional[Rejection]]  # a pure function; None keeps the row
    of_row: bool = False  # does not look at the caption: no other text of the row could pass
    of_parts: bool = False  # is also asked of each text of a caption that joins several
