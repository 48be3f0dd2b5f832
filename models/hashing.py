"""Hashes that are the same on every machine and in every process: seeds and shares that follow from keys."""

from __future__ import annotations

import hashlib


def stable_hash(*parts: object) -> int:
    """The first 64 bits of SHA-256 over the parts as text, joined by NUL characters; big-endian."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def hash_fraction(hash_64: int) -> float:
    """The first 32 bits of a 64-bit hash as a number in [0, 1), which a float holds without rounding."""
    return (hash_64 >> 32) / 2**32


def in_share(hash_64: int, share: float) -> bool:
    """Whether a 64-bit hash falls into a share from 0 to 1; a larger share holds the hashes of a smaller one."""
    return hash_64 < share * 2**64
