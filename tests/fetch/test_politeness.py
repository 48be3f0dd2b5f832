"""Hosts are treated as they ask, measured at the server."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable
from email.utils import formatdate

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from pipeline.fetch import politeness, shared_folder
from pipeline.fetch.fetcher import fetch_images
from pipeline.fetch.opt_out import OPT_OUTS, opt_out
from pipeline.fetch.politeness import shared_host
from pipeline.fetch.retry import retry_after_s
from pipeline.fetch.shared_folder import warn_once
from pipeline.images.fetched import FetchedImage
from pipeline.images.validate import ImageConfig
from pipeline.records import Rejected
from pipeline.sources.hosts import HostLimits, lacks_contact, limits_for
from tests.support.fetching import SLACK_S, outcome, outcomes, pair, result, with_settings
from tests.support.narrowing import instance, instances, required


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([], None),
        ([("X-Robots-Tag", "nofollow, nosnippet")], None),
        ([("X-Robots-Tag", "noai")], "X-Robots-Tag: noai"),
        ([("X-Robots-Tag", "NoImageAI")], "X-Robots-Tag: noimageai"),
        ([("X-Robots-Tag", "nofollow, noindex")], "X-Robots-Tag: noindex"),
        ([("X-Robots-Tag", "nofollow"), ("X-Robots-Tag", "noimageindex")], "X-Robots-Tag: noimageindex"),
        ([("X-Robots-Tag", "googlebot: noindex, noai")], None),
        ([("X-Robots-Tag", "googlebot: noindex, pairmill: noai")], "X-Robots-Tag: noai"),
        ([("X-Robots-Tag", "*: noai")], "X-Robots-Tag: noai"),
        ([("X-Robots-Tag", "max-image-preview: large, noai")], "X-Robots-Tag: noai"),
        ([("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noai")], "X-Robots-Tag: noai"),
        ([("TDM-Reservation", "1")], "TDM-Reservation: 1"),
        ([("tdm-reservation", "0")], None),
    ],
)
def test_opt_out(headers, said):
    assert opt_out(CIMultiDictProxy(CIMultiDict(headers))) == said
    if said:
        directive = said.rpartition(" ")[2].replace("1", "tdm-reservation")
        assert opt_out(CIMultiDictProxy(CIMultiDict(headers)), [name for name in OPT_OUTS if name != directive]) is None
        assert opt_out(CIMultiDictProxy(CIMultiDict(headers)), [directive]) == said


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 120 ", 120.0),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after_s(value) == seconds


def test_retry_after_a_date():
    assert 55 < required(retry_after_s(formatdate(time.time() + 60, usegmt=True))) < 61


def test_hosts_that_ask_for_less_get_less():
    limits = HostLimits(8, 20.0)
    assert limits_for("upload.wikimedia.org", limits) == HostLimits(2, 20.0, 25e6 / 8)
    assert limits_for("upload.wikimedia.org", HostLimits(1, 5.0)) == HostLimits(1, 5.0, 25e6 / 8)
    assert limits_for("notwikimedia.org", limits) == limits
    assert limits_for("farm8.staticflickr.com", limits) == HostLimits(2, 5.0)


@pytest.mark.parametrize(
    ("host", "user_agent", "expected"),
    [
        ("upload.wikimedia.org", "pairmill/1 (image-caption dataset builder)", True),
        ("upload.wikimedia.org", "pairmill/1 (me@example.org)", False),
        ("upload.wikimedia.org", "pairmill/1 (https://example.org/crawler)", False),
        ("a.org", "pairmill/1", False),
    ],
)
def test_who_wants_a_contact(host, user_agent, expected):
    assert lacks_contact(host, user_agent) is expected


def test_one_process_warns(tmp_path, capsys):
    for _ in range(3):
        warn_once("give --contact", str(tmp_path))
    assert capsys.readouterr().err == "warning: give --contact\n"


def test_a_limit_of_two_connections_is_kept(hostile):
    pairs = [pair(hostile.url(f"slow/{number}", host=71)) for number in range(12)]
    assert {result(one) for one in outcomes(pairs, with_settings(per_host_connections=2))} == {"fetched"}
    assert hostile.most_at_once[71] == 2


def test_a_rate_is_kept(hostile):
    pairs = [pair(hostile.url(f"good/rate{number}", host=72)) for number in range(11)]
    assert {result(one) for one in outcomes(pairs, with_settings(per_host_rate=10))} == {"fetched"}
    times = [request.time for request in hostile.log if request.host == 72]
    assert times[-1] - times[0] > 0.9  # ten gaps of a tenth of a second, give or take the way to the server
    assert max(sum(start <= time < start + 0.5 for time in times) for start in times) <= 6


def test_limits_hold_for_all_units_of_a_process_that_share_a_folder(hostile, tmp_path):
    config = with_settings(per_host_connections=2, per_host_rate=20, shared_folder=str(tmp_path / "hosts"))
    found: collections.Counter[str] = collections.Counter()

    def fetch(name: str) -> None:
        pairs = [pair(hostile.url(f"slow/{name}{number}", host=73)) for number in range(8)]
        found.update(map(result, outcomes(pairs, config)))

    threads = [threading.Thread(target=fetch, args=name) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [request.time for request in hostile.log if request.host == 73]
    assert found == {"fetched": 24}
    assert hostile.most_at_once[73] == 2
    assert times[-1] - times[0] > 23 / 20 - 0.1


def is_true_in_a_child(question: Callable[[], bool]) -> bool:
    """Asks in a process that ends, like one that was killed, without releasing anything."""
    if not (child := os.fork()):
        answer = False
        try:
            answer = question()
        finally:
            os._exit(0 if answer else 1)
    return os.waitpid(child, 0)[1] == 0


def test_processes_share_the_slots_and_the_clock_of_a_host(tmp_path):
    folder, limit = str(tmp_path / "hosts"), 2
    ours = required(shared_host("a.example", folder))
    assert shared_host("a.example", folder) is ours

    def count_free() -> int:
        theirs = politeness.SharedHost(folder, zlib.crc32(b"a.example") % politeness._SHARED_HOSTS)
        theirs.move(lambda start: start + 1)
        held = contextlib.ExitStack()  # never closed
        return sum(theirs.try_acquire_slot(limit, held) for _ in range(limit + 1))

    def other_process_has(free: int) -> bool:
        return is_true_in_a_child(lambda: count_free() == free)

    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        assert ours.try_acquire_slot(limit, first) and other_process_has(free=1)
        assert ours.try_acquire_slot(limit, second) and other_process_has(free=0)
        assert not ours.try_acquire_slot(limit, second)
    assert other_process_has(free=2)
    assert ours.try_acquire_slot(limit, contextlib.ExitStack()) and ours.move(lambda start: start) == 3


def test_a_host_that_is_slow_does_not_hold_up_others(hostile):
    """Room for four, and a host whose turns take seconds in all."""
    slow = [pair(hostile.url(f"slow/waits{number}", host=74)) for number in range(10)]
    quick = [pair(hostile.url(f"good/passes{number}", host=75)) for number in range(20)]
    config = with_settings(connections=4, per_host_connections=1)
    order = [image.pair.url for image in instances(fetch_images([*slow, *quick], config, ImageConfig()), FetchedImage)]
    assert max(order.index(pair.url) for pair in quick) < len(order) - 3


def test_503_then_200(hostile):
    one = pair(hostile.url("unavailable_once/a"))
    assert result(outcome(one, with_settings(retries=1))) == "fetched"
    assert len(hostile.requests("unavailable_once/a")) == 2


def test_retries_are_counted(hostile):
    assert result(outcome(pair(hostile.url("status/502/counted")), with_settings(retries=1))) == "http_5xx"
    assert len(hostile.requests("status/502/counted")) == 2


def test_what_will_not_pass_is_not_tried_again(hostile):
    urls = [hostile.url("status/404/once"), hostile.url("page/once"), hostile.tls_url("good/once")]
    begun = time.monotonic()
    found = outcomes([pair(url) for url in urls], with_settings(retries=5))
    assert [result(one) for one in found] == ["http_404", "not_an_image", "connection"]
    assert time.monotonic() - begun < SLACK_S
    assert len(hostile.requests("status/404/once")) == len(hostile.requests("page/once")) == 1


def test_retry_after_is_kept_for_the_whole_host(hostile):
    pairs = [pair(hostile.url("busy/1/1/a", host=76)), *(pair(hostile.url(f"good/{n}", host=76)) for n in range(5))]
    found = outcomes(pairs, with_settings(retries=1, per_host_connections=1))
    assert {result(one) for one in found} == {"fetched"}
    first, second, *_ = (request.time for request in hostile.log if request.host == 76)
    assert second - first >= 0.95


def test_a_host_that_asks_for_a_long_rest_is_left_alone(hostile):
    pairs = [pair(hostile.url(f"busy/3600/9/{number}", host=77)) for number in range(5)]
    begun = time.monotonic()
    found = outcomes(pairs, with_settings(retries=3, per_host_connections=1))
    assert {result(one) for one in found} == {"http_429"}
    assert [request.host for request in hostile.log].count(77) == 1
    assert time.monotonic() - begun < SLACK_S


def test_a_dead_host_is_given_up(hostile):
    pairs = [pair(hostile.url(f"reset_at_once/{number}", host=78)) for number in range(40)]
    found = outcomes(pairs, with_settings(per_host_connections=2))
    assert {result(one) for one in found} == {"connection"}
    assert "given up" in instance(found[-1], Rejected).detail
    assert [request.host for request in hostile.log].count(78) <= 24  # the client library asks twice


def test_folders_of_killed_runs_are_removed(tmp_path, monkeypatch):
    names = ("killed", "young", "running", "other")
    folders = {name: tmp_path / f"{'else' if name == 'other' else shared_folder.FOLDER_PREFIX}{name}" for name in names}
    for name, folder in folders.items():
        folder.mkdir(mode=0o700)
        (folder / shared_folder.LAUNCHER_LOCK).touch()
        if name != "young":
            os.utime(folder / shared_folder.LAUNCHER_LOCK, (1, 1))
            os.utime(folder, (1, 1))
    with open(folders["running"] / shared_folder.LAUNCHER_LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shared_folder.remove_leftovers(str(tmp_path))
    assert {name for name, folder in folders.items() if folder.exists()} == {"young", "running", "other"}


def test_a_warning_cannot_control_the_terminal(capsys):
    warn_once("\x1b[2Jhost", "")
    assert capsys.readouterr().err == "warning: \\u001b[2Jhost\n"
