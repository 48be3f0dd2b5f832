"""Pairs in, pictures or reasons out: fallbacks, order, and a caller that is slow, stops or fails."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import hashlib
import threading
import time
from collections.abc import Generator
from typing import BinaryIO, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fetch import budget as budgets
from pipeline.fetch import download
from pipeline.fetch import fetcher as fetch_module
from pipeline.fetch.fetcher import fetch_converted, fetch_images, interleave_hosts
from pipeline.fetch.slots import Activity
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import ImageConfig
from pipeline.records import Pair, Rejected
from pipeline.sources.url_hosts import host_of
from tests.support.fetching import QUICK, SLACK_S, outcome, outcomes, pair, result, with_settings
from tests.support.images import jpeg
from tests.support.narrowing import instance, instances


def test_a_fallback_is_used(hostile):
    one = pair(hostile.url("status/404/a"), hostile.url("truncated/a"), hostile.url("good/fallback"))
    found = outcome(one)
    assert result(found) == "fetched"
    assert instance(found, FetchedImage).pair == one


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["status/404", "status/403"], "http_404"),
        (["status/404", "status/500"], "http_5xx"),
        (["page", "status/404"], "not_an_image"),
        (["status/404", "says/X-Robots-Tag/noai", "good/mirror"], "http_404"),
        (["says/X-Robots-Tag/noai", "good/mirror"], "opted_out"),
    ],
)
def test_the_reason_when_all_fail(hostile, paths, reason):
    assert result(outcome(pair(*(hostile.url(path) for path in paths)))) == reason
    assert not hostile.requests("good/mirror")  # who opts out is not got round


def test_opting_out_can_be_ignored(hostile):
    one = pair(hostile.url("says/X-Robots-Tag/noai"))
    assert result(outcome(one, with_settings(obey=("noindex", "tdm-reservation")))) == "fetched"
    assert result(outcome(one, with_settings(obey=("noai",)))) == "opted_out"


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (hashlib.sha256(jpeg()).hexdigest(), "fetched"),
        (hashlib.sha256(jpeg()).hexdigest().upper(), "fetched"),
        ("0" * 64, "hash_mismatch"),
        ("", "fetched"),
    ],
)
def test_a_hash_that_the_source_knows_is_checked(hostile, expected, reason):
    assert result(outcome(pair(hostile.url("plain"))._replace(expected_sha256=expected))) == reason


HOST_NAMES = st.sampled_from(["http://a.org/", "http://b.org:80/", "https://c.org/", "http://[::1", ""])


@settings(deadline=None, max_examples=50)
@given(st.lists(HOST_NAMES))
def test_hosts_take_turns(urls):
    pairs = [pair(url, key=f"{number:032x}") for number, url in enumerate(urls)]
    ordered = interleave_hosts(pairs)
    assert sorted(ordered) == sorted(pairs)
    rounds: collections.Counter[str] = collections.Counter()
    turns = []
    for one in ordered:
        turns.append(rounds[host_of(one.url)])
        rounds[host_of(one.url)] += 1
    assert turns == sorted(turns)  # nobody's second before everybody's first
    for url in urls:
        keys = [one.key for one in ordered if one.url == url]
        assert keys == sorted(keys)


# --- the caller ------------------------------------------------------------------------------------------------------


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("fetch")}


def test_a_caller_that_stops_early_ends_the_downloads(hostile):
    pairs = [pair(hostile.url(f"good/stop{number}")) for number in range(5)]
    pairs += [pair(hostile.url(f"stall/{number}", host=60 + number)) for number in range(10)]
    begun = time.monotonic()
    for _ in fetch_images(pairs, with_settings(timeout_s=30), ImageConfig()):
        break
    assert time.monotonic() - begun < SLACK_S
    assert not threads()


def test_a_caller_that_is_slow_slows_the_downloads(hostile):
    pairs = [pair(hostile.url(f"good/slowed{number}")) for number in range(30)]
    found = fetch_images(pairs, with_settings(connections=3), ImageConfig())
    next(found)
    time.sleep(0.5)
    assert sum(request.path.startswith("good/slowed") for request in hostile.log) <= 4
    assert len(list(found)) == 29
    assert not threads()


def test_images_larger_than_the_memory_come_one_by_one(hostile):
    pairs = [pair(hostile.url(f"large/1500x1200/{number}")) for number in range(6)]
    found = outcomes(pairs, with_settings(memory_bytes=1_000_000))
    assert {one.rgb_HWC.shape for one in instances(found, FetchedImage)} == {(1200, 1500, 3)}


def test_the_memory_of_outcomes_that_were_not_taken_is_free_again(hostile):
    length = 7_654_321  # a budget of its own
    pairs = [pair(hostile.url(f"good/untaken{number}")) for number in range(9)]
    found = fetch_images(pairs, with_settings(memory_bytes=length), ImageConfig())
    assert isinstance(found, Generator)
    next(found)
    time.sleep(0.5)  # further images are decoded, and wait
    found.close()
    budget = budgets.memory_lease(length)._budget
    assert budget.acquire(length) is None
    budget.release(length)


class Converted(NamedTuple):
    thread: str
    nbytes: int


def test_images_are_converted_where_they_were_decoded(hostile):
    """They leave as what they were converted to, and hold the memory of that alone."""
    length = 6_543_210
    pairs = [pair(hostile.url(f"good/converted{number}")) for number in range(4)]
    found = fetch_converted(
        pairs,
        with_settings(memory_bytes=length),
        ImageConfig(),
        lambda image: Converted(threading.current_thread().name, len(image.pair.key)),
    )
    first = next(found)
    deadline = time.monotonic() + SLACK_S
    budget = budgets.memory_lease(length)._budget
    while budget._free != length - 4 * 32 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert budget._free == length - 4 * 32
    assert all(one.thread.startswith("decode") for one in instances([first, *found], Converted))
    assert budget._free == length


def test_units_share_the_threads_that_decode(hostile):
    """What each of them keeps of freed memory adds up."""
    pairs = [pair(hostile.url(f"good/shared{number}")) for number in range(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as units:
        found = list(units.map(lambda unit: outcomes(pairs[unit::8]), range(8)))
    assert {result(one) for unit in found for one in unit} == {"fetched"}
    decoding = [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert 1 <= len(decoding) <= fetch_module.DECODING_THREADS


def test_an_image_that_cannot_be_converted_is_a_reject(hostile):
    good, bad = pair(hostile.url("good/fine")), pair(hostile.url("good/odd"))

    def convert(image: FetchedImage) -> FetchedImage:
        if image.pair == bad:
            raise ArithmeticError("an odd image")
        return image

    found = {one[0]: one for one in fetch_converted([good, bad], with_settings(), ImageConfig(), convert)}
    assert isinstance(found[good], FetchedImage)
    reject = instance(found[bad.key], Rejected)
    assert (reject.reason, reject.detail) == ("unexpected", "ArithmeticError: an odd image")


def test_stop_ends_downloads_that_have_not_started(hostile, monkeypatch):
    """The loop starts late: stop() has to wait for it, else it would have nothing to cancel."""
    run = asyncio.run

    def run_late(coroutine):
        time.sleep(0.3)
        return run(coroutine)

    def decode(file: BinaryIO, pair: Pair) -> FetchedImage:
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(fetch_module.asyncio, "run", run_late)
    pairs = [pair(hostile.url("stall/unstarted"))]
    started = time.monotonic()
    thread = fetch_module._LoopThread(pairs, with_settings(timeout_s=30), ImageConfig(), decode, Activity())
    thread.start()
    thread.stop()
    assert time.monotonic() - started < SLACK_S
    assert not threads()


@pytest.mark.timeout(60)
def test_a_reject_that_waits_behind_an_image_does_not_hold_up_the_end(hostile, monkeypatch):
    """The image's release may wait for that of the next outcome, which has nothing to release."""
    monkeypatch.setattr(download, "MAX_REDIRECTS", 0)
    found = fetch_images([pair(hostile.url("good/first")), pair(hostile.url("slow_redirects/1"))], QUICK, ImageConfig())
    results = [result(next(found))]
    time.sleep(1.5)  # until the other's half second is over
    results += map(result, found)
    assert results == ["fetched", "http_other"]


def test_no_pairs():
    assert list(fetch_images([], QUICK, ImageConfig())) == []
