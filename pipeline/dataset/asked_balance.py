"""The balance that a command asks for: what the manifest records of it, and its concepts on their way to workers."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Any, NamedTuple

from pipeline.dataset.balance import Balance
from pipeline.output import files
from pipeline.output.names import CONCEPTS_FILE, WORK_FOLDER


class AskedBalance(NamedTuple):
    """What the option asks for."""

    by: str
    limit: int
    path: str = ""  # of the user's file of concepts
    data: bytes = b""

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest records of it."""
        return {"by": self.by, "limit": self.limit} | ({"concepts_sha256": self._sha256} if self.path else {})

    def prepare(self, output: str) -> Balance:
        """Writes the concepts into the output's work folder, where all workers can read them."""
        if not self.path:
            return Balance(self.by, self.limit)
        copy = files.join(output, WORK_FOLDER, CONCEPTS_FILE + PurePath(self.path).suffix)
        files.write_atomically(copy, self.data)
        return Balance(self.by, self.limit, copy, self._sha256)

    @property
    def _sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()
