"""A size of transformer that only tests have: `pairmill train --size tiny` in a process that has imported this."""

from __future__ import annotations

from models.transformer.model import SIZES

SIZES["tiny"] = (3, 2, 32)
