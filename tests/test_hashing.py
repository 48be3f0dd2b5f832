"""Hashes that keys, seeds and shares depend on must never change."""

from __future__ import annotations

import hashlib

import pytest

from models.hashing import in_share, stable_hash


def test_is_the_start_of_a_sha256():
    assert stable_hash("a", 1) == int(hashlib.sha256(b"a\x001").hexdigest()[:16], 16)
    assert stable_hash("a/1") == int(hashlib.sha256(b"a/1").hexdigest()[:16], 16)


def test_takes_text_that_is_no_unicode():
    assert stable_hash("\udc80") != stable_hash("\udc81")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_holds_about_that_many(share):
    held = sum(in_share(stable_hash("share", i), share) for i in range(4000))
    assert held / 4000 == pytest.approx(share, abs=0.03)


def test_the_ends_of_a_share():
    assert not in_share(0, 0.0) and in_share(2**64 - 1, 1.0)
    assert in_share(2**63 - 1, 0.5) and not in_share(2**63, 0.5)
