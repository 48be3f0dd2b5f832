"""From measured seconds to hours: what comes once, what grows with rows, and what hosts allow."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.estimate.hosts import SlowestHost, slowest_host
from pipeline.estimate.projection import MeasuredStep, Units, download_bytes, step_seconds, storage_bytes
from pipeline.estimate.quantity import exactly, range_of
from pipeline.estimate.timeline import step_time
from pipeline.sources.hosts import HostLimits

NOBODY = SlowestHost()


def steady(rows: int = 100, seconds: float = 50.0, tail_s: float = 0.0):
    """A step that does `rows` rows evenly in `seconds`, the last tenth later by `tail_s`; 1,000 bytes each."""
    done = np.arange(rows + 1)
    return step_time(done * seconds / rows + tail_s * (done > 0.9 * rows), done, done * 1000.0)


def test_what_is_measured_whole_is_what_it_takes():
    time = steady(tail_s=7)
    step = MeasuredStep("fetch", time, exactly(100), Units(2, exactly(2), True))
    assert range_of(step_seconds(step, 2, 1, NOBODY)) == pytest.approx((57, 57, 57))


def test_rows_and_waits_grow_apart():
    """With units of 50 pairs two workers wait for their last download once in the sample, and ten times in all."""
    step = MeasuredStep("fetch", steady(tail_s=7), exactly(1000), Units(2, exactly(20), True))
    assert step_seconds(step, 2, 1, NOBODY)[0] == pytest.approx(1000 * 0.5 + 10 * 7)
    overlapping = step._replace(units=Units(2, exactly(20), False))
    assert step_seconds(overlapping, 2, 1, NOBODY)[0] == pytest.approx(1000 * 0.5 + 7)


def test_workers_that_had_nothing_to_do_in_the_sample_help_in_the_whole():
    step = MeasuredStep("encode", steady(), exactly(10_000), Units(1, exactly(100), False))
    alone = step_seconds(step, 1, 1, NOBODY)[0]
    assert step_seconds(step, 4, 1, NOBODY)[0] == pytest.approx(alone / 4)
    assert step_seconds(step, 4, 5, NOBODY)[0] == pytest.approx(alone / 20)
    assert step_seconds(step, 400, 5, NOBODY)[0] == pytest.approx(alone / 100), "there are 100 units"


def test_a_host_leaves_the_least_time_on_any_number_of_machines():
    host = slowest_host({"http://a.example/1": 30, "http://b.example/2": 10}, HostLimits(4, 2.0), 1000)
    assert (host.name, host.share) == ("a.example", 0.75)
    step = MeasuredStep("fetch", steady(), exactly(100_000))
    assert step_seconds(step, 1, 1000, host)[0] == pytest.approx(100_000 * 0.75 / 2)


def test_limits_of_a_domain_and_of_bytes_count():
    hosts = {f"http://i{number}.example.com/": 1.0 for number in range(10)}
    assert slowest_host(hosts, HostLimits(4, 2.0), 0).name == "example.com"
    commons = slowest_host({"https://upload.wikimedia.org/a.jpg": 1.0}, HostLimits(4, 20.0), 3_125_000)
    assert commons.seconds_per_pair == pytest.approx(1)
    assert slowest_host({"http://[": 1.0, "x": 1.0}, HostLimits(4, 20.0), 0) == NOBODY


def test_bytes_follow_the_pairs():
    assert range_of(download_bytes(steady(), exactly(500))) == pytest.approx((500_000,) * 3)
    assert range_of(download_bytes(None, exactly(500))) == (0, 0, 0)
    sizes = {"kept": 1000, "rejected": 10, "fixed": 7}
    assert storage_bytes(sizes, (10, exactly(50)), (1, exactly(3)))[0] == 5000 + 30 + 7
    assert storage_bytes(sizes, (0, exactly(0)), (0, exactly(0)))[0] == 1017


def test_uneven_work_is_uncertain():
    rng = np.random.default_rng(0)
    times = np.concatenate([[0], np.cumsum(rng.exponential(1, 200))])
    step = MeasuredStep("fetch", step_time(times, np.arange(201), np.zeros(201)), exactly(20_000))
    low, high = (range_of(step_seconds(step, 1, 1, NOBODY))[number] for number in (1, 2))
    assert low < times[180] / 180 * 20_000 < high
    assert 1.05 * low < high < 1.5 * low
