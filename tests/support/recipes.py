"""What tests add to the commands of docs/recipes.md, so that they are quick and ask this machine alone."""

from __future__ import annotations

# Behind a command's own options, where it wins. `{tokenizer}` is the SPEC of an image tokenizer.
ADDED = {
    "select": "--direct_num_workers=1 --val-share=0.3",
    "fetch": "--direct_num_workers=1 --allow-address=127.0.0.0/8 --per-host-rate=500 --retries=0 --timeout=5",
    "encode": "--direct_num_workers=1 --image-tokenizer={tokenizer}",
    "build": "--direct_num_workers=1 --allow-address=127.0.0.0/8 --per-host-rate=500 --retries=0 --val-share=0.3 "
    "--image-tokenizer={tokenizer}",
    "verify": "--workers=1",
    "train-bpe": "--vocabulary=300",
    "train-dvae": "--hidden=8 --vocabulary=64 --steps=2 --batch-size=2 --threads=1",
    "train": "--size=tiny --steps=2 --batch-size=2 --text-length=16 --threads=1",
    "generate": "--count=1 --threads=1",
}
