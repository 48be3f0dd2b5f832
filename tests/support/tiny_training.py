"""A run of `pairmill train` with a size that only tests have:
`python -m torch.distributed.run --nproc-per-node 2 tests/support/tiny_training.py OPTIONS`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from models.training.train import main
from models.transformer.model import SIZES

SIZES["tiny"] = (3, 2, 32)

if __name__ == "__main__":
    main()
