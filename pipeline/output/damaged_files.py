"""The warnings of a job of whose lists some could not be read to their end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.output.ledger import DAMAGED_FILES

MAX_NAMES = 5
READING_JOBS = ("select", "build")
"""The jobs that read lists; what they warned of stays in the ledgers of those that follow."""


def warnings(ledger: dict[str, Any], job: str) -> Iterator[str]:
    """One line for each source."""
    for source, names in ledger.get(DAMAGED_FILES, {}).items() if job in READING_JOBS else ():
        named = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if names[MAX_NAMES:] else "")
        yield (
            f"{source}: {named} {'ends' if len(names) == 1 else 'end'} too early or can't be read to the end: the rows "
            "before are there, those after are missing; copy the file again"
        )
